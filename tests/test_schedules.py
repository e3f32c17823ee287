"""Learning-rate schedules beside PyTorch's."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import pytest
import torch

from pockengine import schedules
from pockengine.errors import InputError


def _pytorchs(
    make: Callable[[torch.optim.Optimizer], object], lr: float, steps: int
) -> list[float]:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=lr)
    scheduler: torch.optim.lr_scheduler.LRScheduler = make(optimizer)  # type: ignore[assignment]
    found = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for _ in range(steps):
            found.append(optimizer.param_groups[0]["lr"])
            scheduler.step()
    return found


def test_as_pytorchs() -> None:
    """Cosine, step and linear give PyTorch's rates."""
    named = torch.optim.lr_scheduler
    wanted = _pytorchs(lambda o: named.CosineAnnealingLR(o, T_max=10, eta_min=0.01), 0.5, 11)
    assert list(map(schedules.cosine(0.5, 10, 0.01), range(11))) == pytest.approx(wanted)
    wanted = _pytorchs(lambda o: named.StepLR(o, 3, 0.5), 0.4, 10)
    assert list(map(schedules.step(0.4, 3, 0.5), range(10))) == pytest.approx(wanted)
    wanted = _pytorchs(lambda o: named.LinearLR(o, 0.5, 0.25, total_iters=4), 0.4, 7)
    assert list(map(schedules.linear(0.2, 0.1, 4), range(7))) == pytest.approx(wanted)


def test_composed() -> None:
    """Warm-up rises to what follows it; a chain counts each part from its own 0."""
    rate = schedules.warmup(3, schedules.cosine(0.8, 10))
    assert list(map(rate, range(4))) == pytest.approx([0.2, 0.4, 0.6, 0.8])
    assert rate(13) == pytest.approx(0)
    assert rate(99) == pytest.approx(0)
    both = schedules.chain(
        (2, schedules.constant(1.0)),
        (2, schedules.linear(0.5, 0.1, 2)),
        then=schedules.step(0.2, 1, 0.5),
    )
    assert list(map(both, range(6))) == pytest.approx([1, 1, 0.5, 0.3, 0.2, 0.1])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: schedules.constant(-1.0), r"constant\(lr\): -1.0"),
        (lambda: schedules.cosine(0.1, 0), r"cosine\(steps\): 0"),
        (lambda: schedules.warmup(1.5, schedules.constant(1)), r"warmup\(steps\): 1.5"),  # type: ignore[arg-type]
        (lambda: schedules.step(float("nan"), 1), r"step\(lr\): nan"),
    ],
)
def test_mistakes(make: Callable[[], object], message: str) -> None:
    """Each is one error that names the argument."""
    with pytest.raises(InputError, match=message):
        make()
