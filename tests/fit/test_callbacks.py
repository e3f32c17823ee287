"""Callbacks, the history and the progress bar."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import pockengine as pe
from pockengine.errors import InputError, TrainError
from pockengine.fit.callbacks import Status
from pockengine.fit.history import Curve
from tests.fit.nets import classifier, data

X, Y = data(12)


def _history(values: list[float], name: str = "val_loss") -> Status:
    with classifier() as trainer:
        status = Status(trainer=trainer, history=pe.History(), epochs=9)
    status.history.rows = [{"epoch": i, name: value} for i, value in enumerate(values)]
    return status


def _stops(callback: Any, values: list[float], name: str) -> int:
    """The first epoch, from 0, after which it asks to stop; -1 if never."""
    status = _history([], name)
    for epoch, value in enumerate(values):
        status.history.rows.append({name: value})
        if callback.on_epoch(status):
            return epoch
    return -1


@pytest.mark.parametrize(
    ("options", "name", "values", "epoch"),
    [
        ({"patience": 2}, "val_loss", [3, 2, 2, 2, 1], 3),
        ({"patience": 2}, "val_loss", [3, 2, 2, 1, 1], -1),
        ({"patience": 1}, "val_loss", [3, float("nan")], 1),
        ({"patience": 1}, "val_accuracy", [0.1, 0.2, 0.3], -1),
        ({"patience": 1}, "val_accuracy", [0.3, 0.2], 1),
        ({"patience": 1, "mode": "min"}, "val_accuracy", [0.3, 0.2, 0.3], 2),
        ({"patience": 1, "min_delta": 0.5}, "val_loss", [3, 2.4, 2], 2),
        ({"patience": 1}, "val_perplexity", [3, 2, 3], 2),
    ],
)
def test_early_stopping(options: Any, name: str, values: list[float], epoch: int) -> None:
    """It waits for so many epochs without a better value, in the metric's own direction."""
    assert _stops(pe.EarlyStopping(metric=name, **options), values, name) == epoch


def test_best_checkpoint(tmp_path: Path) -> None:
    """The file is of the best epoch, not of the last."""
    best = tmp_path / "best.ckpt"
    with classifier() as trainer:
        rates = pe.schedules.chain((3, pe.schedules.constant(0.05)), then=pe.schedules.constant(3))
        callbacks = [pe.BestCheckpoint(best)]
        rows = trainer.fit((X, Y), validation=(X, Y), epochs=2, lr=rates, callbacks=callbacks).rows
        assert rows[0]["val_loss"] < rows[1]["val_loss"]
        trainer.load(best)
        assert trainer.metrics((X, Y))["loss"] == rows[0]["val_loss"]


def test_events() -> None:
    """Each method at its time; a plain callable after each step; True and stop() end the run."""
    told: list[str] = []

    class All(pe.Callback):
        def on_step(self, status: Status) -> None:
            told.append(f"step {status.step}")

        def on_epoch(self, status: Status) -> bool:
            told.append(f"epoch {status.row['epoch']}")
            return status.epoch == 2

        def on_end(self, status: Status) -> None:
            told.append(f"end {status.step}")

    class OnlyEpochs:
        def on_epoch(self, _status: Status) -> None:
            told.append("also")

    plain: list[float] = []
    with classifier() as trainer:
        callbacks: list[Any] = [All(), OnlyEpochs(), lambda status: plain.append(status.lr)]
        history = trainer.fit((X[:8], Y[:8]), epochs=9, lr=0.5, callbacks=callbacks)
    assert told == [
        *("step 1", "step 2", "epoch 1", "also"),
        *("step 3", "step 4", "epoch 2", "also", "end 4"),
    ]
    assert plain == [0.5] * 4
    assert (history.stopped, len(history.rows)) == ("All", 2)
    with classifier() as trainer:
        history = trainer.fit((X, Y), epochs=9, callbacks=[lambda status: status.stop()])
    assert [row["step"] for row in history.rows] == [1]


