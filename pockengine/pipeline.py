"""The passes in their order: from a captured graph to kernels and the plan of their memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TypeAlias

from torch import Tensor
from torch.fx import Graph

from pockengine.frontend.capture import Captured
from pockengine.ir.graph import (
    calls,
    name_of,
    outputs_of,
    placeholders,
    rebuild,
    role_of,
    set_role,
    subgraph,
    type_of,
)
from pockengine.ir.types import Role
from pockengine.ir.verify import verify
from pockengine.lower.kernel import kernels
from pockengine.lower.program import works
from pockengine.modes import Modes, ema_name
from pockengine.optimizer import Optimizer, sums_gradients
from pockengine.passes.accumulate_gradients import accumulate_gradients, take_accumulated
from pockengine.passes.append_optimizer import append_optimizer
from pockengine.passes.choose_layout import Order, choose_layout
from pockengine.passes.choose_saved import choose_saved
from pockengine.passes.clip_gradients import clip_gradients
from pockengine.passes.compress_masks import compress_masks
from pockengine.passes.copy_outputs import copy_outputs
from pockengine.passes.decompose_batch_norm import decompose_batch_norm
from pockengine.passes.extract_forward import extract_forward
from pockengine.passes.fold_batch_norm import fold_batch_norm
from pockengine.passes.fold_constants import fold_constants
from pockengine.passes.fuse import fuse
from pockengine.passes.pad_convolutions import pad_convolutions
from pockengine.passes.prune_backward import keep_gradients, prune_backward
from pockengine.passes.read_average import read_average
from pockengine.passes.saved_cut import NEVER_NS, SavingCosts
from pockengine.passes.simplify import simplify
from pockengine.passes.slice_channels import slice_channels
from pockengine.passes.slice_regions import slice_regions, slice_rows
from pockengine.passes.split_batch import accumulate_rounds, split_batch
from pockengine.passes.split_concatenations import split_concatenations
from pockengine.passes.track_average import track_average
from pockengine.passes.update_writer import LEARNING_RATE
from pockengine.plan.costs import memory_time, recompute_ns
from pockengine.plan.fit import fits
from pockengine.plan.memory import EntryPlan, Plan, plan_entry, plan_memory
from pockengine.runtime.assemble import EntrySource
from pockengine.scheme import Channels
from pockengine.targets import Target

Observer: TypeAlias = Callable[[str, str, Graph], None]
"""Called with an entry point's name, a pass's name and the graph that the pass made."""


@dataclass(slots=True, kw_only=True)
class Context:
    """What passes take besides the graph, and what they leave for later ones.

    Args:
        updated: canonical names of the parameters that the scheme updates.
        channels: the part of each that is updated in part.
        optimizer: what is written into the step.
        modes: what else is.
        tensors: the model's tensors by canonical name.
        costs: what keeping a value weighs against computing it again.
        share: part of a step's time that may go into computing again; None for the largest.
        orders: storage orders that an earlier entry point decided.
        constants: contents of constants by name; ``fold_constants`` fills it.
    """

    updated: frozenset[str]
    channels: Mapping[str, Channels]
    optimizer: Optimizer
    modes: Modes
    tensors: Mapping[str, Tensor]
    costs: SavingCosts
    share: float | None = None
    orders: dict[str, Order] = field(default_factory=dict)
    constants: dict[str, Tensor] = field(default_factory=dict)


Pass: TypeAlias = Callable[[Graph, Context], Graph]


def _fold_constants(graph: Graph, context: Context) -> Graph:
    new, contents = fold_constants(graph, context.tensors)
    context.constants.update(
        {name_of(node): contents[name_of(node)] for node in placeholders(new, Role.CONST)}
    )
    return new


def _accumulate_rounds(graph: Graph, context: Context) -> Graph:
    """A momentum is the sum of a step's micro-batches by itself, if nothing is clipped."""
    sums = sums_gradients(context.optimizer) and context.modes.clip is None
    return graph if sums else accumulate_rounds(graph)


def _choose_layout(graph: Graph, context: Context) -> Graph:
    new = choose_layout(graph, context.orders)
    for node in placeholders(new, Role.CONST, Role.PARAM, Role.STATE):
        kind = type_of(node)
        context.orders[name_of(node)] = kind.order or tuple(range(len(kind.shape)))
    return new


def _alone(rewrite: Callable[[Graph], Graph]) -> Pass:
    return lambda graph, _: rewrite(graph)


