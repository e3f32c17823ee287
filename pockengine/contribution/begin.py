"""Begin a profile: check the task, capture the model, lay out the study's folder."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pockengine.checks import is_number, is_whole
from pockengine.contribution.fronts import are_independent, choose_cuts, compute_cuts, find_fronts
from pockengine.contribution.layers import Layer, find_layers
from pockengine.contribution.study import PARTS, Array, Score, Study, array_file, digest
from pockengine.errors import InputError
from pockengine.frontend.capture import Batch, Captured, canonical_batch
from pockengine.frontend.losses import Loss
from pockengine.frontend.recall import recall
from pockengine.frontend.structure import first_extents, flatten
from pockengine.ir.graph import name_of, placeholders, type_of
from pockengine.ir.text import text
from pockengine.ir.types import Role
from pockengine.optimizer import Optimizer, check_optimizer

_READY = "ready"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How candidates are trained.

    Args:
        loss: as ``compile``.
        optimizer: of every trial.
        lr: the learning rate, which falls linearly to 0 over the run.
        warmup: steps at the start over which it rises.
        epochs: of a whole run over the training part.
        batch: samples of a step.
        score: how right an output is; None for whether the largest class score is the label's.
        cache_bytes: that what the frozen fronts yield may take on disk.
    """

    loss: Loss
    optimizer: Optimizer
    lr: float
    epochs: float
    batch: int
    score: Score | None
    cache_bytes: int
    warmup: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Begun:
    """A study that trials can be run of.

    Args:
        folder: with the model and the data, for the processes that run trials.
        name: of the study: equal for the same model, data and settings.
        study: what is in the folder.
        layers: of the model, without the head.
        head: names of its parameters.
        cuts: for each layer and for the head, which front is kept for it, or -1.
        example: the first batch that is trained.
    """

    folder: Path
    name: str
    study: Study
    layers: tuple[Layer, ...]
    head: tuple[str, ...]
    cuts: tuple[int, ...]
    example: Batch


