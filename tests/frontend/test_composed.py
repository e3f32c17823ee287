"""Functions said by others: PyTorch's values and gradients, and compiled models that use them."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

import pockengine as pe
from pockengine.errors import InputError
from pockengine.frontend.composed import Composed

_IDS = torch.tensor([[1, 2, 0], [5, 5, 2]])
_FLAT, _STARTS = torch.tensor([1, 2, 0, 5, 5]), torch.tensor([0, 2, 2])
_LABELS = torch.tensor([[1, 2, 2], [3, 0, 0]])


def _random(*shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(len(shape))
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def _bag(**options: Any) -> Callable[[Tensor], Tensor]:
    return lambda table: F.embedding_bag(_IDS, table, **options)


def _flat_bag(**options: Any) -> Callable[[Tensor], Tensor]:
    return lambda table: F.embedding_bag(_FLAT, table, _STARTS, **options)


def _ctc(**options: Any) -> Callable[[Tensor], Tensor]:
    def loss(x: Tensor) -> Tensor:
        lengths = torch.tensor([7, 5]), torch.tensor([3, 1])
        return F.ctc_loss(x.log_softmax(-1), _LABELS, *lengths, **options)

    return loss


_CASES: dict[str, tuple[Callable[[Tensor], Tensor], Tensor]] = {
    "bags": (_bag(), _random(6, 4)),
    "bags, sum": (_bag(mode="sum", padding_idx=2), _random(6, 4)),
    "bags, mean": (_bag(mode="mean", padding_idx=-1), _random(6, 4)),
    "bags, max": (_bag(mode="max"), _random(6, 4)),
    "weighted bags": (
        lambda w: F.embedding_bag(_IDS, _random(6, 4), mode="sum", per_sample_weights=w),
        _random(2, 3),
    ),
    "flat bags, one empty": (_flat_bag(), _random(6, 4)),
    "flat bags, sum": (_flat_bag(mode="sum"), _random(6, 4)),
    "flat bags, max": (_flat_bag(mode="max"), _random(6, 4)),
    "flat bags to the last": (_flat_bag(include_last_offset=True), _random(6, 4)),
    "grid": (
        lambda g: F.grid_sample(_random(2, 3, 5, 6), g, align_corners=False),
        _random(2, 4, 4, 2),
    ),
    "grid of pictures": (
        lambda x: F.grid_sample(x, _random(2, 4, 4, 2), "nearest", "border", align_corners=True),
        _random(2, 3, 5, 6),
    ),
    "grid, bicubic": (
        lambda g: F.grid_sample(_random(2, 3, 5, 6), g, "bicubic", "reflection", False),
        _random(2, 4, 4, 2) * 0.4,
    ),
    "gaussian": (
        lambda v: F.gaussian_nll_loss(_random(4, 3), _random(4, 1), v.square(), full=True),
        _random(4),
    ),
    "gaussian, clamped": (
        lambda v: F.gaussian_nll_loss(_random(4, 3), _random(4, 1), v.square(), eps=0.5),
        _random(4, 3),
    ),
    "distances": (lambda x: torch.cdist(x, _random(2, 5, 3)), _random(2, 4, 3)),
    "distances of many": (lambda x: torch.cdist(_random(30, 3), x), _random(7, 3)),
    "distances to itself": (lambda x: torch.cdist(x, x.detach()), _random(4, 3)),
    "distances by axis": (lambda x: torch.cdist(x, _random(5, 3), 1.0), _random(4, 3)),
    "random slopes, in place": (
        lambda x: torch.cat([y := x * 2, F.rrelu(y, inplace=True), y]),
        _random(4, 3),
    ),
    "pairs": (lambda x: F.pdist(x, 3.0), _random(5, 3)),
    "covariance": (lambda x: torch.cov(x, correction=0), _random(3, 5)),
    "correlation": (torch.corrcoef, _random(3, 5)),
    "masked scatter": (
        lambda x: torch.masked_scatter(_random(4, 3), _random(4, 1) > 0, x),
        _random(6, 3),
    ),
    "masked scatter, in place": (
        lambda x: (x * 2).masked_scatter_(_random(4, 3) > 0, x.detach() + 1),
        _random(4, 3),
    ),
    "bilinear": (
        lambda x: F.bilinear(x, _random(2, 4, 5), _random(6, 3, 5), _random(6)),
        _random(2, 4, 3),
    ),
    "bilinear, by weight": (
        lambda w: F.bilinear(_random(4, 3), _random(4, 5), w),
        _random(6, 3, 5),
    ),
    "ctc": (_ctc(), _random(7, 2, 4)),
    "ctc, each": (_ctc(reduction="none"), _random(7, 2, 4)),
    "ctc, last blank": (
        lambda x: F.ctc_loss(x.log_softmax(-1), _LABELS[:1], [7], [3], blank=4, reduction="sum"),
        _random(7, 1, 5),
    ),
    "ctc, impossible": (
        lambda x: F.ctc_loss(x.log_softmax(-1), _LABELS, [2, 7], [3, 0], zero_infinity=True),
        _random(7, 2, 4),
    ),
    "ctc, targets in a row": (
        lambda x: F.ctc_loss(x.log_softmax(-1), torch.tensor([1, 2, 2, 3]), [7, 7], [3, 1]),
        _random(7, 2, 4),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", _CASES)
def test_equal_to_pytorch(name: str) -> None:
    """Values and gradients in float64."""
    function, x = _CASES[name]
    found, wanted = x.clone().requires_grad_(), x.clone().requires_grad_()
    with Composed():
        ours = function(found)
    theirs = function(wanted)
    torch.testing.assert_close(ours.to(torch.float64), theirs)
    weight = torch.randn(theirs.shape, dtype=torch.float64)
    (ours * weight).sum().backward()
    (theirs * weight).sum().backward()
    torch.testing.assert_close(found.grad, wanted.grad)


def test_distances_of_nan() -> None:
    """They are NaN, and no distances of 0."""
    x, y = _random(30, 3), _random(4, 3)
    x[1, 2] = torch.nan
    with Composed():
        found = torch.cdist(x, y)
    torch.testing.assert_close(found, torch.cdist(x, y), equal_nan=True)


class _Translator(nn.Module):
    """PyTorch's transformer with a causal mask of its own making, and bags of words."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(9, 8, padding_idx=0)
        self.topic = nn.EmbeddingBag(9, 8)
        self.core = nn.Transformer(8, 2, 1, 1, 16, dropout=0.0, batch_first=True)

    def forward(self, source: Tensor, begun: Tensor) -> Tensor:
        mask = nn.Transformer.generate_square_subsequent_mask(begun.shape[1])
        words = self.words(source) + self.topic(source)[:, None]
        found = self.core(words, self.words(begun), tgt_mask=mask, src_key_padding_mask=source == 0)
        return (found @ self.words.weight.T).log_softmax(-1).transpose(0, 1)


