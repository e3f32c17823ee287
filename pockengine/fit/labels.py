"""What a batch's outputs say, beside what is true: the layouts of class scores and labels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils import _pytree as pytree

from pockengine.errors import CaptureError
from pockengine.frontend.losses import LossKind, main_output, only_tensor

_CLASSES_FIRST = ("cross_entropy", "CrossEntropyLoss", "NLLLoss")
_BINARY = ("bce_with_logits", "BCEWithLogitsLoss", "MultiLabelSoftMarginLoss", "BCELoss")


@dataclass(frozen=True, slots=True)
class Labels:
    """Classes of samples (or of their tokens or pixels).

    Args:
        predicted: (N,) indices, or (N, C) of 0 and 1 where a sample has several labels.
        true: as ``predicted``.
        classes: C.
    """

    predicted: NDArray[np.int64]
    true: NDArray[np.int64]
    classes: int

    @property
    def several(self) -> bool:
        """Whether a sample has several labels."""
        return self.true.ndim == 2


def labels(outputs: Any, targets: Any, loss: LossKind, *, sure: bool = False) -> Labels | None:
    """The labels of a batch; None where its outputs are no class scores.

    Labels are whole numbers ``(N, ...)``, the ignored one left out, with scores ``(N, ..., C)``, or
    ``(N, C, ...)`` as PyTorch's cross entropy has them; with the loss ``causal_lm``, each token's
    scores are for the next one. Of one score, ``(N,)`` or ``(N, 1)``, above 0 is class 1. Targets
    of 0 and 1 in the scores' own shape ``(N, C)`` are several labels a sample; with cross entropy
    they are shares, of which the largest is true.

    Args:
        outputs: of the model; the only tensor counts, or the one called ``logits``.
        targets: of the loss; the only tensor counts, or the one called ``labels``.
        loss: what the trainer was compiled with.
        sure: None where this is a guess: targets of several tokens with the model's own loss, which
            may be of the next token or of the same, and 0 and 1 that a loss may take as numbers.
    """
    try:
        scores = main_output(_tensors(outputs)).detach()
        true = _true(_tensors(targets)).detach()
    except CaptureError:
        return None
    if not scores.is_floating_point():
        return None
    if true.is_floating_point() or scores.shape == true.shape:
        return _of_reals(scores, true, loss, sure)
    if sure and loss.name == "model" and true.dim() > 1:
        return None
    if loss.name == "causal_lm":
        scores, true = scores[:, :-1], true[:, 1:]
    return _of_indices(scores, true, loss)


def _of_indices(scores: Tensor, true: Tensor, loss: LossKind) -> Labels | None:
    last = scores.shape[:-1] == true.shape
    first = scores.dim() > 1 and (scores.shape[:1] + scores.shape[2:]) == true.shape
    if not (last or first):
        return None
    if first and (loss.name in _CLASSES_FIRST or not last):
        scores = scores.movedim(1, -1)
    kept = true != loss.ignore
    if scores.shape[-1] == 1:
        found = _labels(_above(scores[..., 0], loss)[kept], true[kept], 2)
    else:
        found = _labels(scores.argmax(-1)[kept], true[kept], scores.shape[-1])
    known = ((found.true >= 0) & (found.true < found.classes)).all()
    return found if known else None  # such as ranks, with a score for each step between two


def _of_reals(scores: Tensor, true: Tensor, loss: LossKind, sure: bool) -> Labels | None:
    if scores.shape != true.shape or scores.dim() not in (1, 2):
        return None
    if loss.name in _CLASSES_FIRST and scores.dim() == 2:
        return _labels(scores.argmax(-1), true.argmax(-1), scores.shape[-1])
    if not bool(((true == 0) | (true == 1)).all()) or (sure and loss.name not in _BINARY):
        return None
    predicted = _above(scores, loss)
    if scores.dim() == 1 or scores.shape[1] == 1:
        return _labels(predicted.reshape(-1), true.reshape(-1), 2)
    return _labels(predicted, true, scores.shape[1])


def _above(scores: Tensor, loss: LossKind) -> Tensor:
    return scores > (0.5 if loss.name == "BCELoss" else 0.0)


def _labels(predicted: Tensor, true: Tensor, classes: int) -> Labels:
    return Labels(predicted.to(torch.int64).numpy(), true.to(torch.int64).numpy(), classes)


def _true(targets: Any) -> Tensor:
    if isinstance(targets, Mapping) and isinstance(targets.get("labels"), Tensor):
        found: Tensor = targets["labels"]
        return found
    return only_tensor(targets)


def _tensors(tree: Any) -> Any:
    """A tree of arrays and lists of numbers as one of tensors."""
    return pytree.tree_map(
        lambda leaf: torch.tensor(leaf) if isinstance(leaf, (np.ndarray, np.generic)) else leaf,
        tree,
    )
