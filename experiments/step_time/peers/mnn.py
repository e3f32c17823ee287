"""MNN: its expressions are built anew for each step, and its SGD differentiates them.

This release has no gradients of matrix products and reductions, so it trains the image networks
alone; their last layer is a convolution, as MNN's own linear layer is.
"""

from __future__ import annotations

from typing import Any

import MNN
import numpy as np
from MNN import expr, nn, optim

from experiments.step_time.peers.networks import BATCH_NORM_EPS, network, shapes_of
from experiments.step_time.peers.protocol import LR, MOMENTUM, Peer, Task, serve

_PADDED = expr.Padding_Mode.CAFFE  # by so much as is said


class _Operations(nn.Module):  # type: ignore[misc]
    """Over parameters that MNN's SGD finds; images are stored in blocks of four channels."""

    def __init__(self, task: Task) -> None:
        super().__init__()
        self.shapes, self.buffers = shapes_of(task.parameters), task.buffers
        self.values: dict[str, Any] = {}
        for name, array in task.parameters.items():
            value = _constant(array if array.ndim != 1 else array.reshape(1, -1, 1, 1))
            value.fix_as_trainable()
            setattr(self, name.replace(".", "_"), value)
            self.values[name] = value

    def conv(self, x: Any, weight: str, *, stride: int = 1, depthwise: bool = False) -> Any:
        outputs, *_, window = self.shapes[weight]
        half = window // 2
        return expr.conv2d(
            x,
            self.values[weight],
            _constant(np.zeros(outputs, np.float32)),
            (stride, stride),
            (half, half),
            (1, 1),
            outputs if depthwise else 1,
            _PADDED,
        )

    def batch_norm(self, x: Any, name: str) -> Any:
        variance = self.buffers[f"{name}.running_var"] + np.float32(BATCH_NORM_EPS)
        rate, mean = (
            _constant(part.reshape(1, -1, 1, 1).astype(np.float32))
            for part in (1 / np.sqrt(variance), self.buffers[f"{name}.running_mean"])
        )
        scale = self.values[f"{name}.weight"] * rate
        shift = self.values[f"{name}.bias"] - mean * scale
        return x * expr.convert(scale, expr.NC4HW4) + expr.convert(shift, expr.NC4HW4)

    def relu(self, x: Any) -> Any:
        return expr.relu(x)

    def relu6(self, x: Any) -> Any:
        return expr.relu6(x)

    def max_pool(self, x: Any) -> Any:
        y = expr.max_pool(x, (3, 3), (2, 2), _PADDED, (1, 1))  # its extent is rounded up
        batch, channels, *extent = x.shape
        kept = [batch, channels, *((each + 1) // 2 for each in extent)]
        return expr.strided_slice(y, [0] * 4, kept, [1] * 4, 0, 0, 0, 0, 0)

    def mean_places(self, x: Any) -> Any:
        return expr.avg_pool(x, tuple(x.shape[2:]), (1, 1))

    def linear(self, x: Any, name: str) -> Any:
        outputs, width = self.shapes[f"{name}.weight"]
        kernel = expr.reshape(self.values[f"{name}.weight"], [outputs, width, 1, 1])
        y = expr.conv2d(x, kernel, expr.reshape(self.values[f"{name}.bias"], [outputs]))
        return expr.reshape(expr.convert(y, expr.NCHW), [-1, outputs])

    def add(self, x: Any, y: Any) -> Any:
        return x + y


def prepare(task: Task) -> Peer:
    """The step.

    Raises:
        SystemExit: for the networks that it cannot train.
    """
    if any(array.ndim != 4 for array in task.inputs):
        raise SystemExit("no gradient of matrix products")
    expr.lazy_eval(True)
    expr.set_thread_number(task.threads)
    module, run = _Operations(task), network(task.case)
    module.train(True)
    optimizer = optim.SGD(module, LR, MOMENTUM, 0.0)
    (image,) = (expr.convert(_constant(array), expr.NC4HW4) for array in task.inputs)
    classes = next(reversed(task.parameters.values())).shape[0]
    labels = expr.const(task.labels.astype(np.int32), [task.labels.size], expr.NCHW, expr.int)
    wanted = expr.one_hot(labels, classes, 1, 0)

    def step() -> float:
        loss = nn.loss.cross_entropy(expr.softmax(run(module, image)), wanted)
        found = float(loss.read())
        if not optimizer.step(loss):
            raise RuntimeError("no gradient of an operation")
        return found

    trained = sum(int(np.prod(value.shape)) for value in module.parameters)
    return Peer(step=step, trained=trained, version=MNN.version())


def _constant(array: Any) -> Any:
    return expr.const(np.ascontiguousarray(array), list(array.shape), expr.NCHW)


if __name__ == "__main__":
    serve(prepare)
