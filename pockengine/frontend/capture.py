"""Capture: a module, an example batch and a loss become one joint graph of loss and all gradients.

PyTorch's tracer and autograd do the capture and the differentiation, in one run where they can
(``single_trace``), else by AOTAutograd; ``legalize`` says the result in the closed vocabulary.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch._export.utils import _compiling_state_context
from torch._functorch._aot_autograd.descriptors import (
    BufferAOTInput,
    GradAOTOutput,
    InputMutationAOTOutput,
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
from pockengine.frontend.check_model import check_call
from pockengine.frontend.composed import Composed, values_unread
from pockengine.frontend.constants import FreshFromConstants
from pockengine.frontend.decompositions import decompositions
from pockengine.frontend.evaluate import Evaluator
from pockengine.frontend.legalize import UnsupportedError, legalize, unsupported_error
from pockengine.frontend.losses import MODEL, Loss, loss_function, own_loss
from pockengine.frontend.modes import (
    assignments_written,
    evaluating,
    is_training,
    traceable_averages,
)
from pockengine.frontend.packed import refuse_packed
from pockengine.frontend.places import annotated
from pockengine.frontend.single_trace import single_trace
from pockengine.frontend.structure import (
    Structure,
    arguments,
    as_tensors,
    flatten,
    flatten_output,
)
from pockengine.frontend.trace_errors import quiet, trace_error

Batch: TypeAlias = Any

_EVALUATION = "evaluation_"  # prefix of constants


@dataclass(frozen=True, slots=True)
class Captured:
    """A model turned into a graph.

    Args:
        graph: the joint graph: loss, outputs, the gradient of every floating-point parameter, and
            the updates of buffers, all in the model's own mode.
        evaluation: loss and outputs of the model in eval mode; the joint graph where that is it.
        tensors: contents of parameters, buffers and constants by canonical name.
        aliases: canonical name of each further name of a tied parameter or buffer.
        inputs: names of the model's inputs, in the order of the flattened batch.
        targets: names of the loss's targets, likewise.
        input_structure: how the inputs nest.
        target_structure: how the targets nest.
        output_structure: how the model's output nests, in eval mode and without a loss of its own.
        requires_grad: canonical names of the parameters that the model itself wants to train.
        assumed: contents of the buffers, all without a place in a checkpoint, that constants were
            computed from; the capture holds for these alone.
    """

    graph: Graph
    evaluation: Graph
    tensors: Mapping[str, Tensor]
    aliases: Mapping[str, str]
    inputs: tuple[str, ...]
    targets: tuple[str, ...]
    input_structure: Structure
    target_structure: Structure
    output_structure: Structure
    requires_grad: frozenset[str]
    assumed: Mapping[str, Tensor] = field(default_factory=dict)


class _WithLoss(nn.Module):
    """The model and its loss as one; the outputs are detached: only the loss differentiates.

    Args:
        model: the model.
        loss: a callable, or None for the model's own.
        inputs: how the first of the tensors that it is called with nest.
        targets: how the rest of them nest.
    """

    def __init__(self, model: nn.Module, loss: Any, inputs: Structure, targets: Structure) -> None:
        super().__init__()
        self.model = model
        self.loss = loss
        self.inputs = inputs
        self.targets = targets
        self.output_structure: Structure | None = None

    def named_modules(
        self, memo: set[nn.Module] | None = None, prefix: str = "", remove_duplicate: bool = True
    ) -> Iterator[tuple[str, nn.Module]]:
        """Each module once, even if it is registered under several names.

        A tracer puts stand-ins in the place of all named parameters and back. With a second name
        of a module it would put back the stand-in that it found there.
        """
        del remove_duplicate
        yield from super().named_modules(memo, prefix)

    def owned(self) -> dict[str, Tensor]:
        """Parameters, then buffers, by all of their names."""
        children = list(self.named_children())
        return {
            name: tensor
            for members in (nn.Module.named_parameters, nn.Module.named_buffers)
            for child, module in children
            for name, tensor in members(module, child, remove_duplicate=False)
        }

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        split = self.inputs.tensors
        inputs = self.inputs.build(tensors[:split])
        targets = self.targets.build(tensors[split:])
        with (
            FreshFromConstants(),
            Composed(),
            values_unread(),
            assignments_written(self.model),
        ):
            if self.loss is None:
                loss, output = own_loss(_call(self.model, inputs, _keywords(targets)))
            else:
                output = _call(self.model, inputs, {})
                loss = self.loss(output, targets)
            loss = _scalar(loss)
        leaves, self.output_structure = flatten_output(output)
        return loss, *(leaf.detach() for leaf in leaves)


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


def canonical_batch(batch: Batch, where: str = "compile(example_batch)") -> tuple[Any, Any]:
    """(inputs, targets) as they are traced: inputs a tuple or a dict of keywords, of tensors.

    None, True, False and words among them are fixed.

    Args:
        batch: what a user passed.
        where: what it is.

    Raises:
        CaptureError: the batch is not a pair, or holds what is no number.
    """
    if not isinstance(batch, (tuple, list)) or len(batch) != 2:
        raise CaptureError(
            where=where,
            found=f"{type(batch).__name__}"
            + (f" of {len(batch)}" if isinstance(batch, (tuple, list)) else ""),
            needed="a pair (inputs, targets)",
            remedy="Pass (x, y); several inputs go in a tuple or a dict: ((x1, x2), y)",
        )
    refuse_packed(batch)
    inputs, targets = batch
    if isinstance(targets, Mapping):
        targets = dict(targets)
    try:
        return as_tensors(arguments(inputs)), as_tensors(targets)
    except (TypeError, ValueError, RuntimeError) as error:
        raise CaptureError(
            where=where,
            found=f"what is no array of numbers ({error})",
            needed="tensors, arrays or numbers; None, flags and words are fixed",
            remedy="Turn texts into tokens and pictures into arrays ahead of compilation",
        ) from error


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
    given, input_structure = flatten(inputs)
    told, target_structure = flatten(targets)
    batch = (*given, *told)
    own = isinstance(loss, str) and loss == MODEL
    function = None if own else loss_function(loss)
    check_call(
        "compile(example_batch): inputs of the model" + (" and its labels" if own else ""),
        model.forward,
        inputs,
        _keywords(targets) if own else None,
    )
    if function is not None:
        check_call("compile(loss=...): called with (output, targets)", function, (None, None))
    wrapper = _WithLoss(model, function, input_structure, target_structure)
    wrapper.training = model.training
    wanted = {id(p) for p in model.parameters() if p.requires_grad}
    with _everything_trains(model):
        with traceable_averages(model):
            evaluation = joint = _joint(wrapper, batch)
        if is_training(model):
            with evaluating(model):
                evaluation = _joint(wrapper, batch, _EVALUATION)
    roles = joint.roles
    named = dict(model.named_parameters(remove_duplicate=False))
    assert wrapper.output_structure is not None
    return Captured(
        graph=joint.graph,
        evaluation=evaluation.graph,
        tensors={**evaluation.tensors(), **joint.tensors()},
        aliases=roles.aliases(),
        inputs=tuple(roles.batch_names[0]),
        targets=tuple(roles.batch_names[1]),
        input_structure=input_structure,
        target_structure=target_structure,
        output_structure=wrapper.output_structure,
        requires_grad=frozenset(
            name for name, p in named.items() if id(p) in wanted and name not in roles.aliases()
        ),
        assumed={**evaluation.assumed, **joint.assumed},
    )


@dataclass(frozen=True, slots=True)
class _Joint:
    """A joint graph as ATen ops and in the vocabulary, and what was computed of it already."""

    aten: torch.fx.GraphModule
    roles: _Roles
    graph: Graph
    constants: Mapping[str, Tensor]
    assumed: Mapping[str, Tensor]

    def tensors(self) -> dict[str, Tensor]:
        """Contents of everything that is not an input, by canonical name."""
        return {**self.roles.tensors(self.aten), **self.constants}


def _joint(wrapper: _WithLoss, batch: tuple[Tensor, ...], prefix: str = "") -> _Joint:
    try:
        return _legal(wrapper, batch, prefix)
    except UnsupportedError:
        pass
    try:
        with annotated(wrapper.model):  # slower: only to say where
            return _legal(wrapper, batch, prefix, annotate=True)
    except UnsupportedError as error:
        raise unsupported_error(wrapper.model, error.missing) from error


def _legal(
    wrapper: _WithLoss, batch: tuple[Tensor, ...], prefix: str, *, annotate: bool = False
) -> _Joint:
    aten = _trace(wrapper, batch, annotate=annotate)
    _rename_constants(aten, prefix)
    roles = _Roles(aten.graph, wrapper)
    evaluator = Evaluator(aten, roles.fixed())
    graph, constants = legalize(
        aten, roles.inputs, roles.gradients, roles.outputs, roles.buffers, evaluator, prefix
    )
    assumed = {roles.inputs[node]: roles.fixed()[node].clone() for node in evaluator.used}
    return _Joint(aten, roles, graph, constants, assumed)


def _rename_constants(module: torch.fx.GraphModule, prefix: str) -> None:
    """Constants of the eval-mode graph keep apart from those of the joint graph."""
    for node in module.graph.find_nodes(op="get_attr"):
        name = str(node.target)
        if prefix and "." not in name and not name.startswith(prefix):
            setattr(module, prefix + name, getattr(module, name))
            node.target = prefix + name


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


@contextlib.contextmanager
def _without_values(model: nn.Module, mode: FakeTensorMode) -> Iterator[None]:
    """Tensors on the meta device stand inside as if they were on the CPU."""
    stand_ins: dict[int, Tensor] = {}
    replaced: list[tuple[dict[str, Any], str, Tensor]] = []
    for module in model.modules():
        tables: tuple[dict[str, Any], ...] = (module._parameters, module._buffers)  # noqa: SLF001
        for owned in tables:
            for name, tensor in owned.items():
                if tensor is not None and tensor.is_meta:
                    replaced.append((owned, name, tensor))
                    stand_ins.setdefault(id(tensor), _stand_in(tensor, mode))
    for owned, name, tensor in replaced:
        owned[name] = stand_ins[id(tensor)]
    try:
        yield
    finally:
        for owned, name, tensor in replaced:
            owned[name] = tensor


def _stand_in(tensor: Tensor, mode: FakeTensorMode) -> Tensor:
    with mode:
        empty = torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device="cpu")
    if isinstance(tensor, nn.Parameter):
        return nn.Parameter(empty, requires_grad=tensor.requires_grad)
    return empty


def _trace(
    wrapper: _WithLoss, batch: tuple[Tensor, ...], *, annotate: bool
) -> torch.fx.GraphModule:
    """The joint graph in ATen's ops; only AOTAutograd tells which lines its nodes come from."""
    try:
        with contextlib.ExitStack() as stack, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            stack.enter_context(sdpa_kernel(SDPBackend.MATH))
            stack.enter_context(_compiling_state_context())  # models leave out checks of values
            stack.enter_context(quiet())
            stack.enter_context(torch.backends.mkldnn.flags(enabled=False))  # recurrent nets unroll
            # a tensor that is neither parameter nor buffer becomes a constant
            mode = FakeTensorMode(allow_non_fake_inputs=True)
            stack.enter_context(tracing(TracingContext(mode)))
            stack.enter_context(_without_values(wrapper, mode))
            table = decompositions()
            found = None if annotate else single_trace(wrapper, batch, mode, table)
            if found is not None:
                return found
            joint = aot_export_joint_with_descriptors(stack, wrapper, batch, decompositions=table)
            return joint.graph_module
    except CaptureError:
        raise
    except Exception as error:
        raise trace_error(wrapper.model, error) from error


