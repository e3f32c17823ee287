"""The errors a user can meet: each says where, what was found, what was needed and what to do."""

from __future__ import annotations

from pathlib import Path


class PockEngineError(Exception):
    """Base of all errors raised on purpose.

    The message is one line: ``where: found; needed. remedy``.

    Args:
        where: the place a user knows (an argument, a file, a module path).
        found: what is there.
        needed: what has to be there instead.
        remedy: what to do about it.
    """

    def __init__(self, *, where: str, found: str, needed: str, remedy: str) -> None:
        self.where = where
        self.found = found
        self.needed = needed
        self.remedy = remedy
        super().__init__(f"{where}: {found}; {needed}. {remedy}")

    def __reduce__(self) -> tuple[object, ...]:
        """Rebuild from keywords, so that errors cross process boundaries."""
        return _rebuild, (type(self), self.where, self.found, self.needed, self.remedy)


def _rebuild(
    kind: type[PockEngineError], where: str, found: str, needed: str, remedy: str
) -> PockEngineError:
    return kind(where=where, found=found, needed=needed, remedy=remedy)


class CaptureError(PockEngineError):
    """The model cannot be turned into a graph of known ops."""


class SchemeError(PockEngineError):
    """The scheme does not fit the model, or updates nothing."""


class InputError(PockEngineError, ValueError):
    """An argument, a batch or a label is not what the trainer was compiled for."""


class PlanError(PockEngineError):
    """The memory plan is wrong or does not fit the device."""


class BuildError(PockEngineError):
    """A kernel or the runtime could not be built for the target."""


class TrainError(PockEngineError):
    """The step failed (a loss that is not finite, a torn trainer)."""


class CheckpointError(PockEngineError):
    """A checkpoint is corrupt, truncated or belongs to something else."""


class PayloadError(PockEngineError):
    """A model or data set that is fetched on demand could not be had."""


def unwritable(kind: type[PockEngineError], path: str | Path, error: OSError) -> PockEngineError:
    """The error of a kind that says why a file cannot be written."""
    return kind(
        where=str(path),
        found=f"it cannot be written ({error.strerror})",
        needed="a folder that exists and may be written to",
        remedy="Make the folder, or choose another place",
    )
