"""The loop: epochs of steps, validation, callbacks, checkpoints, and an end that can wait."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pockengine.checks import is_number, is_whole
from pockengine.errors import InputError, PockEngineError
from pockengine.fit.bar import Bar
from pockengine.fit.callbacks import AnyCallback, Callbacks, Status
from pockengine.fit.data import Batches, Pair, Source, gives_batches, source
from pockengine.fit.history import History
from pockengine.fit.interrupt import Interrupted, Request, interruptible
from pockengine.fit.layout import Layout, samples
from pockengine.fit.measure import Stopped, left_out, measure, no_batch
from pockengine.fit.metrics import Meter, Metric, check_metrics
from pockengine.fit.position import Position, read, write
from pockengine.fit.trainable import Trainable
from pockengine.schedules import Schedule, constant


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The arguments of ``Trainer.fit`` besides the data."""

    epochs: int
    lr: float | Schedule
    batch_size: int | None
    shuffle: bool
    seed: int
    metrics: Sequence[Metric] | None
    callbacks: Sequence[AnyCallback]
    checkpoint: str | Path | None
    save_every: int | None
    resume: bool
    progress: bool | None


def fit(trainer: Trainable, train: Any, validation: Any, settings: Settings) -> History:
    """Train; ``Trainer.fit`` says the rest."""
    _check(settings)
    run = _Run(trainer, train, validation, settings)
    if settings.checkpoint is not None and settings.resume and Path(settings.checkpoint).exists():
        run.resume()
    with interruptible() as request:
        return run.train(request)


