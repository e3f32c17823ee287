"""What looks on while a run trains, and may end it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import inf, isnan
from pathlib import Path
from typing import Any, Literal, TypeAlias

from pockengine.checks import is_whole
from pockengine.errors import InputError
from pockengine.fit.history import History, smaller_is_better
from pockengine.fit.trainable import Trainable

Mode: TypeAlias = Literal["min", "max"]


@dataclass(slots=True, kw_only=True)
class Status:
    """Where a run is. One object for all of it, which changes.

    Attributes:
        trainer: what is trained.
        history: the rows so far.
        epochs: how many are wanted.
        epoch: the one under way, from 1.
        step: how many steps are done, in all epochs.
        loss: of the last step.
        lr: of the last step.
        samples: in the last step's batch.
        stopping: whether the run was asked to end.
    """

    trainer: Trainable
    history: History
    epochs: int
    epoch: int = 1
    step: int = 0
    loss: float = float("nan")
    lr: float = float("nan")
    samples: int = 0
    stopping: bool = False

    @property
    def row(self) -> dict[str, Any]:
        """The row of the last epoch that ended."""
        return self.history.rows[-1]

    def stop(self) -> None:
        """End the run: the epoch under way ends with this step, validation included."""
        self.stopping = True


class Callback:
    """Looks on; override what is needed. To return True, or ``status.stop()``, ends the run.

    ``state`` and ``restore`` carry what has to outlast an interruption through the checkpoint.
    """

    def on_step(self, status: Status) -> bool | None:
        """After each step."""

    def on_epoch(self, status: Status) -> bool | None:
        """After each epoch, when ``status.row`` holds its metrics; ahead of its checkpoint."""

    def on_end(self, status: Status) -> None:
        """After the last epoch; not after an error or Ctrl-C."""

    def state(self) -> dict[str, Any]:
        """What to keep, as JSON can hold it."""
        return {}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take over what ``state`` gave."""


AnyCallback: TypeAlias = Callback | Callable[[Status], object]
"""A plain callable is called after each step."""


class _Best(Callback):
    """Follows the best value of a column.

    Args:
        metric: a column of the history.
        mode: "min" or "max"; None for "min" of losses and perplexity, else "max".
        min_delta: a value has to be better by more than this.
    """

    def __init__(self, metric: str, mode: Mode | None, min_delta: float) -> None:
        if mode not in ("min", "max", None):
            raise InputError(
                where=f"{type(self).__name__}(mode)",
                found=repr(mode),
                needed='"min", "max" or None',
                remedy="Leave it out to go by the metric's name",
            )
        self.metric = metric
        self.sign = (
            1.0 if (mode or ("min" if smaller_is_better(metric) else "max")) == "min" else -1.0
        )
        self.min_delta = min_delta
        self.best: float | None = None

    def improved(self, status: Status) -> bool:
        """Whether the last epoch was the best."""
        found = status.row.get(self.metric)
        if not isinstance(found, (int, float)):
            numbers = [k for k, v in status.row.items() if isinstance(v, (int, float))]
            raise InputError(
                where=f"{type(self).__name__}(metric={self.metric!r})",
                found=f"the history has {', '.join(numbers)}",
                needed="a column of the history",
                remedy="Name one of these, or pass validation=... and metrics=...",
            )
        best = inf if self.best is None else self.sign * self.best
        if isnan(found) or self.sign * found >= best - self.min_delta:
            return False
        self.best = float(found)
        return True

    def state(self) -> dict[str, Any]:
        """The best value."""
        return {"best": self.best}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from the best value."""
        self.best = state["best"]


class EarlyStopping(_Best):
    """Ends a run when a metric has not become better for some epochs.

    Args:
        patience: how many epochs in a row may be no better than the best.
        metric: a column of the history.
        mode: "min" or "max"; None for "min" of losses and perplexity, else "max".
        min_delta: what counts as better.

    Raises:
        InputError: an argument is none of these; in the first epoch, there is no such column.
    """

    def __init__(
        self,
        patience: int = 3,
        metric: str = "val_loss",
        mode: Mode | None = None,
        min_delta: float = 0.0,
    ) -> None:
        super().__init__(metric, mode, min_delta)
        if not is_whole(patience) or patience < 1:
            raise InputError(
                where="EarlyStopping(patience)",
                found=repr(patience),
                needed="a whole number of at least 1",
                remedy="It counts epochs",
            )
        self.patience = patience
        self.waited = 0

    def on_epoch(self, status: Status) -> bool:
        """Count."""
        self.waited = 0 if self.improved(status) else self.waited + 1
        return self.waited >= self.patience

    def state(self) -> dict[str, Any]:
        """The best value and the epochs since."""
        return {**super().state(), "waited": self.waited}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on counting."""
        super().restore(state)
        self.waited = state["waited"]


