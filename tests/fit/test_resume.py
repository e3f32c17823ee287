"""A run that was interrupted goes on bit by bit as if it had not been."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

import pockengine as pe
from pockengine.errors import CheckpointError
from pockengine.fit.callbacks import Status
from tests.fit.nets import BATCH, classifier, data

X, Y = data(20)
VALIDATION = data(8, seed=1)
CHILD = Path(__file__).with_name("child.py")


class Recorder(pe.Callback):
    """Keeps every step's loss, and breaks off after one of them."""

    def __init__(self, until: int | None = None) -> None:
        self.losses: dict[int, float] = {}
        self.until = until

    def on_step(self, status: Status) -> None:
        """Keep one."""
        self.losses[status.step] = status.loss
        if status.step == self.until:
            raise RuntimeError("power failure")


def _options(folder: Path, **more: Any) -> dict[str, Any]:
    best = pe.BestCheckpoint(folder / "best.ckpt", "val_loss")
    stopping = pe.EarlyStopping(patience=2, metric="val_accuracy")
    return {
        "validation": VALIDATION,
        "epochs": 6,
        "lr": pe.schedules.warmup(3, pe.schedules.cosine(0.05, 40)),
        "callbacks": [best, stopping],
        "seed": 4,
        **more,
    }


def _exact(history: pe.History) -> list[dict[str, Any]]:
    """What does not depend on the clock."""
    return [
        {k: v for k, v in row.items() if k not in ("seconds", "samples_per_s")}
        for row in history.rows
    ]


def _data(kind: str) -> Any:
    if kind == "arrays":
        return X, Y
    return DataLoader(TensorDataset(X, Y), BATCH, shuffle=True)


@pytest.mark.parametrize("kind", ["arrays", "loader"])
@pytest.mark.parametrize(("accumulate", "until"), [(1, 7), (2, 8), (2, 10)])
def test_resumes_bit_by_bit(tmp_path: Path, kind: str, accumulate: int, until: int) -> None:
    """Losses, rows, best checkpoint and parameters, broken off in mid-epoch twice.

    With dropout, AdamW, accumulation, a schedule, shuffling and early stopping.
    """
    whole = tmp_path / "whole"
    whole.mkdir()
    expected = Recorder()
    with classifier(accumulate=accumulate) as trainer:
        options = _options(whole)
        options["callbacks"].append(expected)
        wanted = trainer.fit(_data(kind), **options)
        parameters = trainer.state_dict()
    found: dict[int, float] = {}
    for stop in (until, until + 3, None):
        recorder = Recorder(stop)
        options = _options(tmp_path, checkpoint=tmp_path / "run.ckpt", save_every=2)
        options["callbacks"].append(recorder)
        with classifier(accumulate=accumulate) as trainer:
            if stop is None:
                history = trainer.fit(_data(kind), **options)
                state = trainer.state_dict()
            else:
                with pytest.raises(RuntimeError, match="power failure"):
                    trainer.fit(_data(kind), **options)
        found |= recorder.losses
    assert found == expected.losses
    assert _exact(history) == _exact(wanted)
    assert history.curve.as_dict() == wanted.curve.as_dict()
    assert history.stopped == wanted.stopped
    assert all(torch.equal(parameters[name], tensor) for name, tensor in state.items())
    with classifier(accumulate=accumulate) as one, classifier(accumulate=accumulate) as other:
        one.load(tmp_path / "best.ckpt")
        other.load(whole / "best.ckpt")
        assert all(torch.equal(t, other.state_dict()[n]) for n, t in one.state_dict().items())


def _finished(folder: Path, trainer: pe.Trainer, **more: Any) -> pe.History:
    return trainer.fit((X, Y), checkpoint=folder / "run.ckpt", **{"epochs": 2, **more})


def test_finished_run(tmp_path: Path) -> None:
    """Called again, a finished run trains no more; with more epochs it goes on; or anew."""
    with classifier() as trainer:
        rows = _finished(tmp_path, trainer).rows
        assert _finished(tmp_path, trainer).rows == rows
        assert len(_finished(tmp_path, trainer, epochs=3).rows) == 3
        assert _finished(tmp_path, trainer, resume=False).rows[-1]["step"] == 10


