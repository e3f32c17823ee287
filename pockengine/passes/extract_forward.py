"""Cut the forward pass out of a joint graph, for the predict and evaluate entry points."""

from __future__ import annotations

from torch.fx import Graph

from pockengine.ir.graph import Outputs, outputs_of, placeholders, subgraph
from pockengine.ir.types import Role


def extract_forward(graph: Graph, *, loss: bool) -> Graph:
    """Keep the model's outputs, and the loss if asked; gradients and updates go.

    before::

        %x: f32[4x8] = input('x')
        %t: f32[4x2] = target('t')
        %w: f32[8x2] = param('w')
        %y: f32[4x2] = matmul(%x, %w)
        %e: f32[4x2] = sub(%y, %t)
        %loss: f32[] = sum(%e, (0, 1))
        %dy: f32[4x2] = full((4, 2), 1.0, 'f32')
        %xt: f32[8x4] = permute(%x, (1, 0))
        %dw: f32[8x2] = matmul(%xt, %dy)
        return loss=%loss, outputs=(%y,), gradients={'w': %dw}, updates=()

    after (``loss=False``)::

        %x: f32[4x8] = input('x')
        %w: f32[8x2] = param('w')
        %y: f32[4x2] = matmul(%x, %w)
        return loss=None, outputs=(%y,), gradients={}, updates=()

    Roles stay as they are, so that all entry points agree on the regions. Placeholders stay, but
    for hyper-parameters and optimizer state that nothing reads any more, and without a loss such
    targets.
    """
    found = outputs_of(graph)
    new = subgraph(graph, Outputs(loss=found.loss if loss else None, outputs=found.outputs))
    unread = (Role.HYPER, Role.STATE) if loss else (Role.TARGET, Role.HYPER, Role.STATE)
    for node in list(placeholders(new, *unread)):
        if not node.users:
            new.erase_node(node)
    return new
