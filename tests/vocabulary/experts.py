"""Groups of rows, each with a weight of its own, and histograms: one row a case."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812 - the name everybody knows
from torch import Tensor

from tests.vocabulary.harness import Case, case


def ends(*groups: int) -> Tensor:
    """Where groups end."""
    return torch.tensor(groups, dtype=torch.int32)


_VALUES = torch.tensor([0.0, 1.0, -1.0, 4.0, 4.1, 0.999, torch.nan, torch.inf, 3.0, -0.0, 3.999])


def experts(x: Tensor, gate: Tensor, weight: Tensor) -> Tensor:
    """A mixture of experts: two of them for each row, sorted by expert."""
    scores, expert = (x @ gate).softmax(-1).topk(2)
    sorted_experts, order = expert.flatten().sort()
    count = weight.shape[0]
    sizes = torch.histc(sorted_experts.float(), bins=count, min=0, max=count - 1)
    groups = sizes.cumsum(0, dtype=torch.int32)
    y = F.grouped_mm(x[order // 2], weight, offs=groups) * scores.flatten()[order][:, None]
    return x.new_zeros(x.shape[0], weight.shape[2]).index_add(0, order // 2, y)


EXPERTS: dict[str, Case] = {
    "grouped rows": case(
        lambda x, w, e: F.grouped_mm(x, w, offs=e), (10, 8), (3, 8, 4), ends(2, 7, 10)
    ),
    "grouped rows, empty groups": case(
        lambda x, w, e: F.grouped_mm(x, w, offs=e), (9, 4), (5, 4, 8), ends(0, 4, 4, 4, 9)
    ),
    "grouped rows, one group": case(
        lambda x, w, e: F.grouped_mm(x, w, offs=e), (5, 4), (1, 4, 8), ends(5)
    ),
    "grouped rows, all in one": case(
        lambda x, w, e: F.grouped_mm(x, w, offs=e), (7, 4), (4, 4, 4), ends(0, 0, 7, 7)
    ),
    "grouped rows, more groups": case(
        lambda x, w, e: F.grouped_mm(x, w, offs=e), (3, 4), (6, 4, 4), ends(0, 1, 1, 2, 2, 3)
    ),
    "grouped rows, transposed": case(
        lambda x, w, e: F.grouped_mm(x, w.transpose(1, 2), offs=e), (6, 4), (3, 8, 4), ends(1, 5, 6)
    ),
    "grouped columns": case(
        lambda w, x, e: F.grouped_mm(w, x, offs=e), (3, 4, 8), (8, 12), ends(4, 4, 12)
    ),
    "grouped sums": case(
        lambda x, y, e: F.grouped_mm(x, y, offs=e), (4, 12), (12, 8), ends(4, 4, 12)
    ),
    "batches": case(F.grouped_mm, (3, 4, 8), (3, 8, 4)),
    "experts": case(experts, (7, 8), (8, 4), (4, 8, 8)),
    "histc": case(
        lambda x: (
            torch.histc(x, 5, -1.0, 4.0),
            torch.histc(x, bins=3, min=0, max=3),
            torch.histc(x, 1, -2, 7),
            torch.histc(x, 7, 0.1, 0.8),
        ),
        _VALUES,
    ),
    "histc of a grid": case(
        lambda x: tuple(torch.histc(x, n, 0.0, 0.7) for n in (7, 10, 70)), torch.arange(700) / 1000
    ),
    "histc of numbers": case(
        lambda a: torch.histc(a.float(), bins=6, min=0, max=5), torch.tensor([[5, 0, 2], [2, 6, 2]])
    ),
    "histc of nothing": case(lambda x: torch.histc(x, 4, 0, 1), (0,)),
}