# before constants have values: these say what the constants of a trainer are
SYMBOLIC: tuple[tuple[str, Callable[[Graph], Graph]], ...] = (
    ("fold_batch_norm", fold_batch_norm),
    ("decompose_batch_norm", decompose_batch_norm),
)
GRADIENTS: tuple[tuple[str, Pass], ...] = (
    ("prune_backward", lambda graph, context: prune_backward(graph, context.updated)),
    ("slice_channels", lambda graph, context: slice_channels(graph, context.channels)),
    ("accumulate_rounds", _accumulate_rounds),
)
UPDATES: tuple[tuple[str, Pass], ...] = (
    ("clip_gradients", lambda graph, context: clip_gradients(graph, context.modes.clip)),
    (
        "append_optimizer",
        lambda graph, context: append_optimizer(graph, context.optimizer, context.channels),
    ),
    ("track_average", lambda graph, context: track_average(graph, context.modes.ema)),
)
CACHE_BYTES = 2**20
"""What values that kernels hand each other should fit into: half of a usual second-level cache."""
ROWS_BYTES = 2**23
"""What is worth reading weights once more for: more than caches hold."""
LAYOUT: tuple[tuple[str, Pass], ...] = (
    *((name, _alone(rewrite)) for name, rewrite in SYMBOLIC),
    ("fold_constants", _fold_constants),
    ("simplify", lambda graph, _: simplify(graph)),
    ("split_concatenations", lambda graph, _: split_concatenations(graph)),
    ("pad_convolutions", lambda graph, _: pad_convolutions(graph)),
    ("compress_masks", lambda graph, _: compress_masks(graph)),
    ("choose_layout", _choose_layout),
    ("copy_outputs", lambda graph, _: copy_outputs(graph)),
)
SAVING: tuple[tuple[str, Pass], ...] = (
    ("choose_saved", lambda graph, context: choose_saved(graph, context.costs, context.share)),
    ("slice_rows", lambda graph, _: slice_rows(graph, ROWS_BYTES)),
    ("fuse", lambda graph, _: fuse(graph)),
    ("slice_regions", lambda graph, _: slice_regions(graph, CACHE_BYTES)),
)
"""What every entry point goes through, ``LAYOUT`` and then this; a step first goes through
``GRADIENTS`` and ``UPDATES``."""


def planned(
    starts: Mapping[str, Graph],
    inputs: Mapping[str, tuple[str, ...]],
    context: Context,
    target: Target,
    observe: Observer | None,
) -> tuple[tuple[EntrySource, ...], Plan]:
    """Entry points as kernels, and the plan of their memory.

    They are planned for each share of a step's time that may go into computing again: which of them
    pays, only the plans tell. Of those that fit the target, the one is taken whose memory times
    its time is least.

    Args:
        starts: each entry point's graph ahead of ``LAYOUT``.
        inputs: names of its inputs in the order they are passed.
        context: of the passes.
        target: the machine.
        observe: is shown every graph that a pass makes, of what is taken.
    """
    laid_out = {
        name: run_passes(name, graph, LAYOUT, context, observe) for name, graph in starts.items()
    }
    whole = _Lowering(laid_out, inputs, target.alignment_bytes)
    found = [
        whole.lowered(replace(context, share=share)) for share in context.costs.recompute_shares
    ]
    best = min(found, key=lambda each: (not fits(each.plan, target), each.memory_time))
    if observe is not None:
        for made in best.seen:
            observe(*made)
    return best.sources, best.plan


@dataclass(frozen=True, slots=True)
class _Lowered:
    """Entry points as kernels, with their plan and what the passes made of them."""

    sources: tuple[EntrySource, ...]
    plan: Plan
    seen: list[tuple[str, str, Graph]]

    @property
    def memory_time(self) -> float:
        """What is the less, the better the memory was worth its time.

        The memory is that of all entry points: a step that takes less than a prediction saves none.
        """
        training = [source for source in self.sources if _trains(source.graph)]
        nodes = [node for source in training for node in calls(source.graph)]
        step_ns = sum(ns for ns in map(recompute_ns, nodes) if ns < NEVER_NS)
        return memory_time(self.plan.arena_bytes, step_ns)


@dataclass(slots=True)
class _Lowering:
    """Plans entry points anew where another share changes what is computed again.

    Args:
        graphs: entry points after ``LAYOUT``.
        inputs: as ``planned``.
        alignment_bytes: of every value.
    """

    graphs: Mapping[str, Graph]
    inputs: Mapping[str, tuple[str, ...]]
    alignment_bytes: int
    _known: dict[tuple[str, ...], tuple[EntrySource, EntryPlan, list[tuple[str, str, Graph]]]] = (
        field(default_factory=dict)
    )

    def lowered(self, context: Context) -> _Lowered:
        """All of them for the context's share."""
        parts = [self._entry(name, graph, context) for name, graph in self.graphs.items()]
        sources = tuple(source for source, _, _ in parts)
        plan = plan_memory(
            {source.name: source.graph for source in sources},
            {source.name: entry for source, entry, _ in parts},
            self.alignment_bytes,
        )
        return _Lowered(sources, plan, [each for _, _, seen in parts for each in seen])

    def _entry(
        self, name: str, graph: Graph, context: Context
    ) -> tuple[EntrySource, EntryPlan, list[tuple[str, str, Graph]]]:
        """One entry point; what computes the same again as for another share is that one's."""
        seen: list[tuple[str, str, Graph]] = []
        saved = run_passes(name, graph, SAVING[:1], context, lambda *made: seen.append(made))
        key = (name, *(node.name for node in saved.nodes))
        if key not in self._known:
            fused = run_passes(name, saved, SAVING[1:], context, lambda *made: seen.append(made))
            source = EntrySource(name, fused, kernels(fused), self.inputs[name])
            entry = plan_entry(fused, works(fused, source.kernels), self.alignment_bytes)
            self._known[key] = (source, entry, seen)
        return self._known[key]


