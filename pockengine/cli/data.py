"""What ``--data`` names: a folder of pictures, a CSV of texts, arrays, or a task."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pockengine.cli.reading import Reading
from pockengine.errors import InputError
from pockengine.fit.layout import LABELS
from pockengine.tasks import (
    Task,
    image_folder,
    load_task,
    task_names,
    text_csv,
    word_vocabulary,
)
from pockengine.tasks.task import TEST_FRACTION, limit_classes, split

SIZE = 128
"""Pixels of a picture's side where the user does not say."""

LENGTH = 64
"""Tokens of a text where the user does not say."""

_TEST, _TRAIN, _CLASSES = "_test", "_train", "classes"


@dataclass(frozen=True, slots=True, kw_only=True)
class Data:
    """Examples and targets of two parts, ahead of a model.

    Args:
        name: of the data.
        reading: how examples become inputs.
        train: examples and targets, each with the same number of rows.
        test: likewise.
    """

    name: str
    reading: Reading
    train: tuple[Any, NDArray[Any]]
    test: tuple[Any, NDArray[Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """How data are read; None for what is usual.

    Args:
        size: pixels of a picture's side.
        length: tokens of a text.
        limit: examples of a class.
        bert: whether texts are read with BERT's vocabulary, else with that of their own words.
        seed: of the split and of the limit's choice.
    """

    size: int | None = None
    length: int | None = None
    limit: int | None = None
    bert: bool = False
    seed: int = 0


def find_data(name: str, wanted: Wanted, known: Reading | None = None) -> Data:
    """The data of a name.

    Args:
        name: a folder with a folder of pictures for each class (or ``train`` and ``test`` of such),
            a CSV file with the columns text and label, an ``.npz`` file, or a task's name. A fifth
            of each class is the test part where the data bring none.
        wanted: how they are read.
        known: what a model was trained to read, which is followed instead.

    Raises:
        InputError: there are no such data, they cannot be read, or are not what the model reads.
        PayloadError: a task's data cannot be had.
    """
    path = Path(name)
    size = known.size if known and known.size else wanted.size
    if path.is_dir():
        task = image_folder(path, size=size or SIZE, limit=wanted.limit, seed=wanted.seed)
    elif path.suffix == ".csv":
        task = text_csv(path, limit=wanted.limit, seed=wanted.seed)
    elif path.suffix == ".npz":
        return _checked(_arrays(path, wanted), known)
    elif name in task_names():
        task = load_task(name, size=size, limit=wanted.limit, seed=wanted.seed)
    else:
        raise _no_data(name, "a file of another kind" if path.exists() else "nothing of that name")
    return _checked(_of_task(task, wanted, known), known)


def _of_task(task: Task, wanted: Wanted, known: Reading | None) -> Data:
    if task.kind == "image":
        side = int(task.train_inputs.shape[1])
        reading = Reading(kind="image", classes=task.classes, size=side)
    elif known is not None and known.kind == "text":
        reading = Reading(kind="text", classes=task.classes, length=known.length, words=known.words)
    else:
        words = None if wanted.bert else tuple(word_vocabulary(task.train_inputs))
        length = wanted.length or LENGTH
        reading = Reading(kind="text", classes=task.classes, length=length, words=words)
    return Data(
        name=task.name,
        reading=reading,
        train=(task.train_inputs, task.train_labels),
        test=(task.test_inputs, task.test_labels),
    )


def _checked(data: Data, known: Reading | None) -> Data:
    """The data, if a model that reads as is known can be used with them."""
    if known is None:
        return data
    mine, its = data.reading, known
    for what, found, needed in (
        ("kind", mine.kind, its.kind),
        ("classes", mine.classes, its.classes),
    ):
        if found != needed:
            raise InputError(
                where=f"--data {data.name}",
                found=f"its {what}: {_told(found)}",
                needed=f"what the model was trained for: {_told(needed)}",
                remedy="Name other data or other weights",
            )
    return data


def _told(value: str | tuple[str, ...]) -> str:
    return value if isinstance(value, str) else ", ".join(value) or "numbers"


def load_arrays(path: Path) -> dict[str, NDArray[Any]]:
    """The arrays of an ``.npz`` file by name.

    Raises:
        InputError: it cannot be read, or holds Python objects.
    """
    if path.exists() and not zipfile.is_zipfile(path):
        raise _bad_arrays(path, "is no whole .npz file")
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile) as error:
        raise _bad_arrays(path, f"cannot be read ({error})") from error


def arrays_as_inputs(arrays: Mapping[str, NDArray[Any]]) -> Any:
    """The one array called x, or all by name, without targets and classes."""
    inputs = {n: a for n, a in arrays.items() if n not in LABELS and n != _CLASSES}
    return inputs["x"] if inputs.keys() == {"x"} else inputs


def _arrays(path: Path, wanted: Wanted) -> Data:
    """The parts of an ``.npz`` file: x and y (or arrays by the model's argument names and labels).

    Names may end in ``_train`` and ``_test``; without the latter a fifth is the test part.
    """
    arrays = load_arrays(path)
    classes = arrays.pop(_CLASSES, None)
    test = {n.removesuffix(_TEST): a for n, a in arrays.items() if n.endswith(_TEST)}
    train = {n.removesuffix(_TRAIN): a for n, a in arrays.items() if not n.endswith(_TEST)}
    train_part = _limited(_part(path, train), wanted)
    parts = (train_part, _part(path, test)) if test else _split_rows(train_part, wanted.seed)
    labels = train_part[1]
    names: tuple[str, ...] = ()
    if _are_classes(labels):
        count = int(max(labels.max(), parts[1][1].max(initial=0))) + 1
        names = tuple(map(str, range(count) if classes is None else classes))
    return Data(
        name=path.stem,
        reading=Reading(kind="arrays", classes=names),
        train=parts[0],
        test=parts[1],
    )


def _part(path: Path, arrays: Mapping[str, NDArray[Any]]) -> tuple[Any, NDArray[Any]]:
    """Inputs and targets, checked."""
    targets = next((arrays[name] for name in LABELS if name in arrays), None)
    inputs = arrays_as_inputs(arrays)
    if targets is None or (isinstance(inputs, Mapping) and not inputs):
        raise _bad_arrays(path, f"holds {', '.join(arrays) or 'nothing'}")
    counts = {name: len(a) if a.ndim else 0 for name, a in arrays.items()}
    if len(set(counts.values())) > 1 or 0 in counts.values():
        lengths = ", ".join(f"{name} {count}" for name, count in counts.items())
        raise _bad_arrays(path, f"its arrays differ in length, or are empty: {lengths}")
    return inputs, targets


def _are_classes(targets: NDArray[Any]) -> bool:
    return targets.dtype.kind in "iu" and targets.ndim == 1


def _at(inputs: Any, rows: NDArray[Any]) -> Any:
    if isinstance(inputs, Mapping):
        return {name: array[rows] for name, array in inputs.items()}
    return inputs[rows]


def _limited(part: tuple[Any, NDArray[Any]], wanted: Wanted) -> tuple[Any, NDArray[Any]]:
    inputs, targets = part
    if wanted.limit is None:
        return part
    if _are_classes(targets):
        rows = limit_classes(targets.astype(np.int64), wanted.limit, wanted.seed)
    else:
        rows = np.arange(min(wanted.limit, len(targets)))
    return _at(inputs, rows), targets[rows]


def _split_rows(
    part: tuple[Any, NDArray[Any]], seed: int
) -> tuple[tuple[Any, NDArray[Any]], tuple[Any, NDArray[Any]]]:
    """Train and test rows: of classes as tasks split them, of numbers by chance."""
    inputs, targets = part
    rows = np.arange(len(targets))
    if _are_classes(targets):
        (train, _), (test, _) = split(rows, targets.astype(np.int64), seed)
    else:
        shuffled = np.random.default_rng(seed).permutation(rows)
        held = round(TEST_FRACTION * len(rows))
        test, train = np.sort(shuffled[:held]), np.sort(shuffled[held:])
    return (_at(inputs, train), targets[train]), (_at(inputs, test), targets[test])


def _no_data(name: str, found: str) -> InputError:
    return InputError(
        where=f"--data {name}",
        found=found,
        needed="a folder of class folders of pictures, a .csv file, an .npz file, or one of "
        f"{', '.join(task_names())}",
        remedy="`pockengine train --help` describes them",
    )


def _bad_arrays(path: Path, found: str) -> InputError:
    return InputError(
        where=str(path),
        found=found,
        needed="an .npz file with x and y, or arrays by the model's argument names and labels, "
        "with one row an example",
        remedy="Write it with numpy.savez(path, x=inputs, y=targets)",
    )
