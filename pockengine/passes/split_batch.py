"""Micro-batches: a step's graph runs once for each part of the batch, and gradients add up."""

from __future__ import annotations

from collections.abc import Mapping

from torch.fx import Graph, Node

from pockengine.ir.graph import (
    Outputs,
    bounds_of,
    calls,
    copy_node,
    emit,
    name_of,
    outputs_of,
    placeholder,
    placeholders,
    rebuild,
    role_of,
    set_bounds,
    set_micro_batches,
    set_outputs,
    type_of,
)
from pockengine.ir.types import Role, TensorType
from pockengine.modes import FIRST_ROUND, LAST_ROUND, ROUNDS_LOSS
from pockengine.passes.accumulate_gradients import accumulators


def split_batch(
    graph: Graph, count: int, parts: Mapping[str, str], wholes: Mapping[str, str]
) -> Graph:
    """Let a graph of a micro-batch take the whole batch, of which each round reads the next part.

    The graph runs ``count`` times for a step. Its loss is the sum so far, which the last round
    yields; two constants say which round is the first and which the last.

    before (``count=4``, ``parts={"part": "x"}``, ``wholes={"all": "x"}``)::

        %w: f32[2] = param('w')
        %part: f32[2x2] = input('part')
        %all: f32[8x2] = input('all')
        %y: f32[2x2] = mul(%part, %w)
        %s: f32[] = sum(%y, (0, 1), False)
        %n: f32[] = sum(%all, (0, 1), False)
        %l: f32[] = div(%s, %n)
        return loss=%l, outputs=(), gradients={}, updates=()

    after::

        %w: f32[2] = param('w')
        %x: f32[8x2] = input('x')
        %micro_batch_first: f32[4] = const('micro_batch.first')
        %micro_batch_last: f32[4] = const('micro_batch.last')
        %micro_batch_loss: f32[] = state('micro_batch.loss')
        %slice_1: f32[2x2] = slice(%x, 0, 0, 2)
        %y: f32[2x2] = mul(%slice_1, %w)
        %s: f32[] = sum(%y, (0, 1), False)
        %n: f32[] = sum(%x, (0, 1), False)
        %l: f32[] = div(%s, %n)
        %slice_2: f32[1] = slice(%micro_batch_first, 0, 0, 1)
        %reshape: f32[] = reshape(%slice_2, ())
        %gt: bool[] = gt(%reshape, 0.0)
        %add: f32[] = add(%micro_batch_loss, %l)
        %where: f32[] = where(%gt, %l, %add)
        %update: f32[] = update(%micro_batch_loss, %where)
        return loss=%where, outputs=(), gradients={}, updates=(%update,)

    Args:
        graph: the joint graph of a micro-batch.
        count: micro-batches of a batch, at least 2.
        parts: the batch's name of an input or target by the graph's name of a part of it.
        wholes: likewise of what the graph reads as a whole.
    """
    new = Graph()
    place: dict[Node, Node] = {}
    batch = _whole_inputs(graph, new, place, count, (parts, wholes))
    for name in (FIRST_ROUND, LAST_ROUND):
        set_micro_batches(placeholder(new, name, TensorType((count,)), Role.CONST), count)
    total = placeholder(new, ROUNDS_LOSS, TensorType(()), Role.STATE)
    for node, whole in batch.items():
        extent = type_of(node).shape[0]
        place[node] = emit(new, "slice", whole, 0, 0, extent) if name_of(node) in parts else whole
    for node in calls(graph):
        place[node] = copy_node(new, node, place.__getitem__)
    found = outputs_of(graph).mapped(place.__getitem__)
    loss, first = found.loss, round_flag(new, FIRST_ROUND)
    assert loss is not None
    assert first is not None
    summed = emit(new, "where", first, loss, emit(new, "add", total, loss))
    kept = emit(new, "update", total, summed)
    set_outputs(new, Outputs(summed, found.outputs, found.gradients, (*found.updates, kept)))
    return new


def _whole_inputs(
    graph: Graph,
    new: Graph,
    place: dict[Node, Node],
    count: int,
    names: tuple[Mapping[str, str], Mapping[str, str]],
) -> dict[Node, Node]:
    """Write the placeholders; the whole input or target of each that is one, or a part of one."""
    parts, wholes = names
    made: dict[str, Node] = {}
    found: dict[Node, Node] = {}
    for node in placeholders(graph):
        role, own = role_of(node), name_of(node)
        if role not in (Role.INPUT, Role.TARGET):
            place[node] = copy_node(new, node, place.__getitem__)
            continue
        name, times = (parts[own], count) if own in parts else (wholes[own], 1)
        if name not in made:
            made[name] = placeholder(new, name, _times(type_of(node), times), role)
            set_micro_batches(made[name], count)
        if (bounds := bounds_of(node)) is not None:
            set_bounds(made[name], bounds)
        found[node] = made[name]
    return found


def _times(kind: TensorType, count: int) -> TensorType:
    return TensorType((kind.shape[0] * count, *kind.shape[1:]), kind.dtype)


def round_flag(graph: Graph, name: str) -> Node | None:
    """Append whether this round is the first, or the last; None where there are no rounds."""
    flags = next((node for node in placeholders(graph, Role.CONST) if name_of(node) == name), None)
    if flags is None:
        return None
    return emit(graph, "gt", emit(graph, "reshape", emit(graph, "slice", flags, 0, 0, 1), ()), 0.0)


def accumulate_rounds(graph: Graph) -> Graph:
    """Let gradients be the sums over the rounds so far, which are state.

    before::

        %w: f32[2] = param('w')
        %micro_batch_first: f32[4] = const('micro_batch.first')
        %dw: f32[2] = neg(%w)
        return loss=None, outputs=(), gradients={'w': %dw}, updates=()

    after::

        %w: f32[2] = param('w')
        %micro_batch_first: f32[4] = const('micro_batch.first')
        %accumulated_grad_w: f32[2] = state('accumulated.grad.w')
        %dw: f32[2] = neg(%w)
        %slice_1: f32[1] = slice(%micro_batch_first, 0, 0, 1)
        %reshape: f32[] = reshape(%slice_1, ())
        %gt: bool[] = gt(%reshape, 0.0)
        %add: f32[2] = add(%accumulated_grad_w, %dw)
        %where: f32[2] = where(%gt, %dw, %add)
        %update: f32[2] = update(%accumulated_grad_w, %where)
        return loss=None, outputs=(), gradients={'w': %where}, updates=(%update,)

    Not applied to a graph without rounds.
    """
    flagged = any(name_of(node) == FIRST_ROUND for node in placeholders(graph, Role.CONST))
    return rebuild(graph, outputs=_accumulated) if flagged else graph


def _accumulated(found: Outputs) -> Outputs:
    if not found.gradients:
        return found
    graph = next(iter(found.gradients.values())).graph
    sums = accumulators(graph, found)
    first = round_flag(graph, FIRST_ROUND)
    gradients, updates = {}, list(found.updates)
    for name, node in found.gradients.items():
        total = emit(graph, "where", first, node, emit(graph, "add", sums[name], node))
        gradients[name] = total
        updates.append(emit(graph, "update", sums[name], total))
    return Outputs(found.loss, found.outputs, gradients, tuple(updates))
