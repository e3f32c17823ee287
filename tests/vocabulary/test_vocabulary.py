"""Every row of every table: outputs, losses and two steps of SGD are PyTorch's."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - the name everybody knows
from torch import nn

import pockengine as pe
from pockengine.errors import CaptureError, InputError
from tests.vocabulary.experts import ends
from tests.vocabulary.harness import Case, Cases, case, check, weighted
from tests.vocabulary.indexing import INDEXING
from tests.vocabulary.tables import TABLES


@pytest.mark.parametrize("name", TABLES)
def test_table(name: str) -> None:
    """All cases of a family in one trainer; integers come with the batch."""
    assert check(TABLES[name]) == []


def test_indexing_by_buffers() -> None:
    """Indices that the model holds are constants of the trainer."""
    assert check(INDEXING, as_buffers=True) == []


@pytest.mark.parametrize(
    ("row", "bad"),
    [
        (case(lambda a, m: m(a), torch.tensor([1, 2]), modules=[nn.Embedding(7, 3)]), 7),
        (case(lambda x, a: x.gather(1, a), (2, 5), torch.tensor([[0, 1, 2], [0, 1, 2]])), 5),
        (case(lambda x, a: x.gather(1, a), (2, 5), torch.tensor([[0, 1, 2], [0, 1, 2]])), -1),
        (case(lambda x, s, a: x.scatter_add(0, a, s), (4,), (3,), torch.tensor([0, 1, 2])), 4),
        (case(lambda x, a: x[a], (5, 2), torch.tensor([0, 1])), 5),
        (case(lambda x, a: x[a], (5, 2), torch.tensor([0, 1])), -6),
        (case(lambda x, a: x[a + 2], (9, 2), torch.tensor([0, 1])), 7),
        (case(lambda x, a: x[:, a], (2, 5), torch.tensor([0, 1])), 5),
        (case(lambda x, a: x.index_select(0, a), (5, 2), torch.tensor([0, 1])), -1),
        (case(lambda x, v, a: x.index_put((a,), v), (5, 2), (2, 2), torch.tensor([0, 1])), 5),
    ],
)
def test_place_out_of_range(row: Case, bad: int) -> None:
    """An index of the batch that PyTorch would refuse is refused ahead of the step."""
    model = Cases({"row": row})
    (index,) = model.given
    with pe.compile(model, ((index,), torch.ones(1)), loss=weighted, optimizer=pe.SGD()) as trainer:
        trainer.step(index, torch.ones(1), lr=0.1)
        wrong = index.clone()
        wrong.view(-1)[-1] = bad
        with pytest.raises(InputError, match=str(bad)):
            trainer.step(wrong, torch.ones(1), lr=0.1)


def test_rows_of_no_group() -> None:
    """Rows behind the last group are zeros, and neither they nor a group of none get a gradient."""
    x, weight = nn.Parameter(torch.randn(6, 4)), nn.Parameter(torch.randn(3, 4, 4))
    model = Cases(
        {"row": case(lambda x, w, e: F.grouped_mm(x, w, offs=e), x, weight, ends(1, 1, 4))}
    )
    given, target = tuple(model.given), torch.ones(1)
    with pe.compile(model, (given, target), loss=weighted, optimizer=pe.SGD()) as trainer:
        found = torch.as_tensor(trainer.predict(*given)[0])
        trainer.step(given, target, lr=0.1)
        state = trainer.state_dict()
    parts = torch.cat([x[:1] @ weight[0], x[1:4] @ weight[2], torch.zeros(2, 4)])
    torch.testing.assert_close(found, parts.detach())
    moved = [state[f"operand_0_{i}"] != p for i, p in enumerate((x, weight))]
    assert moved[0].any(1).tolist() == [True] * 4 + [False] * 2
    assert moved[1].any(2).any(1).tolist() == [True, False, True]


def test_experts_of_transformers() -> None:
    """The products that the package traces its experts with, and their gradients."""
    pytest.importorskip("transformers.integrations.moe")
    product = torch.ops.transformers.grouped_mm_fallback
    table = {
        "by rows": case(product, (7, 4), (3, 4, 8), ends(2, 2, 6)),
        "transposed": case(lambda x, w, e: product(x, w.mT, e), (7, 4), (3, 8, 4), ends(0, 5, 7)),
    }
    assert check(table) == []


def test_training_of_attention() -> None:
    """nn.MultiheadAttention in train mode, without dropout."""
    model = nn.MultiheadAttention(8, 2, batch_first=True).train()

    class Self(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = model

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            found: torch.Tensor = self.attention(x, x, x)[0]
            return found

    x, y = torch.randn(2, 5, 8), torch.randn(2, 5, 8)
    wrapped = Self()
    with pe.compile(wrapped, (x, y), loss="mse", optimizer=pe.SGD()) as trainer:
        loss = trainer.step(x, y, lr=0.1)
    assert loss == pytest.approx(nn.functional.mse_loss(wrapped(x), y).item(), rel=1e-5)


@pytest.mark.parametrize(
    ("function", "found"),
    [
        (lambda x: x[x > 0].sum() * x, "value"),
        (lambda x: torch.scatter_reduce(x, 0, torch.tensor([0]), x, "prod"), "by prod"),
        (lambda x: x.index_put((x > 0,), x), "mask as index"),
        (lambda x: x * torch.histc(x, 4), "bins that the data decides"),
    ],
)
def test_form_that_cannot_be_said(function: object, found: str) -> None:
    """What has no form in the vocabulary is refused with its form."""
    model = Cases({"row": case(function, (4,))})  # type: ignore[arg-type]
    with pytest.raises(CaptureError, match=found):
        pe.compile(model, ((), torch.ones(1)), loss=weighted, optimizer=pe.SGD())
