"""What the command line looks at: a model, a batch, a loss; by name or from the user's code."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import sys
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn

from pockengine.errors import InputError, PockEngineError
from pockengine.frontend.losses import Loss
from pockengine.optimizer import SGD, AdamW, Optimizer
from pockengine.scheme import Rule, Scheme
from pockengine.tasks import mini_lm, mobilenet_v2

OPTIMIZERS: dict[str, Optimizer] = {
    "sgd": SGD(),
    "momentum": SGD(momentum=0.9),
    "adamw": AdamW(),
}
"""What ``--optimizer`` takes."""

_CLASSES = 10
_SEED = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """A fine-tuning run to look at.

    Args:
        model: in the mode it is trained in.
        batch: ``(inputs, targets)``.
        loss: as ``compile`` takes it.
        optimizer: what steps.
    """

    model: nn.Module
    batch: tuple[Any, Any]
    loss: Loss
    optimizer: Optimizer


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """How large the batch of a built-in model is.

    Args:
        batch: examples.
        side: of a square image, in pixels.
        length: of a text, in tokens.
    """

    batch: int = 8
    side: int = 128
    length: int = 128


def find_workload(
    name: str, sizes: Sizes | None = None, optimizer: Optimizer | None = None
) -> Workload:
    """The workload of a name.

    Args:
        name: ``mobilenet_v2``, ``mini_lm`` or ``mlp``, with random weights; or
            ``module:function`` or ``file.py:function``, whose function gives
            ``(model, example_batch, loss)`` and, if it likes, an optimizer.
        sizes: of a built-in model's batch.
        optimizer: instead of the workload's own.

    Raises:
        InputError: there is no such model, or its function does not give what it should.
    """
    torch.manual_seed(_SEED)
    if name in BUILT_IN:
        model, batch = BUILT_IN[name](sizes or Sizes())
        chosen = optimizer or SGD(momentum=0.9)
        return Workload(model=model, batch=batch, loss="cross_entropy", optimizer=chosen)
    function = _function(name)
    with _told_of(name, "a function without arguments that makes the model"):
        made = function()
    if not isinstance(made, tuple) or len(made) not in (3, 4) or not isinstance(made[0], nn.Module):
        raise _wrong(
            name,
            f"its function gives {_told(made)}",
            "a tuple (model, example_batch, loss) or (model, example_batch, loss, optimizer)",
        )
    own = made[3] if len(made) == 4 else SGD(momentum=0.9)
    return Workload(model=made[0], batch=made[1], loss=made[2], optimizer=optimizer or own)


def find_scheme(spec: str | None) -> Scheme | Rule | None:
    """The scheme of ``full``, ``bias_only``, ``bias_only:N``, ``last_blocks:N`` or a JSON file.

    None stays None: what the model's ``requires_grad`` says.

    Raises:
        SchemeError: the file holds no scheme, or N is not positive.
        InputError: none of these.
    """
    if spec is None:
        return None
    kind, _, count = spec.partition(":")
    if kind == "full" and not count:
        return Scheme.full()
    if kind == "bias_only" and (not count or count.isdecimal()):
        return Scheme.bias_only(int(count) if count else None)
    if kind == "last_blocks" and count.isdecimal():
        return Scheme.last_blocks(int(count))
    if not Path(spec).is_file():
        raise InputError(
            where="--scheme",
            found=repr(spec),
            needed="full, bias_only, bias_only:N, last_blocks:N or the path of a JSON file",
            remedy="Write a file with pe.Scheme({...}).save(path)",
        )
    return Scheme.load(spec)


def _mobilenet_v2(sizes: Sizes) -> tuple[nn.Module, tuple[Any, Any]]:
    images = torch.randn(sizes.batch, 3, sizes.side, sizes.side)
    return mobilenet_v2(1.0, _CLASSES).eval(), (images, _labels(sizes.batch))


def _mini_lm(sizes: Sizes) -> tuple[nn.Module, tuple[Any, Any]]:
    shape = (sizes.batch, sizes.length)
    inputs = {
        "input_ids": torch.randint(0, 30522, shape),
        "attention_mask": torch.ones(shape, dtype=torch.int64),
    }
    return mini_lm(_CLASSES).eval(), (inputs, _labels(sizes.batch))


def _mlp(sizes: Sizes) -> tuple[nn.Module, tuple[Any, Any]]:
    model = nn.Sequential(
        nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, _CLASSES)
    )
    return model, (torch.randn(sizes.batch, 64), _labels(sizes.batch))


def _labels(count: int) -> torch.Tensor:
    return torch.arange(count) % _CLASSES


BUILT_IN: dict[str, Callable[[Sizes], tuple[nn.Module, tuple[Any, Any]]]] = {
    "mobilenet_v2": _mobilenet_v2,
    "mini_lm": _mini_lm,
    "mlp": _mlp,
}
"""Models by name."""


def _function(name: str) -> Callable[[], Any]:
    place, _, attribute = name.rpartition(":")
    if not place or not attribute:
        known = ", ".join(BUILT_IN)
        raise _wrong(name, "no such model", f"{known}, module:function or file.py:function")
    module = _file(name, Path(place)) if place.endswith(".py") else _module(name, place)
    function = getattr(module, attribute, None)
    if not callable(function):
        raise _wrong(name, f"{place} has no function {attribute}", "a function without arguments")
    found: Callable[[], Any] = function
    return found


def _module(name: str, place: str) -> ModuleType:
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    with _told_of(name, "a module that Python runs"):
        try:
            return importlib.import_module(place)
        except ModuleNotFoundError as error:
            raise _wrong(name, str(error), "a module that Python finds from here") from error


def _file(name: str, path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None or not path.is_file():
        raise _wrong(name, f"there is no file {path}", "a Python file")
    module = importlib.util.module_from_spec(spec)
    with _told_of(name, "a file that Python runs"):
        spec.loader.exec_module(module)
    return module


@contextlib.contextmanager
def _told_of(name: str, needed: str) -> Iterator[None]:
    """An error in a user's code names the line that it comes from."""
    try:
        yield
    except PockEngineError:
        raise
    except Exception as error:
        told = f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')}"
        frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename != __file__]
        if frames and not isinstance(error, SyntaxError):  # which says its line itself
            told += f", {Path(frames[-1].filename).name} line {frames[-1].lineno}"
        raise _wrong(name, told, needed) from error


def _told(made: object) -> str:
    return f"a tuple of {len(made)}" if isinstance(made, tuple) else f"a {type(made).__name__}"


def _wrong(name: str, found: str, needed: str) -> InputError:
    return InputError(
        where=f"model {name!r}", found=found, needed=needed, remedy="See `pockengine bench --help`"
    )
