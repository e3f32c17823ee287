"""Concatenations that cost nothing: their parts are made where the whole lies.

A part of a value along its outermost stored axis is a run of its bytes. Where each part of a
``cat`` is a value of its own that a kernel makes, the planner places it inside the whole, and no
kernel copies it.
"""

from __future__ import annotations

from typing import Any

from torch.fx import Node

from pockengine.ir.graph import group_of, is_op, kind_of, type_of
from pockengine.ir.ops import Kind
from pockengine.ir.types import TensorType

PART_BYTES = 64
"""What the bytes of a part are a multiple of: the next one begins where any value may."""


def parts_of(node: Node) -> tuple[Node, ...]:
    """The values that a concatenation of a fused graph is made of in place; none if it copies."""
    if not is_op(node, "cat") or group_of(node) is None:
        return ()
    parts: Any = node.args[0]
    whole = type_of(node)
    if _outermost(whole) != node.args[1] or len(set(parts)) < len(parts):
        return ()
    return tuple(parts) if all(_is_own(part, node, whole) for part in parts) else ()


def stored_parts(node: Node) -> tuple[Node, ...]:
    """The values whose bytes a stored value's are: its parts, or the value itself."""
    return parts_of(node) or (node,)


def _is_own(part: Node, node: Node, whole: TensorType) -> bool:
    """Whether a part is stored as it lies in the whole, and is part of nothing else."""
    kind = type_of(part)
    made = part.op == "call_function" and kind_of(part) is not Kind.VIEW
    return (
        made
        and not is_op(part, "cat")
        and all(user is node or not is_op(user, "cat") for user in part.users)
        and (kind.order, kind.dtype, kind.quantization) == (whole.order, whole.dtype, None)
        and kind.nbytes > 0
        and kind.nbytes % PART_BYTES == 0
    )


def _outermost(kind: TensorType) -> int:
    """The axis along which a value's bytes come one index after the other."""
    axes = kind.order or range(len(kind.shape))
    return next((axis for axis in axes if kind.shape[axis] > 1), 0)
