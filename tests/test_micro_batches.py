"""Steps that take their batch apart: the numbers of the whole batch, the memory of a part."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - the name everybody knows
from torch import Tensor, nn

import pockengine as pe
from pockengine.errors import TrainError
from pockengine.modes import accumulator_name
from pockengine.optimizer import Optimizer
from tests.models import small_case
from tests.spine import judge, train, train_in_pytorch
from tests.training import TOLERANCE

COUNTS = {"mlp": 8, "mobile": 2, "bert": 2}
MOMENTUM = pe.SGD(momentum=0.9, weight_decay=1e-2)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "scheme", "optimizer"),
    [
        ("mlp", "full", "sgd"),
        ("mobile", "mixed", "sgd"),
        ("bert", "full", "adamw"),
        ("bert", "mixed", "sgd"),
    ],
)
def test_numbers_are_pytorchs(model: str, scheme: str, optimizer: str) -> None:
    """Losses and parameters agree with eager PyTorch's; one thread and two leave the same bits."""
    case = replace(small_case(model, scheme, optimizer), micro_batches=COUNTS[model])
    run = train(case)
    found = judge(case, run, train_in_pytorch(case), train_in_pytorch(case, torch.float64))
    assert found.failures == []
    assert train(case, threads=2).same_bits(run)


def _net() -> nn.Module:
    """(N, 6) -> (N, 3)."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 16), nn.GELU(), nn.Linear(16, 3))


def _classes() -> tuple[Tensor, Tensor]:
    """Twelve samples, of which the first part has more that are ignored than the others."""
    torch.manual_seed(1)
    y = torch.randint(0, 3, (12,))
    y[:3] = -100
    return torch.randn(12, 6), y


def _compare(
    batch: tuple[Any, Any],
    loss: Any,
    reference: Callable[[Tensor, Any], Tensor],
    optimizer: Optimizer = MOMENTUM,
    model: nn.Module | None = None,
    **options: Any,
) -> None:
    """Two steps in four micro-batches beside the same of the whole batch and of PyTorch."""
    model = _net() if model is None else model
    eager = copy.deepcopy(model)
    made = {"loss": loss, "optimizer": optimizer, "threads": 1, **options}
    with (
        pe.compile(model, batch, micro_batches=4, **made) as trainer,
        pe.compile(model, batch, **made) as whole,
    ):
        with torch.no_grad():
            first = float(reference(eager(batch[0]), batch[1]))
        for _ in range(2):
            found, wanted = (each.step(*batch, lr=0.05) for each in (trainer, whole))
            torch.testing.assert_close(found, wanted, **TOLERANCE)
            torch.testing.assert_close(found, first, **TOLERANCE) if first else None
            first = 0.0
        ema = "ema" in options
        for name, tensor in whole.state_dict(ema=ema).items():
            torch.testing.assert_close(trainer.state_dict(ema=ema)[name], tensor, **TOLERANCE)


@pytest.mark.parametrize(
    "optimizer",
    [
        pe.SGD(),
        pe.SGD(momentum=0.9, nesterov=True),
        pe.Adam(amsgrad=True, weight_decay=0.1),
        pe.Lion(weight_decay=0.1),
        pe.RMSprop(momentum=0.9, centered=True),
        pe.Adagrad(lr_decay=0.1, initial_accumulator_value=0.1),
    ],
)
def test_optimizers(optimizer: Optimizer) -> None:
    """Those that need a whole gradient update once, by the sum."""
    _compare(_classes(), "cross_entropy", F.cross_entropy, optimizer)


_WEIGHTS = torch.tensor([0.5, 1.0, 2.0])


@pytest.mark.parametrize(
    "loss",
    [
        F.cross_entropy,
        nn.CrossEntropyLoss(weight=_WEIGHTS, label_smoothing=0.1),
        nn.CrossEntropyLoss(reduction="sum"),
        nn.CrossEntropyLoss(ignore_index=1),
    ],
)
def test_means_over_classes(loss: Any) -> None:
    """A mean is over what the whole batch counts: ignored labels, weights of classes."""
    x, y = _classes()
    _compare((x, y.clamp(min=0) if y.min() < 0 and loss is not F.cross_entropy else y), loss, loss)


@pytest.mark.parametrize(
    ("loss", "reference"),
    [
        ("mse", F.mse_loss),
        ("smooth_l1", F.smooth_l1_loss),
        ("bce_with_logits", F.binary_cross_entropy_with_logits),
        (nn.KLDivLoss(reduction="batchmean"), nn.KLDivLoss(reduction="batchmean")),
        (F.huber_loss, F.huber_loss),
    ],
)
def test_means_over_elements(loss: Any, reference: Any) -> None:
    """Losses of one target for each element."""
    torch.manual_seed(1)
    _compare((torch.randn(12, 6), torch.rand(12, 3)), loss, reference)


def test_tokens() -> None:
    """Next tokens: the parts have different numbers of labels that count."""
    torch.manual_seed(1)
    tokens = torch.randint(0, 5, (4, 7))
    labels = tokens.clone()
    labels[0, 2:] = -100

    def reference(output: Tensor, target: Tensor) -> Tensor:
        return F.cross_entropy(output[:, :-1].flatten(0, 1), target[:, 1:].flatten())

    model = nn.Sequential(nn.Embedding(5, 8), nn.Linear(8, 8), nn.GELU(), nn.Linear(8, 5))
    _compare((tokens, labels), "causal_lm", reference, model=model)


@pytest.mark.parametrize(
    "options",
    [
        {"clip": pe.Clip(value=0.02)},
        {"clip": pe.Clip(global_norm=0.1)},
        {"ema": 0.5},
        {"ema": 0.5, "optimizer": pe.AdamW()},
        {"scheme": pe.Scheme({"0.weight": 0.5, "2.bias": 1.0})},
    ],
)
def test_modes(options: dict[str, Any]) -> None:
    """What is clipped is the whole gradient; an average takes in a step, not its parts."""
    _compare(_classes(), "cross_entropy", F.cross_entropy, **options)


def test_nested_inputs_and_targets() -> None:
    """Every tensor of the batch is taken apart along its first axis."""

    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(6, 3)

        def forward(self, a: Tensor, b: Tensor) -> Tensor:
            out: Tensor = self.layer(a * b[:, None])
            return out

    torch.manual_seed(0)
    model, x, y = Two(), {"a": torch.randn(8, 6), "b": torch.rand(8)}, torch.randint(0, 3, (8,))
    made: dict[str, Any] = {"loss": "cross_entropy", "optimizer": MOMENTUM, "threads": 1}
    with (
        pe.compile(model, (x, y), micro_batches=2, **made) as trainer,
        pe.compile(model, (x, y), **made) as whole,
    ):
        torch.testing.assert_close(trainer.step(x, y, lr=0.1), whole.step(x, y, lr=0.1))
        torch.testing.assert_close(trainer.predict(x), whole.predict(x))


def test_dropout_draws_anew_for_each_part() -> None:
    """Parts that are alike are dropped differently, and equal seeds give equal runs."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 64), nn.Dropout(0.5), nn.Linear(64, 3)).train()
    x, y = torch.randn(4, 6).repeat(2, 1), torch.randint(0, 3, (4,)).repeat(2)

    def losses(batch: tuple[Tensor, Tensor], count: int) -> list[float]:
        made: dict[str, Any] = {"loss": "cross_entropy", "optimizer": MOMENTUM, "threads": 1}
        with pe.compile(model, batch, micro_batches=count, seed=3, **made) as trainer:
            return [trainer.step(*batch, lr=0.0) for _ in range(2)]

    once, parted = losses((x[:4], y[:4]), 1), losses((x, y), 2)
    assert parted == losses((x, y), 2)
    assert parted[0] == pytest.approx(sum(once) / 2)  # the draws of two steps
    assert once[0] != once[1]