def _alignment(scores: Tensor, labels: Tensor) -> Tensor:
    steps, samples = scores.shape[:2]
    return F.ctc_loss(scores, labels, [steps] * samples, [2] * samples)


def test_compiled() -> None:
    """Three steps of a model that has a mask, bags and an alignment loss follow PyTorch."""
    torch.manual_seed(0)
    model = _Translator()
    x = torch.tensor([[3, 4, 5], [7, 8, 0]]), torch.randint(1, 9, (2, 5))
    y = torch.tensor([[1, 4], [2, 2]])
    eager = copy.deepcopy(model)
    optimizer = torch.optim.SGD(eager.parameters(), 0.1)
    with pe.compile(model, (x, y), loss=_alignment, optimizer=pe.SGD(), threads=1) as trainer:
        for _ in range(3):
            loss = _alignment(eager(*x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            assert trainer.step(x, y, lr=0.1) == pytest.approx(loss.item(), rel=1e-5)


class _Policy(nn.Module):
    """Distributions of PyTorch, sampled and scored; random slopes."""

    def __init__(self) -> None:
        super().__init__()
        self.mean, self.choice = nn.Linear(4, 3), nn.Linear(4, 5)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        normal = torch.distributions.Normal(self.mean(F.rrelu(x, training=self.training)), 0.5)
        chosen = torch.distributions.Categorical(logits=self.choice(x))
        picked = F.gumbel_softmax(self.choice(x), hard=True)
        noise = torch.normal(0.0, 1.0, (len(x), 3)) + torch.randperm(3)
        return normal.log_prob(noise), chosen.entropy(), picked


def test_distributions() -> None:
    """What does not depend on chance equals PyTorch; draws are what they should be."""
    torch.manual_seed(0)
    model = _Policy()
    x, y = torch.randn(64, 4), torch.zeros(1)
    loss: Callable[[Any, Tensor], Tensor] = lambda out, _: out[1].mean() - out[0].mean()  # noqa: E731
    with pe.compile(model, (x, y), loss=loss, optimizer=pe.SGD()) as trainer:
        _, entropy, picked = trainer.predict(x)
        torch.testing.assert_close(entropy, model(x)[1])
        assert set(picked.sum(1).tolist()) == {1.0}
        assert len(set(picked.argmax(1).tolist())) > 1
        assert trainer.step(x, y, lr=0.1) != trainer.step(x, y, lr=0.0)


class _Columns(nn.Module):
    """A user's number beside an item's in one input of integers."""

    def __init__(self, users: int, items: int) -> None:
        super().__init__()
        self.user, self.item = nn.Embedding(users, 4), nn.Embedding(items, 4)

    def forward(self, pairs: Tensor) -> Tensor:
        return (self.user(pairs[:, 0]) * self.item(pairs[:, 1])).sum(1)


def test_columns_of_different_tables() -> None:
    """A column may hold what another may not."""
    torch.manual_seed(0)
    model = _Columns(3, 50)
    pairs, rated = torch.tensor([[2, 49], [0, 7]]), torch.ones(2)
    with pe.compile(model, (pairs, rated), loss="mse", optimizer=pe.SGD()) as trainer:
        expected = F.mse_loss(model(pairs), rated).item()
        assert trainer.step(pairs, rated, lr=0.1) == pytest.approx(expected, rel=1e-6)


def test_columns_of_one_kind() -> None:
    """Where all columns are looked up in tables of one size, what is outside is refused."""
    model = _Columns(5, 5)
    pairs, rated = torch.tensor([[2, 4], [0, 3]]), torch.ones(2)
    with (
        pe.compile(model, (pairs, rated), loss="mse", optimizer=pe.SGD()) as trainer,
        pytest.raises(InputError, match="from 0 to 4 is needed"),
    ):
        trainer.step(torch.tensor([[2, 5], [0, 3]]), rated, lr=0.1)


def test_a_float_target_that_is_used_as_an_index() -> None:
    """Labels given as floats are labels where the loss makes them integers."""
    model = nn.Linear(3, 4)
    x, y = torch.randn(2, 3), torch.tensor([1.0, 3.0])

    def loss(scores: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(scores, labels.long())

    with pe.compile(model, (x, y), loss=loss, optimizer=pe.SGD()) as trainer:
        assert trainer.step(x, y, lr=0.1) == pytest.approx(loss(model(x), y).item(), rel=1e-6)


def test_a_target_that_nothing_reads() -> None:
    """A loss of the outputs alone still takes what the batch brings."""
    model = nn.Linear(3, 4)
    x, y = torch.randn(2, 3), torch.randn(7)
    loss: Callable[[Tensor, Tensor], Tensor] = lambda out, _: out.square().mean()  # noqa: E731
    with pe.compile(model, (x, y), loss=loss, optimizer=pe.SGD()) as trainer:
        assert trainer.evaluate(x, y)[0] == pytest.approx(model(x).square().mean().item(), rel=1e-6)
        trainer.step(x, y, lr=0.1)
