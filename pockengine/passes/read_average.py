"""Read the averages of parameters in place of the parameters."""

from __future__ import annotations

from collections.abc import Mapping

from torch.fx import Graph, Node

from pockengine.ir.graph import (
    calls,
    emit,
    name_of,
    placeholder,
    placeholders,
    rebuild,
    type_of,
)
from pockengine.ir.types import Role, TensorType
from pockengine.modes import ema_name
from pockengine.scheme import Channels


def read_average(graph: Graph, channels: Mapping[str, Channels]) -> Graph:
    """Let a forward pass read ``track_average``'s averages.

    before::

        %w: f32[8] = param('w')
        %x: f32[8] = input('x')
        %mul: f32[8] = mul(%x, %w)
        return loss=None, outputs=(%mul,), gradients={}, updates=()

    after (``channels={"w": Channels(0, 2)}``)::

        %w: f32[8] = param('w')
        %x: f32[8] = input('x')
        %ema_w: f32[2] = state('ema.w')
        %slice_1: f32[6] = slice(%w, 0, 2, 8)
        %cat: f32[8] = cat((%ema_w, %slice_1), 0)
        %mul: f32[8] = mul(%x, %cat)
        return loss=None, outputs=(%mul,), gradients={}, updates=()

    Args:
        graph: a forward pass.
        channels: the slice of each parameter that is updated in part, and so averaged in part.
    """
    new = rebuild(graph)
    first = next(calls(new), None)
    if first is None:
        return new
    for node in list(placeholders(new, Role.PARAM)):
        users = list(node.users)
        with new.inserting_before(first):
            whole = _average(new, node, channels.get(name_of(node)))
        for user in users:
            user.replace_input_with(node, whole)
    return _averages_first(new)


def _average(graph: Graph, parameter: Node, part: Channels | None) -> Node:
    kind, name = type_of(parameter), ema_name(name_of(parameter))
    if part is None:
        return placeholder(graph, name, TensorType(kind.shape, kind.dtype), Role.STATE)
    shape = (*kind.shape[: part.axis], part.count, *kind.shape[part.axis + 1 :])
    average = placeholder(graph, name, TensorType(shape, kind.dtype), Role.STATE)
    rest = emit(graph, "slice", parameter, part.axis, part.count, kind.shape[part.axis])
    return emit(graph, "cat", (average, rest), part.axis)


def _averages_first(graph: Graph) -> Graph:
    """Placeholders ahead of the calls."""
    first = next(calls(graph))
    for node in list(placeholders(graph, Role.STATE)):
        first.prepend(node)
    return graph
