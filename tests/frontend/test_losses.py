"""Losses with their options against autograd in float64."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pockengine.errors import CaptureError
from pockengine.frontend.capture import capture
from pockengine.frontend.losses import LOSSES, loss_function
from pockengine.ir.graph import Bounds, bounds_of, name_of, placeholders
from pockengine.ir.types import Role
from tests.oracles import Example, check_against_autograd, doubles

_LABELS = torch.tensor([1, 0, -100, 2])
_KEPT = torch.tensor([1, 0, 2, 2])
_WEIGHT = torch.tensor([0.5, 2.0, 1.0])
_YES = torch.tensor([[1.0, 0.0, 1.0]]).expand(4, 3).contiguous()

CASES: dict[str, tuple[Any, Tensor]] = {
    "cross_entropy": ("cross_entropy", _KEPT),
    "cross_entropy, soft targets": ("cross_entropy", torch.full((4, 3), 1 / 3)),
    "ignore_index": (nn.CrossEntropyLoss(), _LABELS),
    "label_smoothing": (nn.CrossEntropyLoss(label_smoothing=0.1), _LABELS),
    "class weights": (nn.CrossEntropyLoss(weight=_WEIGHT), _LABELS),
    "all options": (
        nn.CrossEntropyLoss(weight=_WEIGHT, label_smoothing=0.2, ignore_index=1),
        _KEPT,
    ),
    "cross_entropy, sum": (nn.CrossEntropyLoss(reduction="sum"), _KEPT),
    "mse": ("mse", torch.randn(4, 3)),
    "l1": ("l1", torch.randn(4, 3)),
    "huber": (nn.HuberLoss(delta=0.5), torch.randn(4, 3)),
    "bce_with_logits": ("bce_with_logits", _YES),
    "bce_with_logits of integers": ("bce_with_logits", _YES.long()),
    "pos_weight": (nn.BCEWithLogitsLoss(pos_weight=_WEIGHT), _YES),
    "callable": (lambda output, target: ((output - target).abs() ** 1.5).mean(), torch.randn(4, 3)),
}


@pytest.mark.parametrize("name", CASES)
def test_loss(name: str) -> None:
    """The loss and the gradients of a model under it are autograd's."""
    loss, target = CASES[name]
    model, batch = nn.Linear(5, 3), (torch.randn(4, 5), target)
    captured = capture(model, batch, loss)
    exact = copy.deepcopy(loss).double() if isinstance(loss, nn.Module) else loss
    check_against_autograd(
        Example(model, batch, exact, captured, doubles(captured, batch)), tolerance=1e-7
    )


def test_labels_are_bounded() -> None:
    """The graph says which labels a loss accepts: the classes, and the one that it ignores."""
    batch = (torch.randn(4, 5), _LABELS)
    captured = capture(nn.Linear(5, 3), batch, nn.CrossEntropyLoss(label_smoothing=0.1))
    (target,) = placeholders(captured.graph, Role.TARGET)
    assert (name_of(target), bounds_of(target)) == ("target", Bounds(0, 3, -100))


def test_loss_of_an_unknown_name() -> None:
    """An unknown name is refused with the known ones."""
    with pytest.raises(CaptureError, match="'hinge'; one of cross_entropy, mse, l1"):
        loss_function("hinge")
    assert all(loss_function(name) is function for name, function in LOSSES.items())
