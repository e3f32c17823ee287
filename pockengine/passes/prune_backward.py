"""Keep only the gradients of the parameters that a scheme updates."""

from __future__ import annotations

from collections.abc import Collection
from collections.abc import Set as AbstractSet
from dataclasses import replace

from torch.fx import Graph

from pockengine.errors import SchemeError
from pockengine.ir.graph import name_of, outputs_of, placeholders, set_role, subgraph
from pockengine.ir.types import Role


def prune_backward(graph: Graph, updated: Collection[str]) -> Graph:
    """Drop the gradients of all other parameters, and everything that only those needed.

    before::

        %x: f32[4x8] = input('x')
        %v: f32[8x8] = param('v')
        %w: f32[8x2] = param('w')
        %h: f32[4x8] = matmul(%x, %v)
        %y: f32[4x2] = matmul(%h, %w)
        %loss: f32[] = sum(%y, (0, 1))
        %dy: f32[4x2] = full((4, 2), 1.0, 'f32')
        %ht: f32[8x4] = permute(%h, (1, 0))
        %dw: f32[8x2] = matmul(%ht, %dy)
        %wt: f32[2x8] = permute(%w, (1, 0))
        %dh: f32[4x8] = matmul(%dy, %wt)
        %xt: f32[8x4] = permute(%x, (1, 0))
        %dv: f32[8x8] = matmul(%xt, %dh)
        return loss=%loss, outputs=(%y,), gradients={'v': %dv, 'w': %dw}, updates=()

    after (``updated`` is ``{"w"}``)::

        %x: f32[4x8] = input('x')
        %v: f32[8x8] = const('v')
        %w: f32[8x2] = param('w')
        %h: f32[4x8] = matmul(%x, %v)
        %y: f32[4x2] = matmul(%h, %w)
        %loss: f32[] = sum(%y, (0, 1))
        %dy: f32[4x2] = full((4, 2), 1.0, 'f32')
        %ht: f32[8x4] = permute(%h, (1, 0))
        %dw: f32[8x2] = matmul(%ht, %dy)
        return loss=%loss, outputs=(%y,), gradients={'w': %dw}, updates=()

    A parameter that is not updated, or that the loss does not depend on, becomes a constant.
    Source: PockEngine, "backward graph pruning"; that nothing before the first updated layer is
    left follows from the removal of dead nodes.

    Args:
        graph: a joint graph with gradients and no updates.
        updated: canonical names of parameters.

    Raises:
        SchemeError: the loss depends on none of the parameters.
    """
    found = outputs_of(graph)
    kept = found.gradients.keys() & set(updated)
    if not kept:
        raise SchemeError(
            where="scheme",
            found=f"only parameters without a gradient: {', '.join(sorted(updated)) or 'none'}",
            needed="at least one parameter that the loss depends on",
            remedy="Name a parameter that the model's forward pass uses, without detach or no_grad",
        )
    return keep_gradients(graph, kept)


def keep_gradients(graph: Graph, kept: AbstractSet[str]) -> Graph:
    """The graph with some of its gradients; parameters without one become constants."""
    found = outputs_of(graph)
    gradients = {name: node for name, node in found.gradients.items() if name in kept}
    new = subgraph(graph, replace(found, gradients=gradients))
    for node in placeholders(new, Role.PARAM):
        if name_of(node) not in kept:
            set_role(node, Role.CONST)
    return new