def _trains(graph: Graph) -> bool:
    """Whether a batch changes parameters or what they are updated by."""
    found = outputs_of(graph)
    return bool(found.updates) and bool(list(placeholders(graph, Role.INPUT)))


def entry_starts(
    captured: Captured,
    context: Context,
    observe: Observer | None,
    shape: int,
    train: bool,
    part: Captured | None = None,
) -> dict[str, Graph]:
    """Each entry point's graph ahead of ``LAYOUT``; a step yields no outputs but the loss.

    Args:
        captured: the model at a shape.
        context: of the passes.
        observe: is shown every graph that a pass makes.
        shape: its number.
        train: whether there are steps of it.
        part: the model at the shape of a micro-batch, of which a step has several.
    """
    trained = captured.graph if part is None else part.graph
    loss_only = subgraph(trained, replace(outputs_of(trained), outputs=()))
    if part is not None:
        count, names = context.modes.micro_batches, _batch_names(captured, part)
        loss_only = verify(split_batch(loss_only, count, *names))
    found = outputs_of(captured.graph)
    pruned = _pruned(captured.graph, context.updated)  # for its roles
    if captured.evaluation is not captured.graph:
        pruned = _with_roles(captured.evaluation, pruned)
    forward = {} if found.loss is None else {"evaluate": extract_forward(pruned, loss=True)}
    predict = extract_forward(pruned, loss=False)
    if not list(placeholders(predict, Role.TARGET)):
        forward = {"predict": predict, **forward}
    if context.modes.ema is not None:
        averaged = {
            ema_name(name): read_average(start, context.channels) for name, start in forward.items()
        }
        forward |= averaged
    training = _training(loss_only, context, observe) if train else {}
    if shape:
        training.pop("apply", None)  # it sees no batch
    return {**training, **forward}


def _batch_names(captured: Captured, part: Captured) -> tuple[dict[str, str], dict[str, str]]:
    """The batch's inputs and targets by a micro-batch's names of their parts, and of the wholes."""
    count = len(captured.targets)  # parts come first
    parts = (*part.inputs, *part.targets[:count])
    return (
        dict(zip(parts, (*captured.inputs, *captured.targets), strict=True)),
        dict(zip(part.targets[count:], captured.targets, strict=True)),
    )


def _training(graph: Graph, context: Context, observe: Observer | None) -> dict[str, Graph]:
    """The entry points that train: ``step``, or ``accumulate`` and ``apply``."""
    modes = context.modes
    if modes.accumulate is None:
        return {"step": run_passes("step", graph, (*GRADIENTS, *UPDATES), context, observe)}
    gradients = run_passes("accumulate", graph, GRADIENTS, context, observe)
    taken = verify(take_accumulated(gradients, mean=modes.accumulate.mean))
    return {
        "accumulate": verify(accumulate_gradients(gradients)),
        "apply": run_passes("apply", taken, UPDATES, context, observe),
    }


def _pruned(graph: Graph, updated: frozenset[str]) -> Graph:
    """``prune_backward``; where nothing is updated, all parameters are constants."""
    return prune_backward(graph, updated) if updated else keep_gradients(graph, updated)


def _with_roles(graph: Graph, other: Graph) -> Graph:
    """A graph whose placeholders have the roles that they have in another.

    A parameter that only this graph reads is a constant.
    """
    roles = {name_of(node): role_of(node) for node in placeholders(other)}
    new = rebuild(graph)
    for node in placeholders(new, Role.PARAM, Role.CONST):
        set_role(node, roles.get(name_of(node)) or Role.CONST)
    return new


def run_passes(
    entry: str,
    graph: Graph,
    passes: tuple[tuple[str, Pass], ...],
    context: Context,
    observe: Observer | None,
) -> Graph:
    """An entry point's graph after some passes, each of which an observer is shown."""
    for name, rewrite in passes:
        graph = rewrite(graph, context)
        if observe is not None:
            observe(entry, name, graph)
    return verify(graph)


def entry_inputs(entry: str, captured: Captured) -> tuple[str, ...]:
    """Names of an entry point's inputs in the order they are passed."""
    rate = (LEARNING_RATE,) if entry in ("step", "apply") else ()
    if entry == "apply":
        return rate
    if entry in ("predict", ema_name("predict")):
        return captured.inputs
    return (*captured.inputs, *captured.targets, *rate)