def test_stopped_run(tmp_path: Path) -> None:
    """A run that a callback ended stays ended, unless that callback is gone."""

    def enough(status: Status) -> bool:
        return status.step == 2

    with classifier() as trainer:
        history = _finished(tmp_path, trainer, callbacks=[enough], epochs=3)
        assert (history.stopped, history.rows[0]["step"]) == ("enough", 2)
        again = _finished(tmp_path, trainer, callbacks=[enough], epochs=3)
        assert again.rows == history.rows
        assert len(_finished(tmp_path, trainer, epochs=3).rows) == 3


class _FailsAfterStop(pe.Callback):
    """Ends the run with its second step; the power fails in the epoch's end, the first time."""

    def __init__(self) -> None:
        self.fails = True

    def on_step(self, status: Status) -> bool:
        """End."""
        return status.step == 2

    def on_epoch(self, status: Status) -> None:  # noqa: ARG002
        """Fail."""
        if self.fails:
            raise RuntimeError("power failure")


def test_broken_off_after_a_stop(tmp_path: Path) -> None:
    """What is saved of an epoch that a callback ended has its row."""
    with classifier() as trainer:
        callback = _FailsAfterStop()
        with pytest.raises(RuntimeError, match="power failure"):
            _finished(tmp_path, trainer, callbacks=[callback], save_every=1)
        callback.fails = False
        history = _finished(tmp_path, trainer, callbacks=[callback], save_every=1)
        assert [row["step"] for row in history.rows] == [2]


def test_other_data(tmp_path: Path) -> None:
    """In mid-epoch, batches have to be the same, or nothing changes; at an epoch's end not."""
    path = tmp_path / "run.ckpt"
    with classifier() as trainer:
        first = trainer.state_dict()
        with pytest.raises(RuntimeError):
            trainer.fit((X, Y), checkpoint=path, save_every=2, callbacks=[Recorder(3)])
    with classifier() as trainer:
        message = "in the middle of an epoch of samples=20; the same batches, .* of samples=12"
        with pytest.raises(CheckpointError, match=message):
            trainer.fit((X[:12], Y[:12]), checkpoint=path)
        with pytest.raises(CheckpointError, match=r"epoch of seed=0; .* seed=1\. Nothing"):
            trainer.fit((X, Y), checkpoint=path, seed=1)
        assert all(torch.equal(first[name], t) for name, t in trainer.state_dict().items())
        trainer.fit((X, Y), checkpoint=path)
        assert len(trainer.fit((X[:12], Y[:12]), checkpoint=path, epochs=2, seed=1).rows) == 2


def test_checkpoint_without_a_run(tmp_path: Path) -> None:
    """A trainer's own checkpoint holds no run, and one of another version cannot be read."""
    path = tmp_path / "run.ckpt"
    with classifier() as trainer:
        trainer.save(path)
        with pytest.raises(CheckpointError, match="it holds a trainer, and no run of fit"):
            trainer.fit((X, Y), checkpoint=path)
        trainer.save(path, extra={"fit": '{"version": 9}'})
        with pytest.raises(CheckpointError, match="its run is of version 9; version 1 is needed"):
            trainer.fit((X, Y), checkpoint=path)
        trainer.save(path, extra={"fit": "[]"})
        with pytest.raises(CheckpointError, match="of version something else"):
            trainer.fit((X, Y), checkpoint=path)


class _Interrupting(Recorder):
    """Presses Ctrl-C in the step that follows one."""

    def on_step(self, status: Status) -> None:
        super().on_step(status)
        if status.step == 6:
            signal.raise_signal(signal.SIGINT)


