"""Metrics of a data set: the formulas are scikit-learn's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import exp, inf, nan
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torch.utils import _pytree as pytree

from pockengine.errors import InputError
from pockengine.fit.labels import Labels, labels
from pockengine.frontend.losses import LossKind

Metric: TypeAlias = str | Callable[[Any, Any], float]
"""A name, or a callable of all samples' outputs and targets; its name is the result's."""

_OF_LOSS: Final = ("loss", "perplexity")
_OF_LABELS: Final = ("accuracy", "f1", "f1_micro", "confusion_matrix")
NAMES: Final = (*_OF_LOSS, *_OF_LABELS)
_MOST_CLASSES = 4096  # of a confusion matrix: 128 MiB


def check_metrics(metrics: Sequence[Metric] | None) -> None:
    """Each is known.

    Raises:
        InputError: one is not.
    """
    if isinstance(metrics, str):
        metrics = (metrics,)
    for metric in metrics or ():
        if not callable(metric) and metric not in NAMES:
            raise InputError(
                where="metrics",
                found=repr(metric),
                needed=f"one of {', '.join(NAMES)}, or a callable (outputs, targets) -> float",
                remedy="Choose from these",
            )


class Meter:
    """Takes batches and gives metrics.

    Args:
        metrics: what to give; None for the loss, and the accuracy where outputs are class scores,
            or the perplexity of a causal language model.
        loss: what the trainer was compiled with.
    """

    def __init__(self, metrics: Sequence[Metric] | None, loss: LossKind) -> None:
        check_metrics(metrics)
        if metrics is None:
            self._automatic = True
            self._metrics: list[Metric] = ["loss"]
            if loss.name == "causal_lm":
                self._metrics.append("perplexity")
        else:
            self._automatic = False
            self._metrics = [metrics] if isinstance(metrics, str) else list(metrics)
        self._kind = loss
        self._loss, self._samples = 0.0, 0
        self._counts: _Counts | None = None
        self._kept: list[tuple[Any, Any]] = []

    def add(self, loss: float, outputs: Any, targets: Any, count: int) -> None:
        """A batch of so many samples.

        Raises:
            InputError: a metric of labels was asked for, and outputs are no class scores.
        """
        self._loss += loss * count
        self._samples += count
        if self._automatic and self._kind.name != "causal_lm":
            found = labels(outputs, targets, self._kind, sure=True)
            self._automatic = found is not None  # of all batches or of none
            self._metrics = ["loss"] if found is None else ["loss", "accuracy"]
            self._count(found)
        elif any(metric in _OF_LABELS for metric in self._metrics):
            found = labels(outputs, targets, self._kind)
            if found is None:
                raise _no_labels(self._metrics, outputs, targets)
            self._count(found)
        if any(callable(metric) for metric in self._metrics):
            self._kept.append((_arrays(outputs), _arrays(targets)))

    def _count(self, found: Labels | None) -> None:
        if found is None:
            return
        if self._counts is None:
            self._counts = _Counts(found.classes, "confusion_matrix" in self._metrics)
        self._counts.add(found)

    def result(self) -> dict[str, Any]:
        """The metrics by name: numbers, and a confusion matrix as an array."""
        return {_name(metric): self._value(metric) for metric in self._metrics}

    def _value(self, metric: Metric) -> Any:
        if callable(metric):
            return _number(metric, *map(_joined, zip(*self._kept, strict=True)))
        if metric in _OF_LOSS:
            loss = self._loss / self._samples if self._samples else nan
            return loss if metric == "loss" else _exp(loss)
        assert self._counts is not None
        return self._counts.value(metric)


class _Counts:
    """What labels were found where others were true.

    Args:
        classes: how many there are.
        pairs: count pairs of classes, too.

    Raises:
        InputError: too many classes for a matrix.
    """

    def __init__(self, classes: int, pairs: bool) -> None:
        if pairs and classes > _MOST_CLASSES:
            raise InputError(
                where="metrics",
                found=f"a confusion matrix of {classes} classes",
                needed=f"at most {_MOST_CLASSES}",
                remedy="Leave it out",
            )
        self._classes = classes
        self._right, self._total = 0, 0
        self._hits, self._found, self._true = np.zeros((3, classes), np.int64)
        self._pairs = np.zeros((classes, classes) if pairs else (0, 0), np.int64)
        self._several = False

    def add(self, batch: Labels) -> None:
        """A batch's."""
        predicted, true, classes = batch.predicted, batch.true, self._classes
        self._total += len(true)
        if batch.several:
            self._several = True
            self._right += int((predicted == true).all(1).sum())
            self._hits += (predicted & true).sum(0)
            self._found += predicted.sum(0)
            self._true += true.sum(0)
            return
        hit = predicted == true
        self._right += int(hit.sum())
        self._hits += np.bincount(true[hit], minlength=classes)
        self._found += np.bincount(predicted, minlength=classes)
        self._true += np.bincount(true, minlength=classes)
        if self._pairs.size:
            pairs = np.bincount(true * classes + predicted, minlength=classes**2)
            self._pairs += pairs.reshape(classes, classes)

    def value(self, metric: str) -> Any:
        """Of one of ``_OF_LABELS``; NaN without any labels."""
        if metric == "confusion_matrix":
            return self._matrix()
        if self._total == 0:
            return nan
        if metric == "accuracy":
            return self._right / self._total
        sums = self._found + self._true
        if metric == "f1_micro":
            return float(2 * self._hits.sum() / sums.sum()) if sums.any() else 0.0
        met = np.ones(self._classes, bool) if self._several else sums > 0
        each = 2 * self._hits / np.maximum(sums, 1)
        return float(each[met].mean())

    def _matrix(self) -> NDArray[np.int64]:
        if not self._several:
            return self._pairs
        wrong, missed = self._found - self._hits, self._true - self._hits
        neither = self._total - self._hits - wrong - missed
        return np.stack([neither, wrong, missed, self._hits], 1).reshape(-1, 2, 2)


