"""Keep an exponential moving average of the parameters beside them."""

from __future__ import annotations

from dataclasses import replace

from torch.fx import Graph, Node

from pockengine.ir.graph import (
    Outputs,
    calls,
    emit,
    name_of,
    outputs_of,
    placeholder,
    rebuild,
    role_of,
    type_of,
)
from pockengine.ir.types import Role, TensorType
from pockengine.ir.verify import base_of
from pockengine.modes import LAST_ROUND, ema_name
from pockengine.passes.split_batch import round_flag


def track_average(graph: Graph, decay: float | None) -> Graph:
    """Move an average of each updated parameter towards its new value.

    before::

        %w: f32[8] = param('w')
        %x: f32[8] = input('x')
        %sub: f32[8] = sub(%w, %x)
        %update: f32[8] = update(%w, %sub)
        return loss=None, outputs=(), gradients={}, updates=(%update,)

    after (``decay=0.75``)::

        %w: f32[8] = param('w')
        %x: f32[8] = input('x')
        %ema_w: f32[8] = state('ema.w')
        %sub: f32[8] = sub(%w, %x)
        %update: f32[8] = update(%w, %sub)
        %sub_1: f32[8] = sub(%sub, %ema_w)
        %mul: f32[8] = mul(%sub_1, 0.25)
        %add: f32[8] = add(%ema_w, %mul)
        %update_1: f32[8] = update(%ema_w, %add)
        return loss=None, outputs=(), gradients={}, updates=(%update, %update_1)

    Not applied without a decay. As ``torch.optim.swa_utils.get_ema_multi_avg_fn``, from the
    parameters ahead of the first step on.

    Args:
        graph: with the optimizer's updates.
        decay: share of the average that a step keeps.
    """
    if decay is None or not outputs_of(graph).updates:
        return graph
    return rebuild(graph, outputs=lambda found: _tracked(found, 1 - decay))


def _tracked(found: Outputs, share: float) -> Outputs:
    made = list(found.updates)
    last = round_flag(made[0].graph, LAST_ROUND)
    for node in found.updates:
        target, value = node.args
        assert isinstance(value, Node)
        owner = base_of(target)
        if role_of(owner) is Role.PARAM:
            made.append(_step(node.graph, ema_name(name_of(owner)), value, share, last))
    return replace(found, updates=tuple(made))


def _step(graph: Graph, name: str, value: Node, share: float, last: Node | None) -> Node:
    kind = TensorType(type_of(value).shape, type_of(value).dtype)
    with graph.inserting_before(next(calls(graph), None)):
        average = placeholder(graph, name, kind, Role.STATE)
    way = emit(graph, "mul", emit(graph, "sub", value, average), share)
    moved = emit(graph, "add", average, way)
    if last is not None:
        moved = emit(graph, "where", last, moved, average)
    return emit(graph, "update", average, moved)
