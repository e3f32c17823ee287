"""The image tasks: public data sets, and a user's folder of pictures."""

from __future__ import annotations

import csv
import gzip
from collections.abc import Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from pockengine.errors import InputError
from pockengine.tasks import sources
from pockengine.tasks.payload import Payload, fetch
from pockengine.tasks.pictures import (
    IMAGE_SUFFIXES,
    is_hidden,
    pictures_below,
    pixel_count,
    read_images,
    resize_images,
)
from pockengine.tasks.task import Labels, Task, check_positive, checked_path, limit_classes, split

Images: TypeAlias = npt.NDArray[np.uint8]
Part: TypeAlias = tuple[Images, Labels]

_FASHION_CLASSES = (
    *("T-shirt", "trouser", "pullover", "dress", "coat"),
    *("sandal", "shirt", "sneaker", "bag", "ankle boot"),
)
_CLIPART_CLASSES = (
    *("animals", "food", "people", "transportation"),
    *("tools", "office", "plants", "buildings"),
)
_CLIPART_MORE = (
    *(*_CLIPART_CLASSES, "recreation", "geography"),
    *("computer", "shapes", "signs_and_symbols"),
)
_CLIPART_LIMIT = 200
_CLIPART_PIXELS = 4_000_000  # a few drawings are up to 600 megapixels


def fashion_mnist(*, size: int | None, limit: int | None, seed: int) -> Task:
    """Fashion-MNIST: ten kinds of clothing, with the data set's own split, 28 px."""
    folder = fetch(sources.FASHION_MNIST)

    def part(stem: str) -> Part:
        labels = _read_idx(folder / f"{stem}-labels-idx1-ubyte.gz").astype(np.int64)
        kept = limit_classes(labels, limit, seed)
        grey = _read_idx(folder / f"{stem}-images-idx3-ubyte.gz")[kept]
        return resize_images(_colour(grey), size or 28), labels[kept]

    parts = part("train"), part("t10k")
    return _task("fashion-mnist", parts, _FASHION_CLASSES, sources.FASHION_MNIST)


def openclipart(*, size: int | None, limit: int | None, seed: int) -> Task:
    """Clip-art drawings of eight topics, 128 px; at most 200 of a topic unless told otherwise."""
    return _clipart("openclipart", _CLIPART_CLASSES, size=size, limit=limit, seed=seed)


def openclipart_topics(*, size: int | None, limit: int | None, seed: int) -> Task:
    """Clip-art drawings of all thirteen topics with over fifty, as ``openclipart``."""
    return _clipart("openclipart-topics", _CLIPART_MORE, size=size, limit=limit, seed=seed)


def _clipart(
    name: str, classes: tuple[str, ...], *, size: int | None, limit: int | None, seed: int
) -> Task:
    paths, labels = _class_files(fetch(sources.OPENCLIPART), classes)
    is_small = np.asarray([pixel_count(path) <= _CLIPART_PIXELS for path in paths])
    paths = [path for path, small in zip(paths, is_small, strict=True) if small]
    cap = limit or _CLIPART_LIMIT
    images, kept = _read_limited(paths, labels[is_small], size or 128, cap, seed)
    return _task(name, split(images, kept, seed), classes, sources.OPENCLIPART)


def elpv(*, size: int | None, limit: int | None, seed: int) -> Task:
    """Photos of solar cells, sound (defect probability under 1/2) or defective, 128 px."""
    folder = fetch(sources.ELPV)
    rows = [line.split() for line in (folder / "labels.csv").read_text().splitlines()]
    labels = np.asarray([float(row[1]) >= 0.5 for row in rows], dtype=np.int64)
    images, kept = _read_limited([folder / r[0] for r in rows], labels, size or 128, limit, seed)
    return _task("elpv", split(images, kept, seed), ("sound", "defect"), sources.ELPV)


