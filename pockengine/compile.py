"""From a module to a trainer: the passes in their order, the plan, the kernels, the tables."""

from __future__ import annotations

import contextlib
import gc
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TypeAlias

from torch import Tensor, nn
from torch.fx import Graph
from torch.utils import _pytree as pytree

from pockengine.frontend.capture import Batch, Captured, canonical_batch
from pockengine.frontend.losses import Loss
from pockengine.frontend.recall import recall
from pockengine.ir.graph import (
    Outputs,
    name_of,
    outputs_of,
    placeholders,
    subgraph,
    type_of,
)
from pockengine.ir.types import Role
from pockengine.ir.verify import verify
from pockengine.lower.features import host_target
from pockengine.lower.kernel import Kernel, kernels
from pockengine.lower.program import build_kernels, works
from pockengine.optimizer import Optimizer
from pockengine.passes.append_optimizer import LEARNING_RATE, append_optimizer
from pockengine.passes.choose_layout import Order, choose_layout
from pockengine.passes.choose_saved import SavingCosts, choose_saved
from pockengine.passes.compress_masks import compress_masks
from pockengine.passes.copy_outputs import copy_outputs
from pockengine.passes.decompose_batch_norm import decompose_batch_norm
from pockengine.passes.extract_forward import extract_forward
from pockengine.passes.fold_batch_norm import fold_batch_norm
from pockengine.passes.fold_constants import fold_constants
from pockengine.passes.fuse import fuse
from pockengine.passes.pad_convolutions import pad_convolutions
from pockengine.passes.prune_backward import prune_backward
from pockengine.passes.simplify import simplify
from pockengine.passes.slice_channels import slice_channels
from pockengine.plan.costs import saving_costs
from pockengine.plan.fit import check_fits
from pockengine.plan.memory import Plan, plan_memory
from pockengine.runtime.assemble import EntrySource, assemble
from pockengine.runtime.signature import Signature
from pockengine.scheme import Channels, Rule, Scheme
from pockengine.targets import Target, get_target
from pockengine.targets.host import TARGET as HOST
from pockengine.trainer import Program, Trainer

Observer: TypeAlias = Callable[[str, str, Graph], None]
"""Called with an entry point's name, a pass's name and the graph that the pass made."""


@dataclass(slots=True, kw_only=True)
class Context:
    """What passes take besides the graph, and what they leave for later ones.

    Args:
        updated: canonical names of the parameters that the scheme updates.
        channels: the part of each that is updated in part.
        optimizer: what is written into the step.
        tensors: the model's tensors by canonical name.
        costs: what keeping a value weighs against computing it again.
        orders: storage orders that an earlier entry point decided.
        constants: contents of constants by name; ``fold_constants`` fills it.
    """

    updated: frozenset[str]
    channels: Mapping[str, Channels]
    optimizer: Optimizer
    tensors: Mapping[str, Tensor]
    costs: SavingCosts
    orders: dict[str, Order] = field(default_factory=dict)
    constants: dict[str, Tensor] = field(default_factory=dict)


Pass: TypeAlias = Callable[[Graph, Context], Graph]


def _fold_constants(graph: Graph, context: Context) -> Graph:
    new, contents = fold_constants(graph, context.tensors)
    context.constants.update(
        {name_of(node): contents[name_of(node)] for node in placeholders(new, Role.CONST)}
    )
    return new


def _choose_layout(graph: Graph, context: Context) -> Graph:
    new = choose_layout(graph, context.orders)
    for node in placeholders(new, Role.CONST, Role.PARAM, Role.STATE):
        kind = type_of(node)
        context.orders[name_of(node)] = kind.order or tuple(range(len(kind.shape)))
    return new


