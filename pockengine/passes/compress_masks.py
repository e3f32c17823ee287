"""Keep masks for the backward pass as one bit an element."""

from __future__ import annotations

from collections.abc import Callable

from torch.fx import Graph, Node

from pockengine.ir.forward import forward_values
from pockengine.ir.graph import (
    Argument,
    calls,
    copy_node,
    emit,
    is_op,
    kind_of,
    op_name,
    rebuild,
    scope_of,
    type_of,
)
from pockengine.ir.ops import Kind
from pockengine.ir.types import DType

_COMPARE = frozenset("eq ne lt le gt ge".split())
_LOGICAL = frozenset("logical_and logical_or logical_not".split())
_CONVOLUTIONS = ("conv2d", "conv2d_input_grad")
_MIN_EXTENT = 8
_MIN_SIZE = 1024


def compress_masks(graph: Graph) -> Graph:
    """Let the backward pass read masks of forward values through ``unpack_bits(pack_bits(mask))``.

    A mask is a boolean that the forward pass makes, or an expression of comparisons and logical ops
    on forward values, wherever it stands: ReLU's ``le(y, 0)`` stands in the backward pass and may
    as well be computed ahead of it. Whether the bits are kept, or what they are computed from, is
    for ``choose_saved`` to say. Bits lie along the axis that will be stored innermost: channels of
    a convolution's activation, else the last axis. Does not apply to masks of fewer than 1024
    elements or 8 along that axis, or to those of integer inputs, which are there anyway.

    before::

        %x: f32[32x32] = input('x')
        %w: f32[32x32] = param('w')
        %z: f32[32x32] = matmul(%x, %w)
        %y: f32[32x32] = maximum(%z, 0.0)
        %dy: f32[32x32] = neg(%y)
        %mask: bool[32x32] = le(%y, 0.0)
        %dz: f32[32x32] = where(%mask, 0.0, %dy)
        return loss=None, outputs=(%y,), gradients={'z': %dz}, updates=()

    after::

        %x: f32[32x32] = input('x')
        %w: f32[32x32] = param('w')
        %z: f32[32x32] = matmul(%x, %w)
        %y: f32[32x32] = maximum(%z, 0.0)
        %dy: f32[32x32] = neg(%y)
        %mask: bool[32x32] = le(%y, 0.0)
        %pack_bits: u8[32x4] = pack_bits(%mask, 1)
        %unpack_bits: bool[32x32] = unpack_bits(%pack_bits, 1, 32)
        %dz: f32[32x32] = where(%unpack_bits, 0.0, %dy)
        return loss=None, outputs=(%y,), gradients={'z': %dz}, updates=()
    """
    masks = _Masks(graph)
    if not masks.packed:
        return graph
    unpacked: dict[Argument, Node] = {}

    def visit(new: Graph, node: Node, moved: Callable[[Argument], Argument]) -> Node | None:
        if node in masks.packed:
            made = copy_node(new, node, moved)
            axis, scope = _innermost(node), scope_of(node)
            bits = emit(new, "pack_bits", made, axis, scope=scope)
            extent = type_of(node).shape[axis]
            unpacked[made] = emit(new, "unpack_bits", bits, axis, extent, scope=scope)
            return made
        if masks.reads_bits(node):
            return copy_node(new, node, lambda old: unpacked.get(moved(old), moved(old)))
        return None

    return rebuild(graph, visit)


class _Masks:
    """The masks of a graph, and who reads them.

    Args:
        graph: a joint graph.
    """

    def __init__(self, graph: Graph) -> None:
        self._forward = forward_values(graph)
        self._masks: dict[Node, bool] = {}  # and whether a float value is compared
        for node in calls(graph):
            if type_of(node).dtype is DType.BOOL and self._is_mask(node):
                self._masks[node] = self._compares_floats(node)
        self.packed = {
            node
            for node, floats in self._masks.items()
            if floats and _is_large(node) and any(self._is_reader(user) for user in node.users)
        }

    def reads_bits(self, node: Node) -> bool:
        """Whether a call reads a mask that is kept in bits, in the backward pass."""
        return self._is_reader(node) and any(x in self.packed for x in node.all_input_nodes)

    def _is_mask(self, node: Node) -> bool:
        if node in self._forward:
            return kind_of(node) is not Kind.VIEW
        operands = node.all_input_nodes
        if op_name(node) in _COMPARE:
            return all(operand in self._forward for operand in operands)
        known = all(operand in self._forward or operand in self._masks for operand in operands)
        return op_name(node) in _LOGICAL and known

    def _compares_floats(self, node: Node) -> bool:
        if op_name(node) not in (*_COMPARE, *_LOGICAL):
            return True
        return any(
            self._masks.get(operand, _is_computed_float(operand))
            for operand in node.all_input_nodes
        )

    def _is_reader(self, user: Node) -> bool:
        return user.op == "call_function" and user not in self._forward and user not in self._masks


def _is_computed_float(node: Node) -> bool:
    return node.op == "call_function" and type_of(node).dtype.is_float


def _is_large(node: Node) -> bool:
    found = type_of(node)
    return bool(found.shape) and (
        found.size >= _MIN_SIZE and found.shape[_innermost(node)] >= _MIN_EXTENT
    )


def _innermost(node: Node) -> int:
    """The axis that is stored innermost, or will be once ``choose_layout`` has run."""
    found = type_of(node)
    if found.order:
        return found.order[-1]
    rank = len(found.shape)
    return 1 if rank == 4 and _is_of_convolution(node) else rank - 1


def _is_of_convolution(node: Node) -> bool:
    """Whether elementwise ops and padding lead from a convolution to a value."""
    seen: set[Node] = set()
    stack = [node]
    while stack:
        found = stack.pop()
        if is_op(found, *_CONVOLUTIONS):
            return True
        if found not in seen and kind_of(found) in (Kind.MAP, Kind.MOVE):
            seen.add(found)
            stack += [x for x in found.all_input_nodes if len(type_of(x).shape) == 4]
    return False
