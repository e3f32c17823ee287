"""Products of matrices whose rows come in groups, one weight a group: mixtures of experts.

The sizes of the groups are data. Their rows are cut into blocks of one size, each of one group and
the last of a group filled with zeros (Gale et al., MegaBlocks, MLSys 2023, section 4); how many
blocks there can be at most follows from the numbers of rows and groups. What remains are products
of as many matrices.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


def grouped_decompositions() -> dict[Any, Callable[..., Any]]:
    """Grouped products, of PyTorch and of the libraries that are loaded, in terms of other ops."""
    table: dict[Any, Callable[..., Any]] = {torch.ops.aten._grouped_mm.default: _grouped_mm}  # noqa: SLF001
    for name, function in _TRANSFORMERS.items():
        packet = getattr(torch.ops.transformers, name, None)
        if packet is not None:
            table[packet.default] = function
    return table


class _Blocks:
    """Rows in groups, cut into blocks.

    Args:
        ends: (groups,) where each group ends, which is where the next begins; rows behind the last
            belong to none.
        rows: how many there are.
    """

    def __init__(self, ends: Tensor, rows: int) -> None:
        groups = ends.shape[0]
        self.groups = groups
        self.size = max(1, -(-rows // groups))
        begun = min(rows, groups)  # groups with a first block; others take whole blocks of rows
        count = begun + (rows - begun) // self.size
        ends = ends.to(torch.int64).clamp(0, rows)
        starts = torch.cat([ends.new_zeros(1), ends[:-1]])
        blocks = torch.div(ends - starts + (self.size - 1), self.size, rounding_mode="floor")
        last = blocks.cumsum(0)
        ahead = starts - (last - blocks) * self.size  # of a row's number to its place in the blocks
        self.group = _group(torch.arange(count), last)
        row = torch.arange(count * self.size).reshape(count, self.size)
        row = row + ahead.index_select(0, self.group)[:, None]
        self._is_row = (row < ends.index_select(0, self.group)[:, None])[..., None]
        self._row = row.clamp(0, max(rows - 1, 0)).reshape(-1)
        number = torch.arange(rows)
        place = number - ahead.index_select(0, _group(number, ends))
        self._place = place.clamp(0, max(count * self.size - 1, 0))
        self._is_grouped = (number < ends[-1])[:, None]

    def split(self, x: Tensor) -> Tensor:
        """Rows (rows, K) as blocks (blocks, size, K), filled with zeros."""
        taken = x.index_select(0, self._row)
        return torch.where(self._is_row, taken.reshape(-1, self.size, x.shape[1]), 0.0)

    def join(self, blocks: Tensor) -> Tensor:
        """Blocks (blocks, size, N) as rows (rows, N); those of no group are zeros."""
        taken = blocks.reshape(-1, blocks.shape[-1]).index_select(0, self._place)
        return torch.where(self._is_grouped, taken, 0.0)


def _group(number: Tensor, ends: Tensor) -> Tensor:
    """The group that each number lies in; the last for those behind it."""
    return (ends <= number[:, None]).sum(1).clamp(max=ends.shape[0] - 1)


def _rows_by_weights(x: Tensor, weight: Tensor, ends: Tensor) -> Tensor:
    """Each group of rows (rows, K) times its own weight of (groups, K, N): (rows, N)."""
    if not x.numel() or not weight.numel():
        return x.new_zeros(x.shape[0], weight.shape[2])
    blocks = _Blocks(ends, x.shape[0])
    if _is_transposed(weight):
        own = weight.mT.index_select(0, blocks.group).mT
    else:
        own = weight.index_select(0, blocks.group)
    return blocks.join(torch.bmm(blocks.split(x), own))


def _is_transposed(weight: Tensor) -> bool:
    """Whether the matrices lie in memory by columns: as they lie they are taken."""
    return weight.stride(-1) != 1 and weight.stride(-2) == 1


def _rows_by_rows(x: Tensor, y: Tensor, ends: Tensor) -> Tensor:
    """Rows (rows, K) times rows (rows, N), summed by groups: (groups, K, N)."""
    shape = (ends.shape[0], x.shape[1], y.shape[1])
    if not x.numel() or not y.numel() or not ends.numel():
        return x.new_zeros(shape)
    blocks = _Blocks(ends, x.shape[0])
    products = torch.bmm(blocks.split(x).mT, blocks.split(y))
    return x.new_zeros(shape).index_add(0, blocks.group, products)


def _grouped_mm(
    a: Tensor,
    b: Tensor,
    offs: Tensor | None = None,
    bias: Tensor | None = None,
    out_dtype: torch.dtype | None = None,
) -> Tensor:
    """``torch.nn.functional.grouped_mm``: the groups lie along the one axis that has no batch.

    Raises:
        NotImplementedError: a bias, which PyTorch does not take either.
    """
    if bias is not None:
        raise NotImplementedError("grouped_mm with a bias")
    if offs is None:
        found = torch.bmm(a, b)
    elif a.dim() == 2 and b.dim() == 2:
        found = _rows_by_rows(a.mT, b, offs)
    elif a.dim() == 2:
        found = _rows_by_weights(a, b, offs)
    else:
        found = _rows_by_weights(b.mT, a.mT, offs).mT
    return found if out_dtype is None else found.to(out_dtype)


def _backward(x: Tensor, weight: Tensor, ends: Tensor, grad: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of ``_rows_by_weights`` by the rows and by the weights."""
    if _is_transposed(weight):
        by_weight = _rows_by_rows(grad, x, ends).mT
    else:
        by_weight = _rows_by_rows(x, grad, ends)
    return _rows_by_weights(grad, weight.mT, ends), by_weight


_TRANSFORMERS: dict[str, Callable[..., Any]] = {
    "grouped_mm_fallback": _rows_by_weights,
    "grouped_mm_fallback_backward": _backward,
}
"""What the package ``transformers`` traces its experts with."""
