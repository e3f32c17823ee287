"""Limit gradients before the optimizer reads them."""

from __future__ import annotations

from dataclasses import replace

from torch.fx import Graph, Node

from pockengine.ir.graph import Outputs, emit, outputs_of, rebuild, type_of
from pockengine.modes import Clip

_EPS = 1e-6  # torch.nn.utils.clip_grad_norm_ adds it to the norm


def clip_gradients(graph: Graph, clip: Clip | None) -> Graph:
    """Replace gradients by clipped ones.

    before::

        %w: f32[8x4] = param('w')
        %x: f32[8x4] = input('x')
        %dw: f32[8x4] = neg(%x)
        return loss=None, outputs=(), gradients={'w': %dw}, updates=()

    after (``Clip(norm=2.0)``)::

        %w: f32[8x4] = param('w')
        %x: f32[8x4] = input('x')
        %dw: f32[8x4] = neg(%x)
        %mul: f32[8x4] = mul(%dw, %dw)
        %sum_1: f32[] = sum(%mul, (0, 1))
        %sqrt: f32[] = sqrt(%sum_1)
        %add: f32[] = add(%sqrt, 1e-06)
        %div: f32[] = div(2.0, %add)
        %minimum: f32[] = minimum(%div, 1.0)
        %mul_1: f32[8x4] = mul(%dw, %minimum)
        return loss=None, outputs=(), gradients={'w': %mul_1}, updates=()

    The formulas are those of ``torch.nn.utils.clip_grad_norm_`` and ``clip_grad_value_``, over what
    the scheme updates. Not applied without a limit, or to a graph without gradients.

    Args:
        graph: a pruned and sliced joint graph, or one of accumulated gradients.
        clip: the limit.
    """
    if clip is None or not outputs_of(graph).gradients:
        return graph
    return rebuild(graph, outputs=lambda found: _clipped(found, clip))


def _clipped(found: Outputs, clip: Clip) -> Outputs:
    if clip.value is not None:
        limit = clip.value
        new = {name: _within(node, limit) for name, node in found.gradients.items()}
    elif clip.norm is not None:
        limit = clip.norm
        new = {
            name: emit(node.graph, "mul", node, _factor(_squares(node), limit))
            for name, node in found.gradients.items()
        }
    else:
        new = _together(found, float(clip.global_norm or 0.0))
    return replace(found, gradients=new)


def _within(node: Node, limit: float) -> Node:
    return emit(node.graph, "minimum", emit(node.graph, "maximum", node, -limit), limit)


def _together(found: Outputs, limit: float) -> dict[str, Node]:
    """All gradients times one factor."""
    first, *rest = (_squares(node) for node in found.gradients.values())
    for squares in rest:
        first = emit(first.graph, "add", first, squares)
    factor = _factor(first, limit)
    return {n: emit(node.graph, "mul", node, factor) for n, node in found.gradients.items()}


def _squares(node: Node) -> Node:
    """The sum of squares of a value's elements."""
    squares = emit(node.graph, "mul", node, node)
    axes = tuple(range(len(type_of(node).shape)))
    return emit(node.graph, "sum", squares, axes) if axes else squares


def _factor(squares: Node, limit: float) -> Node:
    """What makes a norm at most the limit."""
    graph = squares.graph
    norm = emit(graph, "add", emit(graph, "sqrt", squares), _EPS)
    return emit(graph, "minimum", emit(graph, "div", limit, norm), 1.0)