class BestCheckpoint(_Best):
    """Saves the trainer after each epoch that is the best so far; ``Trainer.load`` reads it.

    Args:
        path: the file.
        metric: a column of the history.
        mode: "min" or "max"; None for "min" of losses and perplexity, else "max".

    Raises:
        InputError: as ``EarlyStopping``.
    """

    def __init__(
        self, path: str | Path, metric: str = "val_loss", mode: Mode | None = None
    ) -> None:
        super().__init__(metric, mode, 0.0)
        self.path = path

    def on_epoch(self, status: Status) -> None:
        """Save."""
        if self.improved(status):
            status.trainer.save(self.path)


class Callbacks:
    """All of a run's callbacks.

    Args:
        callbacks: callables, or what has any of ``Callback``'s methods.

    Raises:
        InputError: one that is neither.
    """

    def __init__(self, callbacks: Sequence[AnyCallback]) -> None:
        self._all = list(callbacks)
        for each in self._all:
            if not callable(each) and not any(_named(each, name) for name in _EVENTS):
                raise InputError(
                    where="fit(callbacks=...)",
                    found=repr(each),
                    needed=f"a callable, or an object with {', '.join(_EVENTS)}",
                    remedy="Derive from pockengine.Callback",
                )
        self._on_step = [call for each in self._all if (call := _on_step(each)) is not None]

    def on_step(self, status: Status) -> None:
        """Tell those that want to know of steps."""
        _tell(self._on_step, status)

    def on_epoch(self, status: Status) -> None:
        """Tell those that want to know of epochs."""
        _tell(self._of("on_epoch"), status)

    def on_end(self, status: Status) -> None:
        """Tell those that want to know of the end."""
        for call in self._of("on_end"):
            call(status)

    def _of(self, event: str) -> list[Callable[[Status], object]]:
        return [call for each in self._all if (call := _named(each, event))]

    def names(self) -> list[str]:
        """What each is called, as ``History.stopped`` says it."""
        return [_name(each) for each in self._all]

    def state(self) -> list[Any]:
        """(name, state) of each."""
        states = [call() if (call := _named(each, "state")) else {} for each in self._all]
        return list(zip(self.names(), states, strict=True))

    def restore(self, states: Sequence[Any]) -> None:
        """Hand each its state: the first of a name that is left over; others begin anew."""
        rest = list(states)
        for each, name in zip(self._all, self.names(), strict=True):
            place = next((i for i, (found, _) in enumerate(rest) if found == name), None)
            restore = _named(each, "restore")
            if place is not None:
                _, state = rest.pop(place)
                if restore is not None and state:
                    restore(state)


_EVENTS = ("on_step", "on_epoch", "on_end")


def _tell(calls: Sequence[Callable[[Status], object]], status: Status) -> None:
    for call in calls:
        if call(status) is True:
            status.stop()
        if status.stopping and not status.history.stopped:
            status.history.stopped = _name(getattr(call, "__self__", call))


def _named(callback: object, name: str) -> Callable[..., Any] | None:
    found = getattr(callback, name, None)
    return found if callable(found) else None


def _on_step(callback: Any) -> Callable[[Status], object] | None:
    """What to call after steps; a ``Callback`` that does not override it needs no call."""
    found = _named(callback, "on_step")
    if found is not None:
        return None if getattr(found, "__func__", found) is Callback.on_step else found
    return None if any(_named(callback, name) for name in _EVENTS) else callback


def _name(callback: object) -> str:
    return str(getattr(callback, "__name__", type(callback).__name__))