class _Run:
    """One call of ``fit``."""

    def __init__(self, trainer: Trainable, train: Any, validation: Any, wanted: Settings) -> None:
        self._trainer, self._wanted = trainer, wanted
        self._layout = layout = Layout.of(trainer.program)
        size, seed = wanted.batch_size, wanted.seed
        self._data = source(
            train, layout, name="train", batch_size=size, shuffle=wanted.shuffle, seed=seed
        )
        self._validation: Source | None = None
        if validation is not None:
            size = None if gives_batches(validation) else size
            self._validation = source(
                validation, layout, name="validation", batch_size=size, shuffle=False, seed=seed
            )
        self._callbacks = Callbacks(wanted.callbacks)
        self._rate = wanted.lr if callable(wanted.lr) else constant(wanted.lr)
        self._position, self._history = Position(), History()
        self._request = Request()
        self._status = Status(trainer=trainer, history=self._history, epochs=wanted.epochs)
        self._bar = Bar(False, None, 0, 0)
        self._clock = 0.0

    def resume(self) -> None:
        """Go on where the checkpoint is."""
        path = self._wanted.checkpoint
        assert path is not None
        read_from = read(self._trainer, path, self._callbacks, self._data.order)
        self._position, self._history = read_from
        self._status.history = self._history
        if self._position.step:
            self._status.lr = self._rate(self._position.step - 1)
        if self._history.stopped not in self._callbacks.names():
            self._history.stopped = ""

    def train(self, request: Request) -> History:
        """All epochs that are left."""
        self._request = request
        wanted, position = self._wanted, self._position
        if position.epoch > wanted.epochs or self._history.stopped:
            return self._history
        self._bar = Bar(wanted.progress, self._data.length, position.step, wanted.epochs)
        try:
            while position.epoch <= wanted.epochs and not self._history.stopped:
                self._epoch()
            self._heed()
        except Stopped:
            raise self._interrupted() from None
        finally:
            self._bar.close()
        self._callbacks.on_end(self._status)
        return self._history

    def _epoch(self) -> None:
        position, status = self._position, self._status
        status.epoch, status.step = position.epoch, position.step
        self._clock = time.perf_counter()
        batches = self._data.epoch(position.epoch, position.batch)
        try:
            while (batch := self._next(batches)) is not None:
                if not self._step(batch, batches):
                    break
        finally:
            batches.close()  # ends a loader's workers
        if position.batch == 0:
            raise no_batch("train")
        if self._trainer.accumulated:
            self._trainer.apply(lr=status.lr)
        self._history.rows.append(self._row(self._validated()))
        self._callbacks.on_epoch(status)
        self._bar.epoch(status)
        position.next_epoch()
        self._save()

    def _next(self, batches: Batches) -> Pair | None:
        """The next batch, unless the run was interrupted, which a loader's workers notice too."""
        self._heed()
        try:
            batch = next(batches, None)
        except Exception:
            self._heed()
            raise
        self._heed()
        return batch

    def _heed(self) -> None:
        if self._request.made:
            raise Stopped

    def _step(self, batch: Pair, rest: Batches) -> bool:
        """One step; false if it was the epoch's last."""
        position, status = self._position, self._status
        rate = self._rate(position.step)
        try:
            loss = self._trainer.step(*batch, lr=rate)
        except PockEngineError as error:
            epoch = f" of epoch {position.epoch}"
            left_out(error, batch, self._layout, rest, "train", position.batch, epoch)
            return False
        count = samples(batch[0])
        position.batch += 1
        position.step += 1
        position.loss += loss * count
        position.samples += count
        self._history.curve.add(loss)
        status.step, status.loss, status.lr, status.samples = position.step, loss, rate, count
        self._callbacks.on_step(status)
        self._bar.step(status)
        now = time.perf_counter()
        position.seconds += now - self._clock
        self._clock = now
        if status.stopping:  # the epoch's end is saved, with its row
            return False
        every = self._wanted.save_every
        if every is not None and position.step % every == 0:
            self._save()
        return True

    def _validated(self) -> dict[str, Any]:
        if self._validation is None:
            return {}
        meter = Meter(self._wanted.metrics, self._trainer.program.loss)
        found = measure(
            self._trainer,
            self._validation,
            self._layout,
            meter,
            name="validation",
            stop=lambda: self._request.made,
        )
        return {f"val_{name}": _plain(value) for name, value in found.items()}

    def _row(self, validation: dict[str, Any]) -> dict[str, Any]:
        position = self._position
        return {
            "epoch": position.epoch,
            "step": position.step,
            "loss": position.loss / max(position.samples, 1),
            "lr": float(self._status.lr),
            **validation,
            "seconds": position.seconds,
            "samples_per_s": position.samples / max(position.seconds, 1e-9),
        }

    def _save(self) -> None:
        path = self._wanted.checkpoint
        if path is not None:
            order = self._data.order
            write(self._trainer, path, self._position, self._history, self._callbacks, order)

    def _interrupted(self) -> Interrupted:
        if self._position.batch:  # an epoch that a callback ended has no row yet: it goes on
            self._history.stopped = ""
        self._save()
        path = self._wanted.checkpoint
        kept = "nothing is saved" if path is None else f"{path} goes on from there"
        position = self._position
        return Interrupted(
            f"stopped after step {position.step}, in epoch {position.epoch}; {kept}", self._history
        )


def _plain(value: Any) -> Any:
    """As JSON holds it."""
    return value.tolist() if isinstance(value, np.ndarray) else value


def _check(wanted: Settings) -> None:
    """Raise InputError for an argument that cannot be."""
    check_metrics(wanted.metrics)
    if not is_whole(wanted.epochs) or wanted.epochs < 1:
        raise _bad("epochs", wanted.epochs, "a whole number of at least 1")
    if not callable(wanted.lr) and not is_number(wanted.lr):
        raise _bad("lr", wanted.lr, "a finite number, or a schedule: a callable of the step")
    if not is_whole(wanted.seed) or wanted.seed < 0:
        raise _bad("seed", wanted.seed, "a whole number of at least 0")
    path = wanted.checkpoint
    if path is not None and not Path(path).absolute().parent.is_dir():
        raise _bad("checkpoint", str(path), "a file in a folder that is there")
    if wanted.save_every is None:
        return
    if not is_whole(wanted.save_every) or wanted.save_every < 1:
        raise _bad("save_every", wanted.save_every, "a whole number of steps, at least 1")
    if path is None:
        raise _bad("save_every", wanted.save_every, "a file to save to: checkpoint=...")


def _bad(name: str, found: object, needed: str) -> InputError:
    return InputError(
        where=f"fit({name}=...)", found=repr(found), needed=needed, remedy="See Trainer.fit"
    )