class _Roles:
    """What the placeholders and outputs of AOTAutograd's graph stand for."""

    def __init__(self, graph: Graph, wrapper: _WithLoss) -> None:
        self._wrapper = wrapper
        self.batch_names = (
            list(wrapper.inputs.names("input")),
            list(wrapper.targets.names("target")),
        )
        flat_names = [*self.batch_names[0], *self.batch_names[1]]
        self._owned = wrapper.owned()
        self._first: dict[int, str] = {}
        for raw, tensor in self._owned.items():
            self._first.setdefault(id(tensor), _canonical(raw))
        self.inputs: dict[Node, str] = {}
        self._buffers: dict[Node, str] = {}
        for node in graph.find_nodes(op="placeholder"):
            described = node.meta["desc"]
            if isinstance(described, (ParamAOTInput, BufferAOTInput)):
                self.inputs[node] = self._name(described.target)
                if isinstance(described, BufferAOTInput):
                    self._buffers[node] = described.target
            elif isinstance(described, PlainAOTInput):
                self.inputs[node] = flat_names[described.idx]
        self._read_outputs(graph.output_node())

    def _read_outputs(self, out: Node) -> None:
        self.gradients: dict[str, list[Node]] = {}
        self.buffers: dict[str, Node] = {}
        self.outputs: list[Node] = []
        for value, described in zip(out.args[0], out.meta["desc"], strict=True):  # type: ignore[arg-type]
            if isinstance(described, GradAOTOutput) and isinstance(value, Node):
                owner = described.grad_of
                if isinstance(owner, ParamAOTInput):
                    self.gradients.setdefault(self._name(owner.target), []).append(value)
            elif isinstance(described, InputMutationAOTOutput) and isinstance(value, Node):
                changed = described.mutated_input
                if isinstance(changed, BufferAOTInput):
                    self.buffers[self._name(changed.target)] = value
                elif isinstance(changed, ParamAOTInput):
                    raise _assigned(self._name(changed.target))
            elif isinstance(described, PlainAOTOutput):
                self.outputs.append(value)

    def fixed(self) -> dict[Node, Tensor]:
        """Contents of the buffers that no checkpoint holds: they are part of the program."""
        stored = {id(tensor) for tensor in self._wrapper.state_dict(keep_vars=True).values()}
        return {
            node: self._owned[target]
            for node, target in self._buffers.items()
            if id(self._owned[target]) not in stored
            and self._name(target) not in self.buffers
            and not self._owned[target].is_meta
        }

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


def _assigned(name: str) -> CaptureError:
    return CaptureError(
        where="forward of the model",
        found=f"it writes into the parameter {name}",
        needed="parameters that only the optimizer changes",
        remedy="Compute the changed weight as a new tensor, or keep it in a buffer",
    )


def _canonical(target: str) -> str:
    """PyTorch's name of a tensor of the model; the loss's own keep their prefix."""
    return target.removeprefix("model.")