def begin(model: nn.Module, task: Any, settings: Settings, folder: Path) -> Begun:
    """Check all that was asked for, capture the model and write what trials need.

    Raises:
        InputError: an argument is not what it should be, or the model has no layer but its head.
        CaptureError: the model or the loss cannot be captured.
    """
    _check(settings)
    data = _parts(task, settings.batch)
    example = tuple(_first(tensors, settings.batch) for tensors in data["train"].nested)
    if settings.score is None:
        _check_labels(data["train"].targets)
    captured = recall(model, example, settings.loss)
    layers, head = find_layers(captured.graph, model)
    rows = {part: len(data[part].inputs[0]) for part in PARTS}
    arrays = {part: (data[part].inputs, data[part].targets) for part in PARTS}
    steps = max(1, round(settings.epochs * (rows["train"] // settings.batch)))
    if not is_whole(settings.warmup) or not 0 <= settings.warmup < steps:
        needed = f"a whole number of steps, less than all {steps}"
        raise bad_option("warmup", settings.warmup, needed, str(steps // 10))
    given = digest(
        text(captured.graph),
        *(
            f"{key} {digest(t.detach().cpu().numpy())}"
            for key, t in captured.tensors.items()
            if key not in head  # which every seed begins anew
        ),
        *(array for part in PARTS for group in arrays[part] for array in group),
    )
    name = digest(
        given,
        *(repr(settings.optimizer), settings.lr, steps, settings.batch, head),
        getattr(settings.score, "__qualname__", repr(settings.score)),
        *((settings.warmup,) if settings.warmup else ()),
    )
    fronts = find_fronts(captured, layers, head)
    first = [x[: settings.batch] for x in arrays["train"][0]]
    if not are_independent(captured, fronts, _as_captured(captured, first)):
        fronts = [type(front)() for front in fronts]
    cuts = choose_cuts(fronts, sum(rows.values()), settings.cache_bytes)
    data_place = folder / f"data-{digest(given, cuts)}"
    study = Study(
        captured=captured,
        head=head,
        optimizer=settings.optimizer,
        lr=settings.lr,
        steps=steps,
        batch=settings.batch,
        rows=rows,
        score=settings.score,
        cuts={cut: fronts[cut].inputs for cut in sorted(set(cuts)) if cut >= 0},
        data=data_place.name,
        warmup=settings.warmup,
    )
    with _once(data_place) as missing:
        for part in PARTS if missing else ():
            _write(data_place, part, "cut-1", _as_captured(captured, arrays[part][0]))
            _write(data_place, part, "targets", list(arrays[part][1]))
        if missing:
            compute_cuts(data_place, captured, {cut: fronts[cut] for cut in study.cuts}, rows)
    place = folder / digest(name, cuts)  # other cuts are other files, and the same trials
    with _once(place) as missing:
        if missing:
            study.save(place)
    return Begun(
        folder=place,
        name=name,
        study=study,
        layers=layers,
        head=head,
        cuts=tuple(cuts),
        example=example,
    )


@contextmanager
def _once(folder: Path) -> Iterator[bool]:
    """Whether a folder is still to be filled; what an earlier process left unfinished goes."""
    missing = not (folder / _READY).exists()
    if missing:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
    yield missing
    if missing:
        (folder / _READY).touch()


def _check(settings: Settings) -> None:
    check_optimizer(settings.optimizer)
    if not is_number(settings.lr) or settings.lr <= 0:
        raise bad_option("lr", settings.lr, "a number greater than 0", "1e-3")
    if not is_number(settings.epochs) or settings.epochs <= 0:
        raise bad_option("epochs", settings.epochs, "a number greater than 0", "1")
    if not is_whole(settings.batch) or settings.batch < 1:
        raise bad_option("batch", settings.batch, "a whole number of at least 1", "8")


def _check_labels(targets: Sequence[Array]) -> None:
    """Without a score of the user's, the first target is what the largest class score should be."""
    if not targets or targets[0].dtype.kind not in "iu":
        found = f"targets of {targets[0].dtype}" if targets else "no targets"
        raise InputError(
            where="profile(score=...)",
            found=f"none, and {found}",
            needed="how right an output is, where targets are not whole numbers of classes",
            remedy="Give a function of (outputs, targets): for each sample a number from 0 to 1",
        )


def bad_option(option: str, found: object, needed: str, example: str) -> InputError:
    """What is wrong with an option of ``profile``."""
    return InputError(
        where=f"profile({option}=...)",
        found=repr(found),
        needed=needed,
        remedy=f"Give {option}={example}, for example, or leave it out",
    )


@dataclass(frozen=True, slots=True)
class _Part:
    """Training or test data: as they nest, and flat."""

    nested: tuple[Any, Any]
    inputs: list[Array]
    targets: list[Array]


def _parts(task: Any, batch: int) -> dict[str, _Part]:
    """The two parts of a task, checked."""
    if not isinstance(task, (tuple, list)) or len(task) != len(PARTS):
        raise InputError(
            where="profile(task)",
            found=type(task).__name__,
            needed="((inputs, targets), (test_inputs, test_targets))",
            remedy="Give arrays or tensors of whole data sets, nested like a batch of compile",
        )
    found = {}
    for part, pair in zip(PARTS, task, strict=True):
        nested = canonical_batch(pair, f"profile(task), {part}")
        inputs, targets = ([_plain(t) for t in flatten(each)[0]] for each in nested)
        lengths = first_extents((*inputs, *targets))
        least = batch if part == "train" else 1
        if len(lengths) != 1 or min(lengths) < least:
            raise InputError(
                where=f"profile(task), {part}",
                found=f"arrays of {', '.join(map(str, sorted(lengths)))} samples",
                needed=f"as many inputs as targets, and at least {least}",
                remedy="Give a row of every array for each sample",
            )
        found[part] = _Part(nested, inputs, targets)
    return found


def _plain(tensor: Tensor) -> Array:
    return tensor.detach().cpu().contiguous().numpy()


def _first(nested: Any, count: int) -> Any:
    """The first samples of inputs or targets."""
    tensors, structure = flatten(nested)
    return structure.build([tensor[:count] for tensor in tensors])


def _as_captured(captured: Captured, arrays: Sequence[Array]) -> list[Array]:
    """Inputs with the element types that the graph reads."""
    kinds = {name_of(n): type_of(n) for n in placeholders(captured.graph, Role.INPUT)}
    return [
        np.asarray(array, _numpy_type(kinds[name].dtype.torch)) if name in kinds else array
        for name, array in zip(captured.inputs, arrays, strict=True)
    ]


def _numpy_type(dtype: torch.dtype) -> np.dtype[Any]:
    return torch.empty(0, dtype=dtype).numpy().dtype


def _write(folder: Path, part: str, kind: str, arrays: Sequence[Array]) -> None:
    for index, array in enumerate(arrays):
        np.save(array_file(folder, part, kind, index), array)
