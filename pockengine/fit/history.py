"""What happened in a run: a row for each epoch, and the curve of the training loss."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from tabulate import tabulate

from pockengine.errors import InputError

_POINTS = 512  # of a curve at most: enough for a picture, and little in a checkpoint
_LOSSES = ("loss", "perplexity")


class Curve:
    """Means of a series over windows that double whenever there are too many: bounded memory."""

    def __init__(self) -> None:
        self.window = 1
        self.means: list[float] = []
        self._sum, self._count = 0.0, 0

    def add(self, value: float) -> None:
        """The next value."""
        self._sum += value
        self._count += 1
        if self._count < self.window:
            return
        self.means.append(self._sum / self.window)
        self._sum, self._count = 0.0, 0
        if len(self.means) == _POINTS:
            pairs = zip(self.means[::2], self.means[1::2], strict=True)
            self.means = [(first + second) / 2 for first, second in pairs]
            self.window *= 2

    def points(self) -> tuple[list[float], list[float]]:
        """Steps (the middle of each window) and mean losses."""
        steps = [(index + 0.5) * self.window + 0.5 for index in range(len(self.means))]
        return steps, self.means

    def as_dict(self) -> dict[str, Any]:
        """All of it, for JSON."""
        pending = [self._sum, self._count]
        return {"window": self.window, "means": self.means, "pending": pending}

    @classmethod
    def from_dict(cls, found: Mapping[str, Any]) -> Self:
        """What ``as_dict`` gave."""
        made = cls()
        made.window, made.means = found["window"], list(found["means"])
        made._sum, made._count = found["pending"]
        return made


class History:
    """A run of ``fit``.

    Attributes:
        rows: one for each epoch: ``epoch`` (from 1), ``step`` (steps so far), ``loss`` (the mean of
            the steps, weighted by samples), ``lr`` (of the last step), the metrics of the
            validation as ``val_...``, ``seconds`` of training, and ``samples_per_s``.
        curve: the training loss in up to 512 points.
        stopped: the name of the callback that ended the run, or "".
    """

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []
        self.curve = Curve()
        self.stopped = ""

    def __str__(self) -> str:
        return self.table()

    def table(self) -> str:
        """The rows as text; what is no single number is left out."""
        rows = [{k: v for k, v in row.items() if not isinstance(v, list)} for row in self.rows]
        return tabulate(rows, headers="keys", floatfmt=".4g")

    def plot(self, path: str | Path) -> None:
        """Draw losses and the other metrics over the steps.

        Args:
            path: of a PNG, SVG or PDF file, by its ending.

        Raises:
            InputError: the file cannot be written, or its ending is none of these.
        """
        from matplotlib.figure import Figure  # noqa: PLC0415 - slow to import

        names = [name for name in _metrics(self.rows) if not _is_loss(name)]
        figure = Figure(figsize=(7, 7 if names else 4), layout="constrained")
        axes = figure.subplots(2 if names else 1, squeeze=False, sharex=True)[:, 0]
        axes[0].plot(*self.curve.points(), label="loss", color="0.6", linewidth=1)
        self._draw(axes[0], [n for n in _metrics(self.rows) if n == "val_loss"])
        axes[0].set(ylabel="loss")
        if names:
            self._draw(axes[1], names)
        axes[-1].set(xlabel="step")
        try:
            figure.savefig(path, dpi=120)
        except (OSError, ValueError) as error:
            raise InputError(
                where=f"plot({str(path)!r})",
                found=str(error),
                needed="a place that can be written, with the ending .png, .svg or .pdf",
                remedy="Name another file",
            ) from error

    def _draw(self, axes: Any, names: Sequence[str]) -> None:
        for name in names:
            rows = [row for row in self.rows if isinstance(row.get(name), (int, float))]
            axes.plot([r["step"] for r in rows], [r[name] for r in rows], marker=".", label=name)
        axes.legend()

    def to_json(self) -> str:
        """All of it as text."""
        return json.dumps(
            {"rows": self.rows, "curve": self.curve.as_dict(), "stopped": self.stopped}
        )

    @classmethod
    def from_json(cls, text: str) -> Self:
        """What ``to_json`` gave.

        Raises:
            InputError: it is no history.
        """
        made = cls()
        try:
            found = json.loads(text)
            made.rows, made.stopped = list(found["rows"]), str(found["stopped"])
            made.curve = Curve.from_dict(found["curve"])
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(
                where="History.from_json",
                found=f"{type(error).__name__}: {error}",
                needed="what History.to_json wrote",
                remedy="Pass its text unchanged",
            ) from error
        return made


def _metrics(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Names of the single numbers that validation gave, in their order."""
    found = {name: None for row in rows for name, value in row.items() if _is_metric(name, value)}
    return list(found)


def _is_metric(name: str, value: object) -> bool:
    return name.startswith("val_") and isinstance(value, (int, float))


def _is_loss(name: str) -> bool:
    return name == "val_loss"


def smaller_is_better(name: str) -> bool:
    """Whether a row's column is a loss or comes from one."""
    return name.removeprefix("val_") in _LOSSES
