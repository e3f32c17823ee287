"""Where the elements of a value are: a base value, an offset and a stride for each axis.

Views cost nothing because of this: a chain of permute, slice, expand and reshape over a stored
value is one more way to index its bytes. PyTorch's stride algebra on meta tensors does the work.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.fx import Node

from pockengine.ir.graph import kind_of, op_name, type_of
from pockengine.ir.ops import Kind


@dataclass(frozen=True, slots=True)
class Access:
    """Element (i, j, ...) of a value is element offset + i * strides[0] + ... of its base."""

    base: Node
    offset: int
    strides: tuple[int, ...]


def access(node: Node) -> Access | None:
    """How a value's elements are found; None if a reshape in the chain needs a copy."""
    chain: list[Node] = []
    base = node
    while kind_of(base) is Kind.VIEW:
        chain.append(base)
        source = base.args[0]
        assert isinstance(source, Node)
        base = source
    stored = type_of(base)
    if base is node:
        return Access(base, 0, stored.strides)
    tensor = torch.empty(1, device="meta").as_strided(stored.shape, stored.strides)
    for view in reversed(chain):
        moved = _apply(view, tensor)
        if moved is None:
            return None
        tensor = moved
    return Access(base, int(tensor.storage_offset()), tuple(tensor.stride()))


def _apply(view: Node, tensor: torch.Tensor) -> torch.Tensor | None:
    if op_name(view) != "reshape":
        result: torch.Tensor = view.target(tensor, *view.args[1:], **view.kwargs)  # type: ignore[operator]
        return result
    try:
        return tensor.view(type_of(view).shape)
    except RuntimeError:  # PyTorch's answer to "this needs a copy"
        return None


def storage_order(node: Node) -> tuple[int, ...] | None:
    """The order in which a value's axes lie in memory, outermost first; None if a copy is needed.

    Axes of extent 1 have no place of their own and stay where they are among the others.
    """
    found = access(node)
    if found is None:
        return None
    shape = type_of(node).shape
    real = [axis for axis in range(len(shape)) if shape[axis] > 1]
    ordered = iter(sorted(real, key=lambda axis: -found.strides[axis]))
    return tuple(next(ordered) if shape[axis] > 1 else axis for axis in range(len(shape)))
