"""ONNX Runtime's on-device training: an ONNX graph, its artifacts, SGD without momentum.

It has no SGD with momentum, so its step does less than the others'; losses are compared up to the
first update.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from experiments.step_time.peers.networks import (
    BATCH_NORM_EPS,
    LAYER_NORM_EPS,
    MASKED,
    RMS_NORM_EPS,
    causal_bias,
    network,
    shapes_of,
)
from experiments.step_time.peers.protocol import LR, Peer, Task, serve

_OPSETS = {"": 17, "com.microsoft": 1}
_IR_VERSION = 8
_LOGITS = "logits"


class _Operations:
    """Append nodes to a graph; images are (N, C, H, W)."""

    def __init__(self, task: Task) -> None:
        self.shapes, self.length = shapes_of(task.parameters), task.inputs[0].shape[1]
        self.buffers = task.buffers
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def node(
        self, op: str, *operands: str, domain: str = "", results: int = 1, **attributes: Any
    ) -> str:
        """Append one; gradients may need more than its first result."""
        name = f"value_{len(self.nodes)}"
        names = [name, *(f"{name}_{place}" for place in range(1, results))]
        made = helper.make_node(op, list(operands), names, name, domain=domain, **attributes)
        self.nodes.append(made)
        return name

    def constant(self, array: Any) -> str:
        name = f"constant_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def conv(self, x: Any, weight: str, *, stride: int = 1, depthwise: bool = False) -> Any:
        window = self.shapes[weight][-1]
        return self.node(
            "Conv",
            x,
            weight,
            group=self.shapes[weight][0] if depthwise else 1,
            kernel_shape=[window, window],
            pads=[window // 2] * 4,
            strides=[stride, stride],
        )

    def batch_norm(self, x: Any, name: str) -> Any:
        mean, variance = (self.buffers[f"{name}.running_{part}"] for part in ("mean", "var"))
        rate = 1 / np.sqrt(variance + np.float32(BATCH_NORM_EPS))
        along = self.constant(np.array([-1, 1, 1]))
        scale = self.node("Mul", f"{name}.weight", self.constant(rate))
        moved = self.node("Mul", scale, self.constant(mean))
        shift = self.node("Sub", f"{name}.bias", moved)
        y = self.node("Mul", x, self.node("Reshape", scale, along))
        return self.node("Add", y, self.node("Reshape", shift, along))

    def relu(self, x: Any) -> Any:
        return self.node("Relu", x)

    def relu6(self, x: Any) -> Any:
        bounds = (self.constant(np.float32(bound)) for bound in (0, 6))
        return self.node("Clip", x, *bounds)

    def max_pool(self, x: Any) -> Any:
        return self.node("MaxPool", x, kernel_shape=[3, 3], pads=[1] * 4, strides=[2, 2])

    def mean_places(self, x: Any) -> Any:
        return self.node("Flatten", self.node("GlobalAveragePool", x))

    def linear(self, x: Any, name: str) -> Any:
        y = self.node("MatMul", x, self.node("Transpose", f"{name}.weight", perm=[1, 0]))
        return self.node("Add", y, f"{name}.bias") if f"{name}.bias" in self.shapes else y

    def add(self, x: Any, y: Any) -> Any:
        return self.node("Add", x, y)

    def mul(self, x: Any, y: Any) -> Any:
        return self.node("Mul", x, y)

    def layer_norm(self, x: Any, name: str) -> Any:
        parts = (f"{name}.weight", f"{name}.bias")
        return self.node(
            "LayerNormalization", x, *parts, results=3, axis=-1, epsilon=LAYER_NORM_EPS
        )

    def rms_norm(self, x: Any, name: str) -> Any:
        mean = self.node("ReduceMean", self.node("Mul", x, x), axes=[-1], keepdims=1)
        root = self.node("Sqrt", self.node("Add", mean, self.constant(np.float32(RMS_NORM_EPS))))
        return self.node("Mul", f"{name}.weight", self.node("Div", x, root))

    def gelu(self, x: Any) -> Any:
        return self.node("Gelu", x, domain="com.microsoft")

    def silu(self, x: Any) -> Any:
        return self.node("Mul", x, self.node("Sigmoid", x))

    def embed(self, name: str, ids: Any) -> Any:
        return self.node("Gather", name, ids)

    def rows(self, name: str, begin: int, end: int) -> Any:
        return self.node("Gather", name, self.constant(np.arange(begin, end)))

    def heads(self, x: Any, count: int) -> Any:
        split = self.node("Reshape", x, self.constant(np.array([0, 0, count, -1])))
        return self.node("Transpose", split, perm=[0, 2, 1, 3])

    def rotate(self, x: Any) -> Any:
        cos, sin = (self.buffers[name] for name in ("cos", "sin"))
        half = cos.shape[1] // 2
        first, second = (
            self.node("Gather", x, self.constant(np.arange(at, at + half)), axis=3)
            for at in (0, half)
        )
        turned = self.node("Concat", self.node("Neg", second), first, axis=3)
        straight = self.node("Mul", x, self.constant(cos))
        return self.node("Add", straight, self.node("Mul", turned, self.constant(sin)))

    def attend(self, q: Any, k: Any, v: Any, bias: Any, scale: float) -> Any:
        factor = self.constant(np.float32(scale))
        scores = self.node("MatMul", q, self.node("Transpose", k, perm=[0, 1, 3, 2]))
        scores = self.node("Add", self.node("Mul", scores, factor), bias)
        mixed = self.node("MatMul", self.node("Softmax", scores, axis=-1), v)
        joined = self.node("Transpose", mixed, perm=[0, 2, 1, 3])
        return self.node("Reshape", joined, self.constant(np.array([0, 0, -1])))

    def mask_bias(self, mask: Any) -> Any:
        ones = self.node("Cast", mask, to=TensorProto.FLOAT)
        missing = self.node("Sub", self.constant(np.float32(1)), ones)
        scaled = self.node("Mul", missing, self.constant(np.float32(MASKED)))
        return self.node("Unsqueeze", scaled, self.constant(np.array([1, 2])))

    def causal_bias(self) -> Any:
        return self.constant(causal_bias(self.length))

    def mean_tokens(self, x: Any, mask: Any) -> Any:
        ones = self.node("Cast", mask, to=TensorProto.FLOAT)
        weights = self.node("Unsqueeze", ones, self.constant(np.array([2])))
        axes = self.constant(np.array([1]))
        total = self.node("ReduceSum", self.node("Mul", x, weights), axes, keepdims=0)
        return self.node("Div", total, self.node("ReduceSum", weights, axes, keepdims=0))


def prepare(task: Task) -> Peer:
    """The session of the step."""
    artifacts, api = _training()
    folder = tempfile.mkdtemp()
    artifacts.generate_artifacts(
        _model(task),
        requires_grad=list(task.parameters),
        loss=artifacts.LossType.CrossEntropyLoss,
        optimizer=artifacts.OptimType.SGD,
        artifact_directory=folder,
    )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = task.threads, 1
    made = Path(folder)
    state = api.CheckpointState.load_checkpoint(made / "checkpoint")
    module = api.Module(made / "training_model.onnx", state, session_options=options)
    optimizer = api.Optimizer(made / "optimizer_model.onnx", module)
    optimizer.set_learning_rate(LR)
    shutil.rmtree(folder)
    module.train()
    batch = (*task.inputs, task.labels.reshape(-1))

    def step() -> float:
        loss = module(*batch)
        optimizer.step()
        module.lazy_reset_grad()
        return float(loss)

    return Peer(
        step=step,
        trained=module.get_parameters_size(trainable_only=True),
        version=onnxruntime.__version__,
        note="SGD without momentum: it has no other",
        comparable=2,
    )


def _model(task: Task) -> Any:
    """Inputs to logits (rows, classes)."""
    ops = _Operations(task)
    names = [f"input_{place}" for place in range(len(task.inputs))]
    logits = network(task.case)(ops, *names)
    classes = next(reversed(task.parameters.values())).shape[0]
    rows = ops.constant(np.array([-1, classes]))
    ops.nodes.append(helper.make_node("Reshape", [logits, rows], [_LOGITS], _LOGITS))
    kinds = {np.dtype(np.float32): TensorProto.FLOAT, np.dtype(np.int64): TensorProto.INT64}
    inputs = [
        helper.make_tensor_value_info(name, kinds[array.dtype], array.shape)
        for name, array in zip(names, task.inputs, strict=True)
    ]
    shape = (task.labels.size, classes)
    outputs = [helper.make_tensor_value_info(_LOGITS, TensorProto.FLOAT, shape)]
    stored = [numpy_helper.from_array(array, name) for name, array in task.parameters.items()]
    graph = helper.make_graph(ops.nodes, task.case, inputs, outputs, [*stored, *ops.constants])
    opsets = [helper.make_opsetid(domain, version) for domain, version in _OPSETS.items()]
    return helper.make_model(graph, opset_imports=opsets, ir_version=_IR_VERSION)


def _training() -> tuple[Any, Any]:
    """Its modules for artifacts and training, which unlike their package do without PyTorch."""
    package = ModuleType("onnxruntime.training")
    package.__path__ = [str(Path(onnxruntime.__path__[0]) / "training")]
    sys.modules[package.__name__] = package
    artifacts = import_module("onnxruntime.training.artifacts")
    return artifacts, import_module("onnxruntime.training.api")


if __name__ == "__main__":
    serve(prepare)
