"""What a task is, and balanced, seeded choices from it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from pockengine.checks import kind_of
from pockengine.errors import InputError

Inputs: TypeAlias = npt.NDArray[Any]
"""Pictures, uint8 ``(N, H, W, 3)``, or texts, an object array ``(N,)`` of str."""

Labels: TypeAlias = npt.NDArray[np.int64]
"""Indices into the classes, ``(N,)``."""

TEST_FRACTION = 0.2
"""Share of each class that becomes the test set where a data set brings no split."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """A classification task on real (or built-in) data.

    Attributes:
        name: the task's name.
        kind: "image" or "text".
        train_inputs: images uint8 ``(N, H, W, 3)``, or texts as an object array ``(N,)`` of str.
        train_labels: int64 ``(N,)``, indices into ``classes``.
        test_inputs: as ``train_inputs``.
        test_labels: as ``train_labels``.
        classes: the classes' names.
        licence: of the data.
        source: where the data comes from, in words.
    """

    name: str
    kind: Literal["image", "text"]
    train_inputs: Inputs
    train_labels: Labels
    test_inputs: Inputs
    test_labels: Labels
    classes: tuple[str, ...]
    licence: str
    source: str


def check_positive(where: str, value: object) -> None:
    """A size, limit or number of classes is a whole number above 0.

    Raises:
        InputError: it is not.
    """
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise InputError(
            where=where,
            found=repr(value),
            needed="a whole number of at least 1",
            remedy="Give such a number, or leave it out where it has a default",
        )


def checked_path(where: str, path: object) -> Path:
    """A path of a user.

    Raises:
        InputError: it is something else.
    """
    if not isinstance(path, (str, Path)):
        raise InputError(
            where=where,
            found=kind_of(path),
            needed="the path of what is read",
            remedy='Give a string or a Path, such as "data/"',
        )
    return Path(path)


def take(task: Task, *, train: int | None = None, test: int | None = None, seed: int = 0) -> Task:
    """Return the task with fewer examples, all classes alike as far as they reach.

    Args:
        task: the task to take from.
        train: number of training examples; None keeps all of them, in their order.
        test: number of test examples; None keeps all of them, in their order.
        seed: of the choice and of the order.

    Raises:
        InputError: more examples are asked for than there are.
    """
    train_at = _choose(task.train_labels, train, seed, f"take({task.name!r}, train=...)")
    test_at = _choose(task.test_labels, test, seed, f"take({task.name!r}, test=...)")
    return replace(
        task,
        train_inputs=task.train_inputs[train_at],
        train_labels=task.train_labels[train_at],
        test_inputs=task.test_inputs[test_at],
        test_labels=task.test_labels[test_at],
    )


def _choose(labels: Labels, count: int | None, seed: int, where: str) -> Labels:
    if count is None:
        return np.arange(len(labels))
    if not 0 < count <= len(labels):
        raise InputError(
            where=where,
            found=f"{count} examples asked for",
            needed=f"at most the {len(labels)} that there are",
            remedy=f"Ask for 1 to {len(labels)}",
        )
    random = np.random.default_rng(seed)
    chosen = balanced(labels, random)[:count]
    return random.permutation(chosen)


def balanced(labels: Labels, random: np.random.Generator) -> Labels:
    """Return all indices in an order whose every prefix is as balanced over classes as can be."""
    shuffled = random.permutation(len(labels))
    rank = np.empty(len(labels), dtype=np.int64)
    for label in np.unique(labels):
        members = shuffled[labels[shuffled] == label]
        rank[members] = np.arange(len(members))
    return shuffled[np.argsort(rank[shuffled], kind="stable")]


def limit_classes(labels: Labels, limit: int | None, seed: int) -> Labels:
    """Return sorted indices of at most ``limit`` examples of each class, chosen by ``seed``."""
    if limit is None:
        return np.arange(len(labels))
    shuffled = np.random.default_rng(seed).permutation(len(labels))
    kept = [shuffled[labels[shuffled] == label][:limit] for label in np.unique(labels)]
    return np.sort(np.concatenate(kept))


def split(
    inputs: Inputs, labels: Labels, seed: int
) -> tuple[tuple[Inputs, Labels], tuple[Inputs, Labels]]:
    """Return shuffled (train, test) parts; each class gives ``TEST_FRACTION`` to the test part.

    A class of at least two examples has one in either.
    """
    shuffled = np.random.default_rng(seed).permutation(len(labels))
    is_test = np.zeros(len(labels), dtype=bool)
    for label in np.unique(labels):
        members = shuffled[labels[shuffled] == label]
        wanted = max(1, round(TEST_FRACTION * len(members))) if len(members) > 1 else 0
        is_test[members[:wanted]] = True
    train, test = shuffled[~is_test[shuffled]], shuffled[is_test[shuffled]]
    return (inputs[train], labels[train]), (inputs[test], labels[test])
