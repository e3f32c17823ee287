"""Gradient accumulation: one entry point adds gradients up, another updates by them."""

from __future__ import annotations

from torch.fx import Graph, Node

from pockengine.ir.graph import (
    Outputs,
    calls,
    emit,
    placeholder,
    placeholders,
    rebuild,
    type_of,
)
from pockengine.ir.types import Role, TensorType
from pockengine.modes import COUNT, accumulator_name


def accumulate_gradients(graph: Graph) -> Graph:
    """Replace gradients by updates of accumulators; the first of a group overwrites them.

    before::

        %w: f32[8] = param('w')
        %x: f32[8] = input('x')
        %dw: f32[8] = neg(%x)
        return loss=None, outputs=(), gradients={'w': %dw}, updates=()

    after::

        %w: f32[8] = param('w')
        %x: f32[8] = input('x')
        %accumulated_count: f32[] = state('accumulated.count')
        %accumulated_grad_w: f32[8] = state('accumulated.grad.w')
        %dw: f32[8] = neg(%x)
        %gt: bool[] = gt(%accumulated_count, 0.0)
        %add: f32[8] = add(%accumulated_grad_w, %dw)
        %where: f32[8] = where(%gt, %add, %dw)
        %update: f32[8] = update(%accumulated_grad_w, %where)
        %add_1: f32[] = add(%accumulated_count, 1.0)
        %update_1: f32[] = update(%accumulated_count, %add_1)
        return loss=None, outputs=(), gradients={}, updates=(%update, %update_1)

    Args:
        graph: a pruned and sliced joint graph.
    """
    return rebuild(graph, outputs=_accumulated)


def _accumulated(found: Outputs) -> Outputs:
    graph = next(iter(found.gradients.values())).graph
    count, sums = _state(graph, found)
    begun = emit(graph, "gt", count, 0.0)
    updates = []
    for name, gradient in found.gradients.items():
        total = emit(graph, "add", sums[name], gradient)
        updates.append(
            emit(graph, "update", sums[name], emit(graph, "where", begun, total, gradient))
        )
    updates.append(emit(graph, "update", count, emit(graph, "add", count, 1.0)))
    return Outputs(found.loss, found.outputs, {}, (*found.updates, *updates))


def _state(graph: Graph, found: Outputs) -> tuple[Node, dict[str, Node]]:
    """The count of what is accumulated, and the accumulators by parameter."""
    with graph.inserting_before(next(calls(graph), None)):
        count = placeholder(graph, COUNT, TensorType(()), Role.STATE)
    return count, accumulators(graph, found)


def accumulators(graph: Graph, found: Outputs) -> dict[str, Node]:
    """Append the state that gradients add up in, by parameter."""
    sums = {}
    with graph.inserting_before(next(calls(graph), None)):
        for name, node in found.gradients.items():
            kind = TensorType(type_of(node).shape, type_of(node).dtype)
            sums[name] = placeholder(graph, accumulator_name(name), kind, Role.STATE)
    return sums


def take_accumulated(graph: Graph, *, mean: bool) -> Graph:
    """A graph that yields the accumulated gradients, and begins a new group.

    before::

        %w: f32[8] = param('w')
        %x: f32[8] = input('x')
        %dw: f32[8] = neg(%x)
        return loss=None, outputs=(), gradients={'w': %dw}, updates=()

    after (``mean=True``)::

        %w: f32[8] = param('w')
        %accumulated_count: f32[] = state('accumulated.count')
        %accumulated_grad_w: f32[8] = state('accumulated.grad.w')
        %div: f32[8] = div(%accumulated_grad_w, %accumulated_count)
        %full: f32[] = full((), 0.0, 'f32')
        %update: f32[] = update(%accumulated_count, %full)
        return loss=None, outputs=(), gradients={'w': %div}, updates=(%update,)

    Args:
        graph: what ``accumulate_gradients`` takes.
        mean: yield the mean over the group, else the sum.
    """

    def chosen(found: Outputs) -> Outputs:
        new = next(iter(found.gradients.values())).graph
        count, sums = _state(new, found)
        taken = {n: emit(new, "div", node, count) if mean else node for n, node in sums.items()}
        zero = emit(new, "full", (), 0.0, "f32")
        return Outputs(None, (), taken, (emit(new, "update", count, zero),))

    new = rebuild(graph, outputs=chosen)
    for node in list(placeholders(new, Role.INPUT, Role.TARGET)):
        new.erase_node(node)
    return new
