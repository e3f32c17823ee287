"""Where a run is, as a checkpoint keeps it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pockengine.errors import CheckpointError
from pockengine.fit.callbacks import Callbacks
from pockengine.fit.history import History
from pockengine.fit.trainable import Trainable
from pockengine.resume import Checkpoint

KEY = "fit"
_VERSION = 1


@dataclass(slots=True, kw_only=True)
class Position:
    """How far a run has come.

    Attributes:
        epoch: the one under way, from 1; one more than there are when all are done.
        batch: batches of it that were taken.
        step: steps in all epochs.
        loss: sum over the epoch's samples of their batches' losses.
        samples: of the epoch.
        seconds: of the epoch.
    """

    epoch: int = 1
    batch: int = 0
    step: int = 0
    loss: float = 0.0
    samples: int = 0
    seconds: float = 0.0

    def next_epoch(self) -> None:
        """The epoch is done."""
        self.epoch += 1
        self.batch = self.samples = 0
        self.loss = self.seconds = 0.0


def write(
    trainer: Trainable,
    path: str | Path,
    position: Position,
    history: History,
    callbacks: Callbacks,
    order: Mapping[str, Any],
) -> None:
    """Save the trainer together with where the run is.

    Args:
        trainer: what is trained.
        path: the file.
        position: how far it has come.
        history: so far.
        callbacks: have state.
        order: what the order of the batches depends on.

    Raises:
        CheckpointError: the file cannot be written.
    """
    told = {
        "version": _VERSION,
        "position": asdict(position),
        "history": history.to_json(),
        "callbacks": callbacks.state(),
        "order": dict(order),
    }
    trainer.save(path, extra={KEY: json.dumps(told)})


def read(
    trainer: Trainable, path: str | Path, callbacks: Callbacks, order: Mapping[str, Any]
) -> tuple[Position, History]:
    """Load the trainer and say where its run was.

    Raises:
        CheckpointError: the file is not whole, belongs to something else, was not written by
            ``fit``, or ends in the middle of an epoch of other batches. Nothing was changed.
    """
    extra = Checkpoint.read(path).extra
    if KEY not in extra:
        raise _unfit(
            path,
            "it holds a trainer, and no run of fit",
            "a checkpoint that fit wrote",
            "Nothing was changed; take it over by trainer.load and name another file, or pass "
            "resume=False",
        )
    position, history, states, before = _parsed(path, extra[KEY])
    if position.batch and before != dict(order):
        raise _unfit(
            path,
            f"it ends in the middle of an epoch of {_told(before, order)}",
            f"the same batches, and these are of {_told(order, before)}",
            "Nothing was changed; pass the same data and settings, or resume=False",
        )
    trainer.load(path)
    callbacks.restore(states)
    return position, history


def _parsed(path: str | Path, text: str) -> tuple[Position, History, Any, Mapping[str, Any]]:
    found: object = None
    try:
        told = json.loads(text)
        if (found := told["version"]) == _VERSION:
            history = History.from_json(told["history"])
            return Position(**told["position"]), history, told["callbacks"], told["order"]
    except (KeyError, TypeError, ValueError):
        found = "something else"
    raise _unfit(
        path,
        f"its run is of version {found}",
        f"version {_VERSION} is needed",
        "Use the PockEngine that wrote it, or resume=False",
    )


def _told(one: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    differing = {name: value for name, value in one.items() if other.get(name) != value}
    return ", ".join(f"{name}={value}" for name, value in differing.items()) or "another kind"


def _unfit(path: str | Path, found: str, needed: str, remedy: str) -> CheckpointError:
    return CheckpointError(where=str(path), found=found, needed=needed, remedy=remedy)
