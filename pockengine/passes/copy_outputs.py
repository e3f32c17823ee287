"""Store what a graph yields as PyTorch would: whole, dense and row-major."""

from __future__ import annotations

from dataclasses import replace

from torch.fx import Graph, Node

from pockengine.ir.access import access
from pockengine.ir.graph import Outputs, emit, outputs_of, rebuild, type_of
from pockengine.ir.types import TensorType


def copy_outputs(graph: Graph) -> Graph:
    """Copy the loss and each output that is a placeholder, a part of a value or stored otherwise.

    Runs after ``choose_layout``, so that an entry point hands out its outputs' bytes as they are.

    before::

        %x: f32[2x3] = input('x')
        %y: f32[2x3] = exp(%x)
        %t: f32[3x2] = permute(%y, (1, 0))
        return loss=None, outputs=(%y, %t, %x), gradients={}, updates=()

    after::

        %x: f32[2x3] = input('x')
        %y: f32[2x3] = exp(%x)
        %t: f32[3x2] = permute(%y, (1, 0))
        %copy: f32[3x2] = copy(%t)
        %copy_1: f32[2x3] = copy(%x)
        return loss=None, outputs=(%y, %copy, %copy_1), gradients={}, updates=()
    """
    if all(_is_dense(node) for node in _handed_out(outputs_of(graph))):
        return graph

    def copied(found: Outputs) -> Outputs:
        loss = None if found.loss is None else _dense(found.loss)
        return replace(found, loss=loss, outputs=tuple(_dense(node) for node in found.outputs))

    return rebuild(graph, outputs=copied)


def _handed_out(found: Outputs) -> tuple[Node, ...]:
    """What an entry point gives its caller."""
    return found.outputs if found.loss is None else (found.loss, *found.outputs)


def _dense(node: Node) -> Node:
    """The value itself where its bytes are in order, else a copy."""
    return node if _is_dense(node) else emit(node.graph, "copy", node)


def _is_dense(node: Node) -> bool:
    found = access(node)
    if found is None or found.base.op == "placeholder":
        return False
    kind = type_of(node)
    wanted = TensorType(kind.shape).strides
    extents = zip(found.strides, wanted, kind.shape, strict=True)
    in_order = all(stride == want for stride, want, extent in extents if extent > 1)
    return in_order and found.offset == 0 and type_of(found.base).size == kind.size
