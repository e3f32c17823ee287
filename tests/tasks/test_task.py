"""Balanced and seeded choices."""

from __future__ import annotations

import numpy as np
import pytest

from pockengine.errors import InputError
from pockengine.tasks import Task, load_task, take, task_names
from pockengine.tasks.task import limit_classes, split


@pytest.fixture
def task() -> Task:
    """Ten inputs of class 0 and thirty of class 1 to train on, four and eight to test."""
    return Task(
        name="t",
        kind="text",
        train_inputs=np.arange(40).astype(object),
        train_labels=np.repeat([0, 1], [10, 30]),
        test_inputs=np.arange(100, 112).astype(object),
        test_labels=np.repeat([0, 1], [4, 8]),
        classes=("a", "b"),
        licence="MIT",
        source="here",
    )


def test_take_is_balanced(task: Task) -> None:
    """Classes share alike while they reach; the smaller one is used up first."""
    assert np.bincount(take(task, train=12, test=6).train_labels).tolist() == [6, 6]
    assert np.bincount(take(task, train=30).train_labels).tolist() == [10, 20]
    assert np.bincount(take(task, test=10).test_labels).tolist() == [4, 6]


def test_take_keeps_pairs_and_seeds(task: Task) -> None:
    """Inputs keep their labels; a seed decides; what is not named stays."""
    few = take(task, train=12, seed=3)
    assert all((few.train_inputs >= 10) == (few.train_labels == 1))
    assert few.train_inputs.tolist() == take(task, train=12, seed=3).train_inputs.tolist()
    assert few.train_inputs.tolist() != take(task, train=12, seed=4).train_inputs.tolist()
    assert few.test_inputs.tolist() == task.test_inputs.tolist()


def test_take_too_many(task: Task) -> None:
    """Asking for more than there is says how many there are."""
    with pytest.raises(InputError, match=r"test=...\): 13 examples asked for; at most the 12"):
        take(task, test=13)


def test_split_is_stratified() -> None:
    """A fifth of each class is tested on, at least one; nothing is lost or doubled."""
    labels = np.repeat([0, 1, 2], [50, 10, 2])
    train, test = split(np.arange(62), labels, seed=1)
    assert np.bincount(test[1]).tolist() == [10, 2, 1]
    assert sorted([*train[0], *test[0]]) == list(range(62))
    assert all(labels[train[0]] == train[1])


def test_limit_classes() -> None:
    """Every class keeps at most so many, chosen by the seed and in order."""
    labels = np.repeat([0, 1], [50, 3])
    kept = limit_classes(labels, 5, seed=0)
    assert np.bincount(labels[kept]).tolist() == [5, 3]
    assert kept.tolist() == sorted(kept)
    assert kept.tolist() != limit_classes(labels, 5, seed=1).tolist()


def test_unknown_name() -> None:
    """An unknown task lists the known ones and the ways to bring data."""
    with pytest.raises(InputError, match=r"no task 'cifar'.*fashion-mnist.*image_folder"):
        load_task("cifar")


@pytest.mark.parametrize("option", ["size", "limit"])
def test_bad_option(option: str) -> None:
    """A size or limit of zero is refused by name."""
    with pytest.raises(InputError, match=rf"load_task\({option}=...\): 0; a whole number"):
        load_task("shapes", **{option: 0})


def test_names() -> None:
    """The two tasks that need no download are among the names."""
    assert {"shapes", "phrases"} < set(task_names())