@pytest.mark.parametrize(("optimizer", "accumulates"), [(MOMENTUM, False), (pe.Adam(), True)])
def test_memory_is_that_of_a_part(optimizer: Optimizer, accumulates: bool) -> None:
    """The arena of a step shrinks; a momentum needs no accumulators."""
    torch.manual_seed(0)
    layers = [each for _ in range(6) for each in (nn.Linear(64, 64), nn.GELU())]
    model, x, y = nn.Sequential(*layers), torch.randn(512, 64), torch.randint(0, 64, (512,))
    made: dict[str, Any] = {"loss": "cross_entropy", "optimizer": optimizer}
    with (
        pe.compile(model, (x, y), micro_batches=8, **made) as trainer,
        pe.compile(model, (x, y), **made) as whole,
    ):
        parted, once = (each.plan.entries["step"] for each in (trainer, whole))
        assert parted.arena_bytes < once.arena_bytes / 3
        assert (accumulator_name("0.weight") in trainer.plan.places) == accumulates
        assert trainer.plan.state_bytes - whole.plan.state_bytes < (
            2 * whole.plan.param_bytes if accumulates else 4096
        )


@pytest.mark.parametrize("optimizer", [MOMENTUM, pe.Adam()])
def test_a_loss_that_is_not_finite_changes_no_parameter(optimizer: Optimizer) -> None:
    """Wherever in the batch it is; the next step is whole again."""
    x, y = _classes()
    made: dict[str, Any] = {"loss": "cross_entropy", "optimizer": optimizer, "threads": 1}
    for bad in (0, 5, 11):
        with pe.compile(_net(), (x, y), micro_batches=4, **made) as trainer:
            before = trainer.state_dict()
            hot = x.clone()
            hot[bad] = 3e38
            y_counted = y.clamp(min=0)
            with pytest.raises(TrainError, match="loss"):
                trainer.step(hot, y_counted, lr=0.1)
            for name, tensor in trainer.state_dict().items():
                assert torch.equal(tensor, before[name])
            with torch.no_grad():
                wanted = float(F.cross_entropy(_net()(x), y))
            assert trainer.step(x, y, lr=0.1) == pytest.approx(wanted)
            assert all(t.isfinite().all() for t in trainer.state_dict().values())
