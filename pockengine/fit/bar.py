"""The progress bar: one line for the whole run."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from pockengine.fit.callbacks import Status
from pockengine.watched import is_watched

_EVERY_S = 0.1
_FORMAT = "{desc}: {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}{postfix}]"


class Bar:
    """Shows epoch, steps, loss, the last validation, samples a second and the time left.

    Args:
        shown: whether to; None if errors go to a terminal or a notebook.
        steps: in each epoch, if that is known.
        done: steps that were done before.
        epochs: how many are wanted.
    """

    def __init__(self, shown: bool | None, steps: int | None, done: int, epochs: int) -> None:
        self._bar: Any = None
        if is_watched() if shown is None else shown:
            from tqdm import tqdm  # noqa: PLC0415 - only where it is seen

            quiet = type("Bar", (tqdm,), {"monitor_interval": 0})  # a thread less
            total = None if steps is None else steps * epochs
            form = None if total is None else _FORMAT
            self._bar = quiet(total=total, initial=done, mininterval=_EVERY_S, bar_format=form)
        self._due = 0.0
        self._samples = 0
        self._since = time.perf_counter()
        self._validation: Mapping[str, Any] = {}

    def step(self, status: Status) -> None:
        """A step was done."""
        if self._bar is None:
            return
        self._samples += status.samples
        self._bar.update()
        now = time.perf_counter()
        if now >= self._due:
            self._due = now + _EVERY_S
            self._tell(status, self._samples / max(now - self._since, 1e-9))

    def epoch(self, status: Status) -> None:
        """An epoch has ended, with its row."""
        self._validation = {
            name: value
            for name, value in status.row.items()
            if name.startswith("val_") and isinstance(value, (int, float))
        }
        if self._bar is not None:
            self._tell(status, status.row["samples_per_s"])

    def _tell(self, status: Status, samples_per_s: float) -> None:
        self._bar.set_description_str(f"epoch {status.epoch}/{status.epochs}", refresh=False)
        told = {"loss": f"{status.loss:.4g}"}
        told |= {name: f"{value:.4g}" for name, value in self._validation.items()}
        self._bar.set_postfix({**told, "samples/s": f"{samples_per_s:.0f}"}, refresh=False)

    def close(self) -> None:
        """Leave the line as it is."""
        if self._bar is not None:
            self._bar.close()
