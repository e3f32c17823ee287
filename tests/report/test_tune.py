"""The search tries, keeps what is faster, writes it down, and goes on from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from pockengine.errors import InputError
from pockengine.lower.features import host_target
from pockengine.lower.program import Built
from pockengine.lower.tile_parameters import Choice, tile_parameters
from pockengine.lower.tuning import Tuning
from pockengine.optimizer import SGD
from pockengine.report import tune as search
from pockengine.report.cuts import nests
from pockengine.report.tune import Standing, faster, tune
from pockengine.report.workloads import Workload

TARGET = host_target()
TILES = tile_parameters(TARGET)
MATMUL = """\
%a: f32[200x300] = input('a')
%b: f32[300x500] = input('b')
%y: f32[200x500] = matmul(%a, %b)
return loss=None, outputs=(%y,), gradients={}, updates=()
"""


def workload() -> Workload:
    """A linear layer: two products."""
    torch.manual_seed(0)
    batch = (torch.randn(8, 12), torch.randn(8, 40))
    return Workload(model=nn.Linear(12, 40), batch=batch, loss="mse", optimizer=SGD())


def test_every_choice_gives_another_cut() -> None:
    """From the model's own on, until nothing is left; a changed best opens new ones."""
    ((_, nest),) = nests(MATMUL).items()
    best = nest.default(TILES)
    assert nest.cut(TILES, best) == nest.cut(TILES)
    tried: list[Choice] = []
    while (found := nest.next(TILES, best, tried)) is not None:
        tried.append(found)
    cuts = [nest.cut(TILES, each) for each in tried]
    assert all(cut not in cuts[:at] for at, cut in enumerate(cuts))
    assert nest.cut(TILES) not in cuts
    assert len(cuts) > 5
    assert any(each.packed != best.packed for each in tried)
    assert nest.next(TILES, tried[0], tried) is not None


def test_faster_is_more_than_noise() -> None:
    """By over 3 % in the median, the quartile and most turns: no outlier decides."""
    before = np.full(12, 10.0)
    assert faster(before, np.full(12, 9.6))
    assert not faster(before, np.full(12, 9.8))
    disturbed = np.where(np.arange(12) < 8, 90.0, 10.0)  # something else ran most of the time
    assert not faster(disturbed, before)
    assert not faster(before, np.where(np.arange(12) < 7, 9.0, 11.0))


class Clock:
    """Stands for measuring: kernels of a choice's first round take this share of the time."""

    def __init__(self, share: float) -> None:
        self.share = share
        self.measured: list[int] = []

    def __call__(
        self, variants: Sequence[Mapping[str, Built]], *, whole: bool = False
    ) -> list[np.ndarray[Any, Any]]:
        """Times of each variant, the later ones faster."""
        self.measured.append(len(variants))
        shape = (3,) if whole else (3, 64)
        return [np.full(shape, self.share**at) for at in range(len(variants))]


def searched(monkeypatch: pytest.MonkeyPatch, path: Path, share: float, rounds: int) -> Any:
    """A search of some rounds in which everything new takes a share of the time."""
    clock, left = Clock(share), [rounds]

    class Search(search._Search):
        @property
        def seconds(self) -> float:
            left[0] -= 1
            return float(left[0] < 0)

        @property
        def standing(self) -> Standing:
            gains = tuple(self._gains)
            return Standing(seconds=0, contractions=0, tried=self._tried, gains=gains)

        def _measure(self, *arguments: Any, **named: Any) -> Any:
            return clock(*arguments, **named)

    monkeypatch.setattr(search, "_Search", Search)
    return tune(workload(), path, seconds=0.5)


@pytest.mark.slow
def test_what_is_faster_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And by more than noise; the file has it, and a later search begins there."""
    path = tmp_path / "tuning.json"
    first = searched(monkeypatch, path, 0.5, 1)
    assert first.standing.tried == len(first.standing.gains) == len(first.tuning.choices) == 2
    assert (first.before_ms, first.after_ms) == (1.0, 0.5)
    assert Tuning.load(path, TARGET) == first.tuning
    later = searched(monkeypatch, path, 0.99, 1)
    assert later.tuning.choices == first.tuning.choices
    assert all(len(set(tried)) == 2 for tried in later.tuning.tried.values())


@pytest.mark.slow
def test_a_search_measures_the_step(tmp_path: Path) -> None:
    """Without time there is no round, but a file, and the step's time twice."""
    told: list[Standing] = []
    found = tune(workload(), tmp_path / "tuning.json", seconds=0, watch=told.append)
    assert (found.standing.contractions, found.standing.tried, told) == (2, 0, [])
    assert min(found.before_ms, found.after_ms) > 0
    assert Tuning.load(tmp_path / "tuning.json", TARGET).choices == {}


def test_a_step_without_products(tmp_path: Path) -> None:
    """There is nothing to tune."""

    class Scale(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(3))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * self.scale

    batch = (torch.ones(4, 3), torch.zeros(4, 3))
    scaling = Workload(model=Scale(), batch=batch, loss="mse", optimizer=SGD())
    with pytest.raises(InputError, match="tune: a step without matrix products"):
        tune(scaling, tmp_path / "tuning.json")
