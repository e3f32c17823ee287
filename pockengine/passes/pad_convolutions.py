"""Make the padding of convolutions a value, so that their loops need no bounds."""

from __future__ import annotations

from torch.fx import Graph, Node

from pockengine.ir.graph import Argument, emit, op_name, rebuild, type_of

_CONVOLUTIONS = ("conv2d", "conv2d_input_grad", "conv2d_weight_grad")


def pad_convolutions(graph: Graph) -> Graph:
    """Pad the activation of every convolution, but depthwise ones, that would read past its edge.

    The input gradient reads the output's gradient at ``(h + top - r * dilation) / stride``; what
    lies outside is padded likewise, and its own padding grows by the same amount.

    before::

        %x: f32[1x2x4x4] = input('x')
        %w: f32[3x2x3x3] = param('w')
        %conv2d: f32[1x3x4x4] = conv2d(%x, %w, (1, 1), (1, 1, 1, 1), (1, 1), 1)
        return loss=None, outputs=(%conv2d,), gradients={}, updates=()

    after::

        %x: f32[1x2x4x4] = input('x')
        %w: f32[3x2x3x3] = param('w')
        %pad: f32[1x2x6x6] = pad(%x, (0, 0, 1, 1), (0, 0, 1, 1), 0.0)
        %conv2d: f32[1x3x4x4] = conv2d(%pad, %w, (1, 1), (0, 0, 0, 0), (1, 1), 1)
        return loss=None, outputs=(%conv2d,), gradients={}, updates=()

    Depthwise convolutions keep their padding: their loops treat borders apart.
    """

    def visit(new: Graph, node: Node, moved: Argument) -> Node | None:
        if op_name(node) not in _CONVOLUTIONS or _is_depthwise(node):
            return None
        args = [moved(argument) for argument in node.args]
        if op_name(node) == "conv2d_input_grad":
            return _input_grad(new, args)
        padding = args[-3]
        if not any(padding):
            return None
        args[0] = _padded(new, args[0], padding)
        args[-3] = (0, 0, 0, 0)
        return emit(new, op_name(node), *args)

    return rebuild(graph, visit)


def _is_depthwise(node: Node) -> bool:
    """One input channel and one output channel a group."""
    groups = node.args[-1]
    weight = node if op_name(node) == "conv2d_weight_grad" else node.args[1]
    assert isinstance(weight, Node)
    assert isinstance(groups, int)
    shape = type_of(weight).shape
    return groups != 1 and shape[0] == groups and shape[1] == 1


def _padded(graph: Graph, x: Node, padding: tuple[int, int, int, int]) -> Node:
    top, bottom, left, right = padding
    if not any(padding):
        return x
    return emit(graph, "pad", x, (0, 0, top, left), (0, 0, bottom, right), 0.0)


def _input_grad(graph: Graph, args: list[Argument]) -> Node:
    grad, weight, size, stride, padding, dilation, groups = args
    kernel, extents = type_of(weight).shape[2:], type_of(grad).shape[2:]
    more: list[int] = []
    for axis in range(2):
        low, high = padding[2 * axis], padding[2 * axis + 1]
        first = -(-(low - (kernel[axis] - 1) * dilation[axis]) // stride[axis])
        last = (size[axis] - 1 + low) // stride[axis]
        before, after = max(0, -first), max(0, last - (extents[axis] - 1))
        more += [before, after]
        padding = (
            *padding[: 2 * axis],
            low + before * stride[axis],
            high + after * stride[axis],
            *padding[2 * axis + 2 :],
        )
    wide = _padded(graph, grad, (more[0], more[1], more[2], more[3]))
    return emit(graph, "conv2d_input_grad", wide, weight, size, stride, padding, dilation, groups)
