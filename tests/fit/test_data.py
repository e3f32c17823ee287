"""What ``fit`` takes as data, and what each gives for a seed and an epoch."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

import pockengine as pe
from pockengine.errors import InputError
from pockengine.fit.data import source
from pockengine.fit.layout import Layout
from tests.fit.nets import BATCH, classifier, data, pair

X, Y = data(12)


def _layout(trainer: pe.Trainer) -> Layout:
    with trainer:
        return Layout.of(trainer.program)


def _epoch(given: Any, epoch: int = 1, skip: int = 0, **options: Any) -> list[Any]:
    options = {"batch_size": None, "shuffle": True, "seed": 0, "name": "train", **options}
    batches = source(given, _layout(classifier()), **options).epoch(epoch, skip)
    return [np.asarray(x) for x, _ in batches]


class Noisy(Dataset[Any]):
    """Samples that draw from all of the global generators."""

    def __len__(self) -> int:
        return len(X)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        noise = torch.rand(()) + np.random.rand() + random.random()  # noqa: NPY002, S311
        return X[index] + noise, Y[index]


class Columns:
    """The interface of Hugging Face's ``datasets.Dataset``."""

    def __init__(self, **columns: Any) -> None:
        self.columns = columns
        self.column_names = list(columns)

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())))

    def __getitem__(self, at: list[int]) -> dict[str, Any]:
        return {name: [values[i] for i in at] for name, values in self.columns.items()}


def _same(one: list[Any], other: list[Any]) -> bool:
    return len(one) == len(other) and all(map(np.array_equal, one, other))


@pytest.mark.parametrize(
    "make",
    [
        lambda: (X, Y),
        lambda: (X.numpy(), Y.tolist()),
        lambda: {"x": X, "labels": Y},
        lambda: TensorDataset(X, Y),
        Noisy,
        lambda: Columns(x=X.tolist(), text=["word"] * 12, label=Y.tolist()),
        lambda: DataLoader(TensorDataset(X, Y), BATCH, shuffle=True),
        lambda: DataLoader(Noisy(), BATCH, shuffle=True),
        lambda: DataLoader(Noisy(), BATCH, shuffle=True, generator=torch.Generator()),
    ],
)
def test_order_is_of_seed_and_epoch(make: Any) -> None:
    """An epoch comes again, other epochs and seeds differ, and one may begin in the middle."""
    first = _epoch(make())
    torch.rand(3), np.random.rand(3), random.random()  # noqa: NPY002, S311
    assert _same(_epoch(make()), first)
    assert not _same(_epoch(make(), epoch=2), first)
    assert not _same(_epoch(make(), seed=1), first)
    assert _same(_epoch(make(), skip=2), first[2:])
    assert len(first) == 3


def test_every_sample_once() -> None:
    """An epoch is a permutation; without shuffling it is the given order."""
    shuffled = np.concatenate(_epoch((X, Y)))
    assert not np.array_equal(shuffled, X)
    assert np.array_equal(np.sort(shuffled, 0), np.sort(X.numpy(), 0))
    assert np.array_equal(np.concatenate(_epoch((X, Y), shuffle=False)), X)


def test_callers_generators_are_untouched() -> None:
    """What data draw leaves the caller's random numbers as they were."""
    torch.manual_seed(3)
    np.random.seed(3)  # noqa: NPY002
    random.seed(3)
    expected = torch.rand(2), np.random.rand(2), random.random()  # noqa: NPY002, S311
    torch.manual_seed(3)
    np.random.seed(3)  # noqa: NPY002
    random.seed(3)
    _epoch(DataLoader(Noisy(), BATCH, shuffle=True))
    found = torch.rand(2), np.random.rand(2), random.random()  # noqa: NPY002, S311
    assert torch.equal(expected[0], found[0])
    assert np.array_equal(expected[1], found[1])
    assert expected[2] == found[2]


def test_all_kinds_train_alike() -> None:
    """Arrays, columns, a data set, a loader and a list of batches give one and the same run."""
    batches = [(X[i : i + BATCH], Y[i : i + BATCH]) for i in range(0, 12, BATCH)]
    kinds: list[Any] = [
        (X, Y),
        (X.numpy().astype(np.float64), Y.numpy()),
        {"x": X, "label": Y},
        TensorDataset(X, Y),
        Columns(x=X.tolist(), label=Y.tolist()),
        batches,
        [{"inputs": x, "targets": y} for x, y in batches],
        DataLoader(TensorDataset(X, Y), BATCH),
    ]
    losses = []
    for kind in kinds:
        with classifier() as trainer:
            losses.append(trainer.fit(kind, shuffle=False, epochs=2).rows[-1]["loss"])
    assert len(set(losses)) == 1


@pytest.mark.parametrize("by_name", [False, True])
def test_several_inputs(by_name: bool) -> None:
    """A model's arguments come by name or by place, in arrays and in columns."""
    right = X[:, :2].contiguous()
    kinds: list[Any] = [
        {"left": X, "right": right, "y": Y},
        Columns(left=X.tolist(), right=right.tolist(), labels=Y.tolist()),
    ]
    if by_name:
        kinds += [({"left": X, "right": right}, Y)]
    else:
        kinds += [((X, right), Y), DataLoader(TensorDataset(X, right, Y), BATCH)]
    losses = []
    for kind in kinds:
        with pair(by_name=by_name) as trainer:
            losses.append(trainer.fit(kind, shuffle=False).rows[0]["loss"])
    assert len(set(losses)) == 1