def test_schedule_and_rest_of_accumulation() -> None:
    """Rates go by the step; what is pending at an epoch's end is applied."""
    rates: list[int] = []

    def schedule(step: int) -> float:
        rates.append(step)
        return 0.1

    with classifier(accumulate=2) as trainer:
        pending: list[int] = []
        trainer.fit(
            (X, Y),
            epochs=2,
            lr=schedule,
            callbacks=[lambda _status: pending.append(trainer.accumulated)],
        )
        assert trainer.accumulated == 0
    assert rates == [0, 1, 2, 3, 4, 5]
    assert pending == [1, 0, 1, 1, 0, 1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epochs": 0}, r"fit\(epochs=...\): 0; a whole number of at least 1"),
        ({"lr": "fast"}, r"fit\(lr=...\): 'fast'; a finite number, or a schedule"),
        ({"seed": -1}, r"fit\(seed=...\): -1"),
        ({"save_every": 0}, r"fit\(save_every=...\): 0"),
        ({"checkpoint": "no/such/folder/a.ckpt"}, "a file in a folder that is there"),
        ({"save_every": 5}, "a file to save to: checkpoint="),
        ({"callbacks": [3]}, r"fit\(callbacks=...\): 3; a callable, or an object with on_step"),
        ({"callbacks": [pe.EarlyStopping()]}, r"metric='val_loss'\): the history has epoch, step"),
    ],
)
def test_wrong_arguments(options: dict[str, Any], message: str) -> None:
    """Each says what is needed."""
    with classifier() as trainer, pytest.raises(InputError, match=message):
        trainer.fit((X, Y), **options)


def test_wrong_callbacks() -> None:
    """Theirs, too."""
    with pytest.raises(InputError, match=r"EarlyStopping\(patience\): 0; a whole number"):
        pe.EarlyStopping(patience=0)
    with pytest.raises(InputError, match=r"BestCheckpoint\(mode\): 'up'"):
        pe.BestCheckpoint("x", mode="up")  # type: ignore[arg-type]


def test_loss_not_finite_says_where() -> None:
    """A loss that overflows names its batch."""
    with (
        classifier() as trainer,
        pytest.raises(TrainError, match=r"train, batch 1 .* of epoch 1: loss: it is"),
    ):
        trainer.fit((X, Y), lr=1e38)


def test_history(tmp_path: Path) -> None:
    """Rows hold JSON's values alone; text, table and picture tell them."""
    with classifier() as trainer:
        metrics = ("loss", "accuracy", "confusion_matrix")
        history = trainer.fit((X, Y), validation=(X, Y), epochs=2, metrics=metrics)
    names = "epoch step loss lr val_loss val_accuracy val_confusion_matrix seconds samples_per_s"
    assert [list(row) for row in history.rows] == [names.split()] * 2
    assert sum(map(sum, history.rows[0]["val_confusion_matrix"])) == 12
    assert history.rows[0]["samples_per_s"] > 0
    again = pe.History.from_json(json.dumps(json.loads(history.to_json())))
    assert again.rows == history.rows
    assert again.curve.as_dict() == history.curve.as_dict()
    lines = history.table().splitlines()
    assert lines[0].split() == [n for n in names.split() if n != "val_confusion_matrix"]
    assert len(lines) == 4
    assert str(history) == history.table()
    history.plot(tmp_path / "run.png")
    with Image.open(tmp_path / "run.png") as picture:
        assert picture.size == (840, 840)
    with pytest.raises(InputError, match=r"plot\(.*run.png'\): .* a place that can be written"):
        history.plot(tmp_path / "no" / "run.png")
    with pytest.raises(InputError, match=r"History.from_json: .*what History.to_json wrote"):
        pe.History.from_json("[]")


def test_loss_of_a_row_is_weighted_by_samples() -> None:
    """A smaller batch counts less."""
    losses: list[tuple[float, int]] = []
    with classifier(partial=True) as trainer:
        x, y = data(10)
        callback = lambda s: losses.append((s.loss, s.samples))  # noqa: E731
        row = trainer.fit((x, y), callbacks=[callback]).rows[0]
    assert [count for _, count in losses] == [4, 4, 2]
    assert row["loss"] == sum(loss * count for loss, count in losses) / 10


def test_curve_is_bounded() -> None:
    """However long the run, some hundred points, each the mean of its window."""
    curve = Curve()
    for value in range(5000):
        curve.add(float(value))
    steps, means = curve.points()
    assert curve.window == 16
    assert 256 <= len(means) < 512
    assert means[:2] == [7.5, 23.5]
    assert steps[:2] == [8.5, 24.5]


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("progress", "terminal", "shown"),
    [(None, True, True), (None, False, False), (True, False, True), (False, True, False)],
)
def test_progress(
    monkeypatch: pytest.MonkeyPatch, progress: bool | None, terminal: bool, shown: bool
) -> None:
    """A bar on a terminal or where it is asked for, with losses, metrics, rate and time left."""
    stream = _Terminal() if terminal else io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    with classifier() as trainer:
        trainer.fit((X, Y), validation=(X, Y), epochs=3, progress=progress)
    said = stream.getvalue()
    assert bool(said) == shown
    if shown:
        assert "epoch 3/3: 100%" in said
        for part in ("9/9", "loss=", "val_accuracy=", "samples/s="):
            assert part in said