# before constants have values: these say what the constants of a trainer are
SYMBOLIC: tuple[tuple[str, Pass], ...] = (
    ("fold_batch_norm", lambda graph, _: fold_batch_norm(graph)),
    ("decompose_batch_norm", lambda graph, _: decompose_batch_norm(graph)),
)
TRAINING: tuple[tuple[str, Pass], ...] = (
    ("prune_backward", lambda graph, context: prune_backward(graph, context.updated)),
    ("slice_channels", lambda graph, context: slice_channels(graph, context.channels)),
    (
        "append_optimizer",
        lambda graph, context: append_optimizer(graph, context.optimizer, context.channels),
    ),
)
PASSES: tuple[tuple[str, Pass], ...] = (
    *SYMBOLIC,
    ("fold_constants", _fold_constants),
    ("simplify", lambda graph, _: simplify(graph)),
    ("pad_convolutions", lambda graph, _: pad_convolutions(graph)),
    ("compress_masks", lambda graph, _: compress_masks(graph)),
    ("choose_layout", _choose_layout),
    ("copy_outputs", lambda graph, _: copy_outputs(graph)),
    ("choose_saved", lambda graph, context: choose_saved(graph, context.costs)),
    ("fuse", lambda graph, _: fuse(graph)),
)
"""What every entry point goes through; the step goes through ``TRAINING`` first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A trainer ahead of code generation.

    Args:
        target: the machine it is for.
        sources: its entry points, fused.
        plan: its memory.
        signature: what it is called with.
        captured: what the model was turned into.
        scheme: what is updated, resolved.
        optimizer: how.
        fold: contents of the const region from the model's tensors.
    """

    target: Target
    sources: tuple[EntrySource, ...]
    plan: Plan
    signature: Signature
    captured: Captured
    scheme: Scheme
    optimizer: Optimizer
    fold: Callable[[Mapping[str, Tensor]], Mapping[str, Tensor]]

    @property
    def kernels(self) -> list[Kernel]:
        """All kernel calls of all entry points."""
        return [kernel for source in self.sources for kernel in source.kernels]


def compile(  # noqa: A001 - the product's name for it, as in torch.compile
    model: nn.Module,
    example_batch: Batch,
    *,
    loss: Loss,
    optimizer: Optimizer,
    scheme: Scheme | Rule | None = None,
    target: str = "host",
    threads: int | None = None,
) -> Trainer:
    """Compile a fine-tuning run.

    Args:
        model: any module that torch.export can trace, in the mode it is to be trained in. It is
            not changed: its values are copied.
        example_batch: ``(inputs, targets)`` of the shapes that every step will have.
        loss: ``"cross_entropy"``, ``"mse"``, ``"l1"``, ``"bce_with_logits"``, or a callable
            ``loss(output, targets)`` that gives a scalar.
        optimizer: ``SGD`` or ``AdamW``; the learning rate is an argument of each step.
        scheme: what to update; by default what the model's ``requires_grad`` says.
        target: the machine, by its name in ``pockengine.targets``. What is compiled for another
            than ``"host"`` cannot run here; ``Trainer.export`` writes it for its machine.
        threads: how many work at a step; None for all cores where that pays, else one.

    Raises:
        CaptureError: the model or the loss cannot be captured.
        SchemeError: the scheme does not fit the model, or updates nothing.
        InputError: the optimizer does not fit the model, or there is no such target.
        PlanError: the trainer does not fit the target's memory.
        BuildError: a kernel cannot be built.
    """
    prepared = prepare(
        model,
        example_batch,
        loss=loss,
        optimizer=optimizer,
        scheme=scheme,
        target=get_target(target),
    )
    return Trainer(link(prepared, model), prepared.captured.tensors, threads)


@contextlib.contextmanager
def _older_objects_frozen() -> Iterator[None]:
    """Garbage collections inside pass over what was there before.

    Compilation makes so many objects that the collector searches all of the process time and again,
    and in vain: PyTorch's modules alone are a million objects that live for ever.
    """
    if gc.get_freeze_count():  # the caller's own choice
        yield
        return
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


@_older_objects_frozen()
def prepare(
    model: nn.Module,
    example_batch: Batch,
    *,
    loss: Loss,
    optimizer: Optimizer,
    scheme: Scheme | Rule | None = None,
    target: Target = HOST,
    observe: Observer | None = None,
) -> Prepared:
    """All of ``compile`` up to the memory plan: of the target, only its memory matters.

    Args:
        model: as ``compile``.
        example_batch: as ``compile``.
        loss: as ``compile``.
        optimizer: as ``compile``.
        scheme: as ``compile``.
        target: the machine.
        observe: is shown every graph that a pass makes.
    """
    chosen = (Scheme.from_requires_grad(model) if scheme is None else scheme).resolve(model)
    captured = recall(model, example_batch, loss)
    channels = chosen.channels(model)
    context = Context(
        updated=frozenset(chosen),
        channels=channels,
        optimizer=optimizer,
        tensors=captured.tensors,
        costs=saving_costs(target),
    )
    starts = _starts(captured.graph, context, observe)
    graphs = {name: _run(name, graph, PASSES, context, observe) for name, graph in starts.items()}
    sources = tuple(
        EntrySource(name, graph, kernels(graph), _inputs(name, captured))
        for name, graph in graphs.items()
    )
    plan = plan_memory(
        graphs,
        {source.name: works(source.graph, source.kernels) for source in sources},
        target.alignment_bytes,
    )
    check_fits(plan, target)
    return Prepared(
        target=target,
        sources=sources,
        plan=plan,
        signature=_signature(captured, example_batch),
        captured=captured,
        scheme=chosen,
        optimizer=optimizer,
        fold=_Folder(starts, context),
    )