def _name(metric: Metric) -> str:
    return str(getattr(metric, "__name__", type(metric).__name__)) if callable(metric) else metric


def _number(metric: Callable[[Any, Any], float], outputs: Any, targets: Any) -> float:
    found = metric(outputs, targets)
    try:
        return float(found)
    except (TypeError, ValueError) as error:
        raise InputError(
            where=f"metric {_name(metric)}",
            found=f"it gave {type(found).__name__}",
            needed="a number",
            remedy="Return a float",
        ) from error


def _exp(value: float) -> float:
    try:
        return exp(value)
    except OverflowError:
        return inf


def _arrays(tree: Any) -> Any:
    """A copy of a batch's tree, as arrays."""
    return pytree.tree_map(
        lambda leaf: leaf.detach().numpy().copy() if isinstance(leaf, Tensor) else leaf, tree
    )


def _joined(trees: Sequence[Any]) -> Any:
    """Batches' trees as one: rows of all samples; what has no rows is stacked."""
    leaves = [pytree.tree_leaves(tree) for tree in trees]
    joined = [
        np.concatenate(parts) if np.ndim(parts[0]) else np.stack(parts)
        for parts in zip(*leaves, strict=True)
    ]
    return pytree.tree_unflatten(joined, pytree.tree_structure(trees[0]))


def _no_labels(metrics: Sequence[Metric], outputs: Any, targets: Any) -> InputError:
    def told(tree: Any) -> str:
        shapes = [tuple(np.shape(leaf)) for leaf in pytree.tree_leaves(tree)]
        return ", ".join(map(str, shapes))

    asked = ", ".join(m for m in metrics if isinstance(m, str) and m in _OF_LABELS)
    return InputError(
        where=f"metrics ({asked})",
        found=f"outputs {told(outputs)} and targets {told(targets)}",
        needed="scores of classes, and labels",
        remedy='Ask for metrics=("loss",), or pass a callable (outputs, targets) -> float',
    )
