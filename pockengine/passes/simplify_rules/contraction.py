"""Rules of matrix products."""

from __future__ import annotations

from torch.fx import Node

from pockengine.ir.graph import type_of
from pockengine.passes.simplify_rules.table import Emitter, arguments, is_call, operand, rule


@rule("matmul")
def _batch_axes(to: Emitter, x: Node, y: Node) -> Node | None:
    """``reshape(x) @ reshape(y) -> reshape(x @ y)``, where a reshape only merged batch axes.

    So the heads of attention are read where they lie, without a copy that makes them one axis
    with the batch.
    """
    batch = _merged_batch(x) or _merged_batch(y)
    if batch is None:
        return None
    *lead, rows, _ = type_of(x).shape
    product = to.emit("matmul", _split_batch(to, x, batch), _split_batch(to, y, batch))
    return to.reshape(product, (*lead, rows, type_of(y).shape[-1]))


def _merged_batch(x: Node) -> tuple[int, ...] | None:
    """The batch axes of a value's source, if a reshape made them fewer and nothing else."""
    if _is_transposed(x):
        x = operand(x)
    if not is_call(x, "reshape"):
        return None
    shape, source = type_of(x).shape, type_of(operand(x)).shape
    merges = 3 <= len(shape) < len(source) and source[-2:] == shape[-2:]
    return source[:-2] if merges else None


def _is_transposed(x: Node) -> bool:
    rank = len(type_of(x).shape)
    return is_call(x, "permute") and arguments(x)[1] == (*range(rank - 2), rank - 1, rank - 2)


def _split_batch(to: Emitter, x: Node, batch: tuple[int, ...]) -> Node:
    """A value with its batch axes apart."""
    if _merged_batch(x) != batch:
        return to.reshape(x, (*batch, *type_of(x).shape[-2:]))
    if not _is_transposed(x):
        return operand(x)
    source, rank = operand(operand(x)), len(batch) + 2
    return to.emit("permute", source, (*range(rank - 2), rank - 1, rank - 2))
