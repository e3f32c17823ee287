"""Trainers of several shapes, and of smaller batches, beside PyTorch eager."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - the name everybody knows
from torch import Tensor, nn

import pockengine as pe
from pockengine.errors import CaptureError, InputError
from tests.training import TOLERANCE, check_training, compare_steps


class Tokens(nn.Module):
    """(B, T) tokens -> (B, T, 5) scores; positions are constants of each length."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(7, 6)
        self.score = nn.Linear(6, 5)

    def forward(self, ids: Tensor) -> Tensor:
        """Each token's scores depend on its place and on the mean of all."""
        place = torch.tensor([0.1 * len(ids[0]) * i for i in range(ids.shape[1])])
        hidden = self.table(ids) + place[:, None]
        out: Tensor = self.score(hidden + hidden.mean(1, keepdim=True))
        return out


def _batch(samples: int, length: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    made = torch.Generator().manual_seed(seed)
    ids = torch.randint(0, 7, (samples, length), generator=made)
    labels = torch.randint(0, 5, (samples, length), generator=made)
    return ids, labels.where(torch.rand(samples, length, generator=made) < 0.7, -100)


def _reference(model: nn.Module, ids: Tensor, labels: Tensor) -> Tensor:
    return F.cross_entropy(model(ids).transpose(1, 2), labels)


_weighted = nn.CrossEntropyLoss(weight=torch.tensor([0.5, 2.0, 1.0, 3.0, 0.1]))


class ClassesFirst(Tokens):
    """(B, 5, T) scores."""

    def forward(self, ids: Tensor) -> Tensor:
        """(B, T) -> (B, 5, T)."""
        return super().forward(ids).transpose(1, 2)


def test_buckets() -> None:
    """Steps of every declared length share parameters and momentum; predict also takes one row."""
    shapes = [_batch(3, 5), pe.Shape(pe.resized(_batch(3, 4), samples=1), train=False)]
    options: dict[str, Any] = {"shapes": shapes, "accumulate": 2, "ema": 0.5}
    batches = [_batch(3, 4, 1), _batch(3, 5, 2), _batch(3, 5, 3), _batch(3, 4, 4)]
    eager = Tokens()
    trainer = pe.compile(
        copy.deepcopy(eager),
        _batch(3, 4),
        loss="token_cross_entropy",
        optimizer=pe.SGD(momentum=0.9),
        threads=1,
        **options,
    )
    steps = torch.optim.SGD(eager.parameters(), lr=0.1, momentum=0.9)
    with trainer:
        for count, (ids, labels) in enumerate(batches):
            loss = _reference(eager, ids, labels)
            (loss / 2).backward()  # type: ignore[no-untyped-call]
            found = trainer.step(ids, labels, lr=0.1)
            torch.testing.assert_close(found, float(loss.detach()), **TOLERANCE)
            if count % 2:
                steps.step()
                steps.zero_grad()
        for name, tensor in eager.state_dict().items():
            torch.testing.assert_close(trainer.state_dict()[name], tensor, **TOLERANCE)
        for samples, length in ((3, 4), (3, 5), (1, 4)):
            ids, labels = _batch(samples, length, 9)
            wanted = eager(ids).detach()
            torch.testing.assert_close(trainer.predict(ids), wanted, **TOLERANCE)
            loss_found, output = trainer.evaluate(ids, labels)
            torch.testing.assert_close(output, wanted, **TOLERANCE)
            assert loss_found == pytest.approx(_reference(eager, ids, labels).item(), rel=1e-4)
            assert trainer.predict(ids, ema=True).shape == wanted.shape
        with pytest.raises(InputError, match=r"train=False"):
            trainer.step(*_batch(1, 4), lr=0.1)
        declared = r"input \(2, 4\).*declared shape: input \(3, 4\); input \(3, 5\); input \(1, 4\)"
        with pytest.raises(InputError, match=declared):
            trainer.predict(_batch(2, 4)[0])


@pytest.mark.parametrize(
    ("loss", "reference", "make"),
    [
        ("token_cross_entropy", _reference, _batch),
        (
            _weighted,
            lambda m, x, y: _weighted(m(x), y),
            _batch,
        ),
        (
            "mse",
            lambda m, x, y: F.mse_loss(m(x), y),
            lambda n, t, seed=0: (_batch(n, t, seed)[0], torch.randn(n, t, 5)),
        ),
        (
            lambda out, y, w: (((out - y["a"]) ** 2).mean((1, 2)) * w).sum() / w.sum(),
            lambda m, x, y: F.mse_loss(m(x), y["a"]),
            lambda n, t, seed=0: (_batch(n, t, seed)[0], {"a": torch.randn(n, t, 5)}),
        ),
    ],
    ids=["tokens", "class weights", "mse", "callable"],
)
def test_smaller_batches(loss: Any, reference: Any, make: Callable[..., Any]) -> None:
    """A batch of fewer samples steps, evaluates and predicts as PyTorch does with those alone."""
    batches = [make(4, 3, 1), make(1, 3, 2), make(3, 3, 3), make(4, 3, 4)]
    model = ClassesFirst() if loss is _weighted else Tokens()
    with check_training(model, batches, loss, reference, partial=True) as trainer:
        eager = copy.deepcopy(model)
        eager.load_state_dict(trainer.state_dict())
        ids, labels = make(2, 3, 7)
        found, output = trainer.evaluate(ids, labels)
        assert found == pytest.approx(reference(eager, ids, labels).item(), rel=1e-4)
        torch.testing.assert_close(output, eager(ids).detach(), **TOLERANCE)
        torch.testing.assert_close(trainer.predict(ids), eager(ids).detach(), **TOLERANCE)
        with pytest.raises(InputError, match=r"\(5, 3\).*or fewer samples of these"):
            trainer.predict(make(5, 3)[0])


def test_smaller_batches_of_several_shapes() -> None:
    """The smallest declared batch that holds the samples is padded."""
    model = Tokens()
    trainer = pe.compile(
        model,
        _batch(4, 3),
        loss="token_cross_entropy",
        optimizer=pe.SGD(),
        shapes=[_batch(2, 5)],
        partial=True,
        threads=1,
    )
    with trainer:
        compare_steps(trainer, model, [_batch(3, 3), _batch(1, 5), _batch(2, 5)], _reference)


def _compile(model: nn.Module, batch: Any, **options: Any) -> None:
    pe.compile(model, batch, **{"loss": "mse", "optimizer": pe.SGD(), **options})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"partial": True, "loss": "model"}, "a weight for each sample"),
        ({"partial": True, "loss": lambda out, y: (out - y).mean()}, "a weight for each sample"),
        (
            {"shapes": [((torch.ones(2, 3),) * 2, torch.ones(2, 2))]},
            "nests in another way|inputs of the model: too many",
        ),
        ({"shapes": [torch.ones(2, 3)]}, "a pair"),
    ],
)
def test_mistakes(options: dict[str, Any], message: str) -> None:
    """What cannot be weighed or does not nest alike is one error."""
    with pytest.raises(CaptureError, match=message):
        _compile(nn.Linear(3, 2), (torch.ones(4, 3), torch.ones(4, 2)), **options)


def test_batch_statistics_forbid_padding() -> None:
    """BatchNorm in train mode would see the padding."""
    model = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2)).train()
    with pytest.raises(CaptureError, match=r"1 normalizes by the statistics.*shapes"):
        _compile(model, (torch.ones(4, 3), torch.ones(4, 2)), partial=True)


def test_resized() -> None:
    """Samples change every first axis of the batch's extent, lengths all other axes."""
    batch = {"x": torch.ones(4, 6, 2), "mask": torch.ones(1, 6), "none": None}, torch.ones(4)
    (inputs, targets) = pe.resized(batch, samples=1, lengths={6: 3})
    assert (inputs["x"].shape, inputs["mask"].shape) == ((1, 3, 2), (1, 3))
    assert (inputs["none"], targets.shape) == (None, (1,))
