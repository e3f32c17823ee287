"""Capture: a module, an example batch and a loss become one joint graph of loss and all gradients.

torch.export's tracing and AOTAutograd do the capture and the differentiation; ``legalize`` says the
result in the closed vocabulary.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch._decomp import core_aten_decompositions, get_decompositions
from torch._export.utils import _compiling_state_context
from torch._functorch._aot_autograd.descriptors import (
    BufferAOTInput,
    GradAOTOutput,
    ParamAOTInput,
    PlainAOTInput,
    PlainAOTOutput,
)
from torch._functorch.aot_autograd import aot_export_joint_with_descriptors
from torch._guards import TracingContext, tracing
from torch._subclasses import FakeTensorMode
from torch.fx import Graph, Node
from torch.nn.attention import SDPBackend, sdpa_kernel

from pockengine.errors import CaptureError
from pockengine.frontend.legalize import legalize, unknown_ops_error
from pockengine.frontend.losses import MODEL, Loss, loss_function, own_loss
from pockengine.frontend.structure import (
    Structure,
    arguments,
    as_tensors,
    flatten,
    flatten_output,
)

Batch: TypeAlias = Any

_WHOLE = (  # ops the vocabulary holds whole, or says better than their decomposition does
    torch.ops.aten.native_batch_norm_backward,
    torch.ops.aten.embedding_dense_backward,
    torch.ops.aten.select_backward,
    torch.ops.aten.slice_backward,
    torch.ops.aten.roll,
)
_ALSO = (
    torch.ops.aten.native_layer_norm,
    torch.ops.aten.native_group_norm,
    torch.ops.aten._softmax,  # noqa: SLF001
    torch.ops.aten._log_softmax,  # noqa: SLF001
    torch.ops.aten.gelu,
    torch.ops.aten.addmv,
    torch.ops.aten.elu,
    torch.ops.aten.elu_backward,
    torch.ops.aten.leaky_relu,
    torch.ops.aten.leaky_relu_backward,
    torch.ops.aten.linalg_vector_norm,
)


@dataclass(frozen=True, slots=True)
class Captured:
    """A model turned into a graph.

    Args:
        graph: the joint graph: loss, outputs, and the gradient of every floating-point parameter.
        tensors: contents of parameters, buffers and constants by canonical name.
        aliases: canonical name of each further name of a tied parameter or buffer.
        inputs: names of the model's inputs, in the order of the flattened batch.
        targets: names of the loss's targets, likewise.
        input_structure: how the inputs nest.
        target_structure: how the targets nest.
        output_structure: how the model's output nests, without a loss of its own.
        requires_grad: canonical names of the parameters that the model itself wants to train.
    """

    graph: Graph
    tensors: Mapping[str, Tensor]
    aliases: Mapping[str, str]
    inputs: tuple[str, ...]
    targets: tuple[str, ...]
    input_structure: Structure
    target_structure: Structure
    output_structure: Structure
    requires_grad: frozenset[str]


class _WithLoss(nn.Module):
    """The model and its loss as one; the outputs are detached: only the loss differentiates.

    Args:
        model: the model.
        loss: a callable, or None for the model's own.
        batch: how the tensors that it is called with nest: a pair of inputs and targets.
    """

    def __init__(self, model: nn.Module, loss: Any, batch: Structure) -> None:
        super().__init__()
        self.model = model
        self.loss = loss
        self.batch = batch
        self.output_structure: Structure | None = None

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        inputs, targets = self.batch.build(tensors)
        if self.loss is None:
            loss, output = own_loss(_call(self.model, inputs, _keywords(targets)))
        else:
            output = _call(self.model, inputs, {})
            loss = self.loss(output, targets)
        leaves, self.output_structure = flatten_output(output)
        return _scalar(loss), *(leaf.detach() for leaf in leaves)


def _call(model: nn.Module, inputs: Any, more: dict[str, Any]) -> Any:
    return model(**inputs, **more) if isinstance(inputs, dict) else model(*inputs, **more)


def _keywords(targets: Any) -> dict[str, Any]:
    """The arguments that a model computes its own loss from."""
    return dict(targets) if isinstance(targets, dict) else {"labels": targets}


def _scalar(loss: Any) -> Tensor:
    """A loss of one element without axes."""
    if isinstance(loss, Tensor) and loss.numel() == 1:
        return loss.reshape(())
    found = f"a tensor of {tuple(loss.shape)}" if isinstance(loss, Tensor) else type(loss).__name__
    raise CaptureError(
        where="compile(loss=...)",
        found=found,
        needed="a loss that gives a scalar",
        remedy="Reduce it: reduction='mean' in PyTorch's losses, or .mean() in your own",
    )


def canonical_batch(batch: Batch) -> tuple[Any, Any]:
    """(inputs, targets) as they are traced: inputs a tuple or a dict of keywords, of tensors.

    None, True, False and words among them are fixed.

    Raises:
        CaptureError: the batch is not a pair.
    """
    if not isinstance(batch, (tuple, list)) or len(batch) != 2:
        raise CaptureError(
            where="compile(example_batch)",
            found=f"{type(batch).__name__}"
            + (f" of {len(batch)}" if isinstance(batch, (tuple, list)) else ""),
            needed="a pair (inputs, targets)",
            remedy="Pass (x, y); several inputs go in a tuple or a dict: ((x1, x2), y)",
        )
    inputs, targets = batch
    if isinstance(targets, Mapping):
        targets = dict(targets)
    return as_tensors(arguments(inputs)), as_tensors(targets)


def capture(model: nn.Module, example_batch: Batch, loss: Loss) -> Captured:
    """Trace a model with its loss and differentiate it by all of its parameters.

    Args:
        model: any module that torch.export can trace; its mode (train or eval) is kept.
        example_batch: ``(inputs, targets)`` with the shapes that the trainer will run.
        loss: a name of ``LOSSES``, ``loss(output, targets) -> scalar``, or ``"model"``: targets
            are arguments of the model then (a dict, or what it calls ``labels``), which returns it.

    Raises:
        CaptureError: the model cannot be traced, or uses an op outside the vocabulary.
    """
    inputs, targets = canonical_batch(example_batch)
    tensors, structure = flatten((inputs, targets))
    batch = tuple(tensors)
    wrapper = _WithLoss(model, None if loss == MODEL else loss_function(loss), structure)
    wrapper.training = model.training
    wanted = {id(p) for p in model.parameters() if p.requires_grad}
    with _everything_trains(model):
        aten = _trace(wrapper, batch)
    structures = flatten(inputs)[1], flatten(targets)[1]
    roles = _Roles(aten.graph, wrapper, structures)
    try:
        graph = legalize(aten, roles.inputs, roles.gradients, roles.outputs)
    except CaptureError:
        raise
    except NotImplementedError as error:
        raise unknown_ops_error(wrapper, batch, {}, detail=str(error)) from error
    named = dict(model.named_parameters(remove_duplicate=False))
    assert wrapper.output_structure is not None
    return Captured(
        graph=graph,
        tensors=roles.tensors(aten),
        aliases=roles.aliases(),
        inputs=tuple(roles.batch_names[0]),
        targets=tuple(roles.batch_names[1]),
        input_structure=structures[0],
        target_structure=structures[1],
        output_structure=wrapper.output_structure,
        requires_grad=frozenset(
            name for name, p in named.items() if id(p) in wanted and name not in roles.aliases()
        ),
    )


@contextlib.contextmanager
def _everything_trains(model: nn.Module) -> Iterator[None]:
    """Every floating-point parameter requires a gradient inside; as before outside."""
    frozen = [p for p in model.parameters() if not p.requires_grad and p.is_floating_point()]
    for parameter in frozen:
        parameter.requires_grad_(True)
    try:
        yield
    finally:
        for parameter in frozen:
            parameter.requires_grad_(False)


def _decompositions() -> dict[Any, Any]:
    table = {**core_aten_decompositions(), **get_decompositions(_ALSO)}
    whole = {getattr(packet, name) for packet in _WHOLE for name in packet.overloads()}  # type: ignore[no-untyped-call]
    return {op: rule for op, rule in table.items() if op not in whole}


def _trace(wrapper: _WithLoss, batch: tuple[Tensor, ...]) -> torch.fx.GraphModule:
    try:
        with contextlib.ExitStack() as stack, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            stack.enter_context(_compiling_state_context())  # models avoid reading values then
            stack.enter_context(sdpa_kernel(SDPBackend.MATH))
            stack.enter_context(torch.backends.mkldnn.flags(enabled=False))  # recurrent nets unroll
            # a tensor that is neither parameter nor buffer becomes a constant
            mode = FakeTensorMode(allow_non_fake_inputs=True)
            stack.enter_context(tracing(TracingContext(mode)))
            joint = aot_export_joint_with_descriptors(
                stack, wrapper, batch, decompositions=_decompositions()
            )
            return joint.graph_module
    except CaptureError:
        raise
    except Exception as error:
        first = next(iter(str(error).strip().splitlines()), "")
        raise CaptureError(
            where=f"capture of {type(wrapper.model).__name__}",
            found=f"{type(error).__name__}: {first}",
            needed="a model that torch.export can trace and a loss that gives a scalar",
            remedy="Run loss(model(x), y).backward() in PyTorch with the example batch first; "
            "avoid control flow that depends on values",
        ) from error


class _Roles:
    """What the placeholders and outputs of AOTAutograd's graph stand for."""

    def __init__(
        self, graph: Graph, wrapper: _WithLoss, batch: tuple[Structure, Structure]
    ) -> None:
        self._wrapper = wrapper
        self.batch_names = (list(batch[0].names("input")), list(batch[1].names("target")))
        flat_names = [*self.batch_names[0], *self.batch_names[1]]
        self._owned = {
            **dict(wrapper.named_parameters(remove_duplicate=False)),
            **dict(wrapper.named_buffers(remove_duplicate=False)),
        }
        self._first: dict[int, str] = {}
        for raw, tensor in self._owned.items():
            self._first.setdefault(id(tensor), _canonical(raw))
        self.inputs: dict[Node, str] = {}
        for node in graph.find_nodes(op="placeholder"):
            described = node.meta["desc"]
            if isinstance(described, (ParamAOTInput, BufferAOTInput)):
                self.inputs[node] = self._name(described.target)
            elif isinstance(described, PlainAOTInput):
                self.inputs[node] = flat_names[described.idx]
        self.gradients: dict[str, list[Node]] = {}
        self.outputs: list[Node] = []
        out = graph.output_node()
        for value, described in zip(out.args[0], out.meta["desc"], strict=True):  # type: ignore[arg-type]
            if isinstance(described, GradAOTOutput) and isinstance(value, Node):
                owner = described.grad_of
                if isinstance(owner, ParamAOTInput):
                    self.gradients.setdefault(self._name(owner.target), []).append(value)
            elif isinstance(described, PlainAOTOutput):
                self.outputs.append(value)

    def tensors(self, module: torch.fx.GraphModule) -> dict[str, Tensor]:
        """Contents of everything that is not an input, by canonical name."""
        found = {_canonical(name): t.detach() for name, t in self._owned.items()}
        found.update({n: t for n, t in module.named_buffers() if isinstance(t, Tensor)})
        for node in module.graph.find_nodes(op="get_attr"):
            found[str(node.target)] = torch.fx.graph_module._get_attr(module, str(node.target))  # noqa: SLF001
        return found

    def _name(self, raw: str) -> str:
        """The one name of a tensor that may have several."""
        return self._first[id(self._owned[raw])]

    def aliases(self) -> dict[str, str]:
        """Further names of tied tensors -> the one that the graph uses."""
        names = {_canonical(raw): self._name(raw) for raw in self._owned}
        return {name: used for name, used in names.items() if name != used}


def _canonical(target: str) -> str:
    """PyTorch's name of a tensor of the model; the loss's own keep their prefix."""
    return target.removeprefix("model.")