def test_interruption_saves(tmp_path: Path) -> None:
    """Ctrl-C ends the run after the step, saved; the handler is the one before; it resumes."""
    before = signal.getsignal(signal.SIGINT)
    expected = Recorder()
    with classifier() as trainer:
        trainer.fit((X, Y), epochs=3, callbacks=[expected])
    first, rest = _Interrupting(), Recorder()
    path = tmp_path / "run.ckpt"
    with classifier() as trainer:
        with pytest.raises(pe.Interrupted, match=f"after step 6, in epoch 2; {path}") as caught:
            trainer.fit((X, Y), epochs=3, callbacks=[first], checkpoint=path)
        assert len(caught.value.history.rows) == 1
        assert isinstance(caught.value, KeyboardInterrupt)
    assert signal.getsignal(signal.SIGINT) is before
    with classifier() as trainer:
        trainer.fit((X, Y), epochs=3, callbacks=[rest], checkpoint=path)
    assert list(first.losses) == [1, 2, 3, 4, 5, 6]
    assert first.losses | rest.losses == expected.losses


def test_interruption_in_validation(tmp_path: Path) -> None:
    """Validation is broken off and done again after resuming; the rows are the same."""
    path = tmp_path / "run.ckpt"
    x, y = VALIDATION

    def batches(interrupt: bool) -> Iterator[Any]:
        yield x[:4], y[:4]
        if interrupt:
            signal.raise_signal(signal.SIGINT)
        yield x[4:], y[4:]

    class Twice:
        def __init__(self, interrupt: bool) -> None:
            self.interrupt = interrupt

        def __iter__(self) -> Iterator[Any]:
            return batches(self.interrupt)

    with classifier() as trainer:
        wanted = trainer.fit((X, Y), validation=Twice(False))
    message = "after step 5, in epoch 1"
    with classifier() as trainer, pytest.raises(pe.Interrupted, match=message):
        trainer.fit((X, Y), validation=Twice(True), checkpoint=path)
    with classifier() as trainer:
        history = trainer.fit((X, Y), validation=Twice(False), checkpoint=path)
    assert _exact(history) == _exact(wanted)


def test_interruption_of_the_last_save() -> None:
    """Ctrl-C is never swallowed, not even in the last moment; without a file it says so."""

    class Late(pe.Callback):
        def on_epoch(self, _status: Status) -> None:
            signal.raise_signal(signal.SIGINT)

    with classifier() as trainer, pytest.raises(pe.Interrupted, match="nothing is saved"):
        trainer.fit((X, Y), callbacks=[Late()])


def test_second_interruption() -> None:
    """A second Ctrl-C does not wait for the step to end."""

    def twice(_status: Status) -> None:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        pytest.fail("went on")

    with classifier() as trainer, pytest.raises(KeyboardInterrupt) as caught:
        trainer.fit((X, Y), callbacks=[twice])
    assert type(caught.value) is KeyboardInterrupt


def test_ignored_interruption() -> None:
    """Where SIGINT is ignored (nohup), it stays so."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with classifier() as trainer:
            rows = trainer.fit((X, Y), callbacks=[_Interrupting()], epochs=2).rows
        assert len(rows) == 2
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def _child(folder: Path, *more: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(CHILD), str(folder), *more],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, "PYTHONPATH": str(Path(pe.__file__).parents[1])},
    )


def _losses(output: str) -> dict[str, str]:
    lines = (line.split() for line in output.splitlines())
    return {words[1]: words[2] for words in lines if words[:1] == ["step"]}


@pytest.mark.slow
def test_killed_and_interrupted(tmp_path: Path) -> None:
    """SIGKILL, then Ctrl-C, then the rest: all losses are those of a run left alone, exactly.

    As in a terminal, Ctrl-C reaches the loader's workers, too.
    """
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    whole.mkdir()
    broken.mkdir()
    expected = _losses(_child(whole).communicate(timeout=200)[0])
    found: dict[str, str] = {}
    for kill, after in ((signal.SIGKILL, 10), (signal.SIGINT, 20)):
        child = _child(broken, "slowly")
        assert child.stdout is not None
        said = ""
        for line in child.stdout:
            said += line
            if line.startswith(f"step {after} "):
                os.killpg(child.pid, kill)
                break
        said += child.communicate(timeout=200)[0]
        assert child.returncode in (-kill, 130, 1)
        found |= _losses(said)
    child = _child(broken)
    found |= _losses(child.communicate(timeout=200)[0])
    assert child.returncode == 0
    assert len(expected) == 40
    assert found == expected
