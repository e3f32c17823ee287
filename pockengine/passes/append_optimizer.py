"""Turn gradients into updates: the optimizer becomes part of the graph."""

from __future__ import annotations

from collections.abc import Mapping

from torch.fx import Graph

from pockengine.ir.graph import Outputs, name_of, outputs_of, placeholders, rebuild, type_of
from pockengine.ir.types import Role
from pockengine.optimizer import Optimizer, check_groups, settings
from pockengine.passes.update_rules import RULES
from pockengine.passes.update_writer import Writer
from pockengine.scheme import Channels


def append_optimizer(
    graph: Graph, optimizer: Optimizer, channels: Mapping[str, Channels] | None = None
) -> Graph:
    """Replace gradients by the updates of parameters and of the optimizer's state.

    before::

        %w: f32[8x4] = param('w')
        %x: f32[8x2] = input('x')
        %dw: f32[8x2] = neg(%x)
        return loss=None, outputs=(), gradients={'w': %dw}, updates=()

    after (``SGD(momentum=0.9)``, ``channels={"w": Channels(1, 2)}``)::

        %w: f32[8x4] = param('w')
        %x: f32[8x2] = input('x')
        %lr: f32[] = hyper('lr')
        %optimizer_momentum_buffer_w: f32[8x2] = state('optimizer.momentum_buffer.w')
        %dw: f32[8x2] = neg(%x)
        %slice_1: f32[8x2] = slice(%w, 1, 0, 2)
        %mul: f32[8x2] = mul(%optimizer_momentum_buffer_w, 0.9)
        %add: f32[8x2] = add(%mul, %dw)
        %update: f32[8x2] = update(%optimizer_momentum_buffer_w, %add)
        %mul_1: f32[8x2] = mul(%add, %lr)
        %sub: f32[8x2] = sub(%slice_1, %mul_1)
        %update_1: f32[8x2] = update(%slice_1, %sub)
        return loss=None, outputs=(), gradients={}, updates=(%update, %update_1)

    The formulas are those of ``torch.optim``. Not applied to a graph without gradients. Source:
    PockEngine, "operator reordering and in-place update": updates are nodes that can run early.

    Args:
        graph: a pruned and sliced joint graph.
        optimizer: what to write.
        channels: the slice of each parameter whose gradient is that of a slice.

    Raises:
        InputError: a parameter group matches no parameter.
    """
    found = outputs_of(graph)
    if not found.gradients:
        return graph
    parameters = {name_of(node) for node in placeholders(graph, Role.PARAM, Role.CONST)}
    check_groups(optimizer, sorted(parameters))
    slices = channels or {}
    return rebuild(graph, outputs=lambda new: _updated(new, optimizer, slices))


def _updated(found: Outputs, optimizer: Optimizer, channels: Mapping[str, Channels]) -> Outputs:
    """The outputs with updates in the place of gradients."""
    state = optimizer.state({name: type_of(node) for name, node in found.gradients.items()})
    to = Writer(optimizer, found, channels, state)
    rule = RULES[type(optimizer)]
    for name, gradient in found.gradients.items():
        target = to.target(name)
        to.update(target, rule(to, name, target, gradient, settings(optimizer, name)))
    return Outputs(found.loss, found.outputs, {}, (*found.updates, *to.updates))
