"""The trials of profiles, a row each in SQLite: what is in it need not be run again."""

from __future__ import annotations

import json
import platform
import sqlite3
from contextlib import closing
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Self

import numpy as np

from pockengine.contribution.choice import Choice
from pockengine.contribution.trial import Outcome
from pockengine.errors import InputError

_TABLE = """
CREATE TABLE IF NOT EXISTS trials (
    study TEXT NOT NULL, candidate TEXT NOT NULL, seed INTEGER NOT NULL, steps INTEGER NOT NULL,
    choice TEXT NOT NULL, settings TEXT NOT NULL, curve TEXT NOT NULL, correct BLOB NOT NULL,
    diverged INTEGER NOT NULL, seconds REAL NOT NULL, finished TEXT NOT NULL,
    versions TEXT NOT NULL,
    PRIMARY KEY (study, candidate, seed, steps)
);
CREATE TABLE IF NOT EXISTS notes (
    study TEXT NOT NULL, name TEXT NOT NULL, content TEXT NOT NULL, PRIMARY KEY (study, name)
)
"""
_BUSY_S = 60.0


class Store:
    """Rows by study, candidate, seed and number of steps. A context manager.

    Args:
        path: the database; made where it is missing.

    Raises:
        InputError: it cannot be opened, or is something else.
    """

    def __init__(self, path: Path) -> None:
        try:
            self._database = sqlite3.connect(path, timeout=_BUSY_S)
            with self._database:
                self._database.executescript(_TABLE)
        except sqlite3.Error as error:
            raise InputError(
                where=str(path),
                found=f"no database of trials ({error})",
                needed="a file that profile wrote, or no such file",
                remedy="Choose another folder",
            ) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._database.close()

    def outcomes(self, study: str) -> dict[tuple[str, int, int], Outcome]:
        """All that a study has, by (candidate, seed, steps)."""
        with closing(
            self._database.execute(
                "SELECT candidate, seed, steps, curve, correct, seconds, diverged FROM trials"
                " WHERE study = ?",
                (study,),
            )
        ) as rows:
            return {(row[0], row[1], row[2]): _outcome(row) for row in rows}

    def add(
        self, study: str, candidate: str, choice: Choice, settings: str, outcome: Outcome
    ) -> None:
        """Keep an outcome; it outlasts this process once this returns."""
        row = (
            study,
            candidate,
            outcome.seed,
            outcome.curve[-1][0],
            json.dumps({"biases": choice.biases, "weights": list(choice.weights.items())}),
            settings,
            json.dumps(outcome.curve),
            outcome.correct.tobytes(),
            outcome.diverged,
            outcome.seconds,
            datetime.now(UTC).isoformat(timespec="seconds"),
            _versions(),
        )
        with self._database:
            self._database.execute(
                f"INSERT OR REPLACE INTO trials VALUES ({', '.join('?' * len(row))})",  # noqa: S608
                row,
            )

    def note(self, study: str, name: str) -> Any:
        """What was noted of a study by a name; None where nothing was."""
        found = self._database.execute(
            "SELECT content FROM notes WHERE study = ? AND name = ?", (study, name)
        ).fetchone()
        return None if found is None else json.loads(found[0])

    def add_note(self, study: str, name: str, content: Any) -> None:
        """Keep plain values of a study by a name."""
        with self._database:
            self._database.execute(
                "INSERT OR REPLACE INTO notes VALUES (?, ?, ?)", (study, name, json.dumps(content))
            )


def _outcome(row: tuple[Any, ...]) -> Outcome:
    _, seed, _, curve, correct, seconds, diverged = row
    return Outcome(
        seed=seed,
        curve=tuple((step, accuracy) for step, accuracy in json.loads(curve)),
        correct=np.frombuffer(correct, np.float32),
        seconds=seconds,
        diverged=bool(diverged),
    )


def _versions() -> str:
    found = {name: version(name) for name in ("torch", "apache-tvm", "numpy")}
    return json.dumps({"python": platform.python_version(), **found})