def digits(*, size: int | None, limit: int | None, seed: int) -> Task:
    """Handwritten digits, 8 px."""
    with gzip.open(fetch(sources.DIGITS), "rt") as file:
        table = np.asarray([[float(cell) for cell in row] for row in csv.reader(file)])
    labels = table[:, 64].astype(np.int64)
    kept = limit_classes(labels, limit, seed)
    grey = (table[kept, :64] * (255 / 16)).astype(np.uint8).reshape(-1, 8, 8)
    parts = split(resize_images(_colour(grey), size or 8), labels[kept], seed)
    return _task("digits", parts, tuple("0123456789"), sources.DIGITS)


def image_folder(
    path: str | Path, *, size: int = 128, limit: int | None = None, seed: int = 0
) -> Task:
    """Read a task from a folder of class folders of pictures.

    Where the folder holds ``train`` and ``test`` folders, these are the split; otherwise
    a seeded fifth of each class is the test set.

    Args:
        path: the folder; a class folder's name is the class's name.
        size: side in pixels that the pictures are squeezed to.
        limit: at most this many pictures of each class are read.
        seed: of the limit's choice and of the split.

    Raises:
        InputError: no such folder, under two classes, an empty class, or a broken picture.
    """
    check_positive("image_folder(size=...)", size)
    if limit is not None:
        check_positive("image_folder(limit=...)", limit)
    root = checked_path("image_folder(path)", path)
    own_split = (root / "train").is_dir() and (root / "test").is_dir()
    classes = _class_names(root / "train" if own_split else root)

    def part(folder: Path) -> Part:
        return _read_limited(*_class_files(folder, classes), size, limit, seed)

    train, test = (
        (part(root / "train"), part(root / "test")) if own_split else split(*part(root), seed)
    )
    return Task(
        name=root.name,
        kind="image",
        train_inputs=train[0],
        train_labels=train[1],
        test_inputs=test[0],
        test_labels=test[1],
        classes=classes,
        licence="the user's",
        source=str(root),
    )


def _class_names(folder: Path) -> tuple[str, ...]:
    inside = folder.iterdir() if folder.is_dir() else ()
    names = tuple(sorted(p.name for p in inside if p.is_dir() and not is_hidden(Path(p.name))))
    if len(names) < 2:
        raise InputError(
            where=str(folder),
            found=f"holds {len(names)} class folders" if folder.is_dir() else "is no folder",
            needed="needs a folder with one folder of pictures for each of two or more classes",
            remedy="Arrange the pictures as FOLDER/CLASS/PICTURE.png",
        )
    return names


def _class_files(folder: Path, classes: Sequence[str]) -> tuple[list[Path], Labels]:
    """Return the pictures below each class folder, sorted, and their labels."""
    paths: list[Path] = []
    labels: list[int] = []
    for label, name in enumerate(classes):
        found = pictures_below(folder / name)
        if not found:
            raise InputError(
                where=str(folder / name),
                found="holds no pictures",
                needed=f"needs files named {', '.join(sorted(IMAGE_SUFFIXES))}",
                remedy="Add pictures, or remove the class",
            )
        paths += found
        labels += [label] * len(found)
    return paths, np.asarray(labels, dtype=np.int64)


def _read_limited(
    paths: Sequence[Path], labels: Labels, size: int, limit: int | None, seed: int
) -> Part:
    kept = limit_classes(labels, limit, seed)
    return read_images([paths[index] for index in kept], size), labels[kept]


def _read_idx(path: Path) -> npt.NDArray[np.uint8]:
    """Read an idx.gz file of bytes: two zeros, 8, rank, big-endian extents, elements."""
    with gzip.open(path) as file:
        content = file.read()
    rank = content[3]
    shape = np.frombuffer(content, ">u4", count=rank, offset=4)
    return np.frombuffer(content, np.uint8, offset=4 + 4 * rank).reshape(tuple(shape))


def _colour(grey: npt.NDArray[np.uint8]) -> Images:
    return np.repeat(grey[..., None], 3, axis=3)


def _task(name: str, parts: tuple[Part, Part], classes: tuple[str, ...], payload: Payload) -> Task:
    (train_inputs, train_labels), (test_inputs, test_labels) = parts
    return Task(
        name=name,
        kind="image",
        train_inputs=train_inputs,
        train_labels=train_labels,
        test_inputs=test_inputs,
        test_labels=test_labels,
        classes=classes,
        licence=payload.licence,
        source=payload.source,
    )