def test_hugging_face() -> None:
    """The real thing: columns of lists, and in PyTorch's format; a dict of splits is refused."""
    datasets = pytest.importorskip("datasets")
    made = datasets.Dataset.from_dict({"x": X.tolist(), "text": ["word"] * 12, "label": Y.tolist()})
    expected = _epoch((X, Y))
    for each in (made, made.select_columns(["x", "label"]).with_format("torch")):
        assert all(map(np.allclose, _epoch(each), expected))
    with pytest.raises(InputError, match=r'one split of it\. Pass data\["train"\]'):
        _epoch(datasets.DatasetDict(train=made))


def test_last_batch_with_partial() -> None:
    """A trainer compiled for it takes the smaller last batch: all samples count, exactly."""
    x, y = data(10)
    with classifier(partial=True) as trainer, classifier() as whole:
        found = trainer.metrics((x, y))["loss"]
        logits = [whole.predict(x[i : i + BATCH]) for i in (0, 4, 6)]
        scores = torch.cat([logits[0], logits[1], logits[2][2:]])
        assert found == pytest.approx(float(torch.nn.functional.cross_entropy(scores, y)))
        assert trainer.fit((x, y), epochs=2).rows[1]["step"] == 6


def test_last_batch_is_left_out() -> None:
    """Else it is left out with a warning, whatever the data, and in validation as well."""
    x, y = data(10)
    with classifier() as trainer:
        for kind in ((x, y), DataLoader(TensorDataset(x, y), BATCH)):
            with pytest.warns(UserWarning, match=r"train: the last batch has only 2 samples"):
                assert trainer.fit(kind).rows[0]["step"] == 2
        with pytest.warns(UserWarning, match="validation: the last batch has only 2 samples"):
            trainer.fit((x[:8], y[:8]), validation=(x, y))


def _good_then(bad: Any) -> list[Any]:
    return [(X[:4], Y[:4]), bad, (X[:4], Y[:4])]


class Endless(IterableDataset[Any]):
    """Single samples."""

    def __iter__(self) -> Iterator[Any]:
        yield X[0], Y[0]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (_good_then((X[:2], Y[:2])), r"train, batch 1 \(counted from 0\) of epoch 1: .* smaller"),
        (_good_then((X[:4, :5], Y[:4])), r"batch 1 \(counted from 0\) of epoch 1: input: shape"),
        (_good_then((X[:4], Y[:4] + 9)), r"batch 1 .* of epoch 1: target.* an integer from 0 to 2"),
        (_good_then(X[:4]), r"batch 1 \(counted from 0\) of epoch 1: a single array of shape"),
        (_good_then((X, Y, Y, Y)), "a tuple of 4; \\(inputs, targets\\)"),
        ([(X[:2], Y[:2])], r"train, batch 0 \(counted from 0\) of epoch 1: .* smaller"),
        ([], "train: it gave no whole batch"),
        ((X[:0], Y[:0]), "train: no samples; at least one"),
        ((X, Y[:5]), r"train: arrays of the shapes \(12, 6\), \(5,\)"),
        ({"x": X}, "train: the columns x; a column of targets"),
        ({"x": X, "z": X, "y": Y}, "train: the columns x, z; 1 besides the targets"),
        (Columns(x=[[1.0], [1.0, 2.0]] * 4, y=[0] * 8), "column x: values of different shapes"),
        (Endless(), r"train: a Endless; batches. Wrap it: DataLoader"),
        (3, "train: a int; a DataLoader, batches, arrays or a data set"),
        ("folder", "train: a str"),
    ],
)
def test_what_does_not_fit(given: Any, message: str) -> None:
    """The message names the data and the batch."""
    with classifier() as trainer, pytest.raises(InputError, match=message):
        trainer.fit(given)


def test_samples_of_different_shapes() -> None:
    """A data set whose samples cannot be stacked is told at its batch."""
    ragged: Any = [(X[0], Y[0]), (X[1, :2], Y[1])] * 2

    class Ragged(Dataset[Any]):
        def __len__(self) -> int:
            return 4

        def __getitem__(self, index: int) -> Any:
            return ragged[index]

    with classifier() as trainer, pytest.raises(InputError, match="its samples make no batch"):
        trainer.fit(Ragged())


def test_once_only() -> None:
    """An iterator serves for one epoch; for a second one the message says so."""
    batches = [(X[:4], Y[:4])] * 2
    with classifier() as trainer:
        assert trainer.fit(iter(batches)).rows[0]["step"] == 2
        with pytest.raises(InputError, match="iterated only once serves for one epoch"):
            trainer.fit(iter(batches), epochs=2)


@pytest.mark.parametrize(
    ("given", "size", "message"),
    [
        ((X, Y), 5, "batch_size: it is 5; a size that was compiled for: 4"),
        ((X, Y), 0, "it is 0"),
        ([(X[:4], Y[:4])], 4, "batch_size: 4 for train, a list of batches"),
    ],
)
def test_batch_size(given: Any, size: int, message: str) -> None:
    """Only compiled sizes, and only where batches are cut."""
    with classifier() as trainer, pytest.raises(InputError, match=message):
        trainer.fit(given, batch_size=size)


def test_smaller_batch_size_with_partial() -> None:
    """A trainer compiled with partial takes any smaller size."""
    with classifier(partial=True) as trainer:
        assert trainer.fit((X, Y), batch_size=3).rows[0]["step"] == 4
        with pytest.raises(InputError, match="compiled for: 4 or fewer"):
            trainer.fit((X, Y), batch_size=5)
