"""PockEngine: compile a PyTorch model and a scheme of its parameters into a native trainer.

The public names load what they need when they are first used: importing this costs nothing.
"""

from __future__ import annotations

import contextlib
import gc
import sys
from collections.abc import Iterator
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pockengine import schedules as schedules
    from pockengine.compile import compile as compile  # noqa: A004 - the product's name for it
    from pockengine.contribution.profile import profile as profile
    from pockengine.fit.callbacks import BestCheckpoint as BestCheckpoint
    from pockengine.fit.callbacks import Callback as Callback
    from pockengine.fit.callbacks import EarlyStopping as EarlyStopping
    from pockengine.fit.history import History as History
    from pockengine.fit.interrupt import Interrupted as Interrupted
    from pockengine.frontend.shapes import Shape as Shape
    from pockengine.frontend.shapes import resized as resized
    from pockengine.heads import replace_head as replace_head
    from pockengine.modes import Accumulate as Accumulate
    from pockengine.modes import Clip as Clip
    from pockengine.optimizer import SGD as SGD
    from pockengine.optimizer import Adagrad as Adagrad
    from pockengine.optimizer import Adam as Adam
    from pockengine.optimizer import AdamW as AdamW
    from pockengine.optimizer import Lion as Lion
    from pockengine.optimizer import ParamGroup as ParamGroup
    from pockengine.optimizer import RMSprop as RMSprop
    from pockengine.resume import Checkpoint as Checkpoint
    from pockengine.scheme import Scheme as Scheme
    from pockengine.trainer import Trainer as Trainer

_HOME = {
    "compile": "pockengine.compile",
    **dict.fromkeys(
        ("SGD", "Adagrad", "Adam", "AdamW", "Lion", "ParamGroup", "RMSprop"),
        "pockengine.optimizer",
    ),
    **dict.fromkeys(("Accumulate", "Clip"), "pockengine.modes"),
    **dict.fromkeys(("Shape", "resized"), "pockengine.frontend.shapes"),
    "Checkpoint": "pockengine.resume",
    **dict.fromkeys(("BestCheckpoint", "Callback", "EarlyStopping"), "pockengine.fit.callbacks"),
    "History": "pockengine.fit.history",
    "Interrupted": "pockengine.fit.interrupt",
    "Scheme": "pockengine.scheme",
    "Trainer": "pockengine.trainer",
    "profile": "pockengine.contribution.profile",
    "replace_head": "pockengine.heads",
}
__all__ = [
    "SGD",
    "Accumulate",
    "Adagrad",
    "Adam",
    "AdamW",
    "BestCheckpoint",
    "Callback",
    "Checkpoint",
    "Clip",
    "EarlyStopping",
    "History",
    "Interrupted",
    "Lion",
    "ParamGroup",
    "RMSprop",
    "Scheme",
    "Shape",
    "Trainer",
    "compile",
    "profile",
    "replace_head",
    "resized",
    "schedules",
]


def __getattr__(name: str) -> Any:
    """Load a public name."""
    if name == "schedules":
        return import_module("pockengine.schedules")
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    with _uncollected():
        value = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value


@contextlib.contextmanager
def _uncollected() -> Iterator[None]:
    """No garbage collection inside: what an import makes stays, and to search it takes longer."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})


class _Package(ModuleType):
    """Keeps ``compile`` the function when the module of that name is imported."""

    def __setattr__(self, name: str, value: object) -> None:
        if not (name in _HOME and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