def link(prepared: Prepared, model: nn.Module) -> Program:
    """The program of a prepared trainer.

    Raises:
        BuildError: a kernel cannot be built.
    """
    target = prepared.target
    built = build_kernels(
        {kernel.text: None for kernel in prepared.kernels},
        host_target() if target.llvm is None else target.llvm,
        as_objects=target.llvm is not None,
    )
    descriptor, texts = assemble(prepared.sources, prepared.plan, built)
    aliases = prepared.captured.aliases
    return Program(
        target=target,
        descriptor=descriptor,
        kernels=tuple(built[text].path for text in texts),
        plan=prepared.plan,
        signature=prepared.signature,
        names={name: aliases.get(name, name) for name in model.state_dict()},
        dtypes={name: tensor.dtype for name, tensor in prepared.captured.tensors.items()},
        fold=prepared.fold,
        identity=_identity(prepared),
    )


def _starts(graph: Graph, context: Context, observe: Observer | None) -> dict[str, Graph]:
    """Each entry point's graph ahead of ``PASSES``; a step yields no outputs but the loss."""
    found = outputs_of(graph)
    loss_only = subgraph(graph, Outputs(found.loss, (), found.gradients))
    pruned = prune_backward(graph, context.updated)  # for its roles
    return {
        "step": _run("step", loss_only, TRAINING, context, observe),
        "predict": extract_forward(pruned, loss=False),
        "evaluate": extract_forward(pruned, loss=True),
    }


def _run(
    entry: str,
    graph: Graph,
    passes: tuple[tuple[str, Pass], ...],
    context: Context,
    observe: Observer | None,
) -> Graph:
    for name, rewrite in passes:
        graph = rewrite(graph, context)
        if observe is not None:
            observe(entry, name, graph)
    return verify(graph)


def _inputs(entry: str, captured: Captured) -> tuple[str, ...]:
    """Names of an entry point's inputs in the order they are passed."""
    if entry == "predict":
        return captured.inputs
    rate = (LEARNING_RATE,) if entry == "step" else ()
    return (*captured.inputs, *captured.targets, *rate)


def _signature(captured: Captured, example_batch: Batch) -> Signature:
    inputs, targets = canonical_batch(example_batch)
    nodes = placeholders(captured.graph, Role.INPUT, Role.TARGET)
    return Signature(
        inputs=captured.inputs,
        targets=captured.targets,
        types={name_of(node): type_of(node) for node in nodes},
        input_spec=pytree.tree_structure(inputs),
        target_spec=pytree.tree_structure(targets),
        output_spec=captured.output_spec,
        outputs=tuple(type_of(node) for node in outputs_of(captured.graph).outputs),
    )


class _Folder:
    """Gives the const region's contents for the model's tensors.

    The passes have evaluated them once already, for the tensors that were captured; that is handed
    out once and then forgotten, so that a trainer does not keep the model's tensors twice.

    Args:
        starts: each entry point's graph ahead of ``PASSES``.
        context: as the passes left it.
    """

    def __init__(self, starts: Mapping[str, Graph], context: Context) -> None:
        self._starts = starts
        self._wanted = frozenset(context.orders)
        self._captured: Mapping[str, Tensor] | None = context.tensors
        self._constants: Mapping[str, Tensor] = context.constants
        self._context = replace(context, tensors={}, constants={})

    def __call__(self, tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Contents by name, from tensors by canonical name."""
        if tensors is self._captured:
            found, self._captured, self._constants = self._constants, None, {}
        else:
            found = self._evaluate(tensors)
        return {name: tensor for name, tensor in found.items() if name in self._wanted}

    def _evaluate(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        found: dict[str, Tensor] = {}
        for start in self._starts.values():
            graph = start
            for _, rewrite in SYMBOLIC:
                graph = rewrite(graph, self._context)
            found.update(fold_constants(graph, tensors)[1])
        return found


def _identity(prepared: Prepared) -> dict[str, str]:
    """What makes a checkpoint fit, besides the model's frozen values."""
    scheme = json.dumps(dict(prepared.scheme), sort_keys=True)
    return {
        "scheme": hashlib.sha256(scheme.encode()).hexdigest(),
        "optimizer": repr(prepared.optimizer),
    }
