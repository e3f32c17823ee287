"""A model is captured once, and again as soon as anything about it changed."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from pockengine.frontend.recall import recall
from pockengine.ir.text import text


def _model() -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Dropout(0.0), nn.Linear(6, 3)
    ).eval()


def _batch(size: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(size, 4), torch.zeros(size, dtype=torch.int64)


def test_second_capture_is_the_first() -> None:
    """The graph is kept, and the model's present values and wishes come with it."""
    model = _model()
    first = recall(model, _batch(), "cross_entropy")
    model[0].weight.data = torch.ones(6, 4)
    model[3].bias.requires_grad_(False)
    second = recall(model, _batch(), "cross_entropy")
    assert second.graph is first.graph
    assert torch.equal(second.tensors["0.weight"], torch.ones(6, 4))
    assert first.requires_grad - second.requires_grad == {"3.bias"}


def _replace(model: nn.Sequential) -> None:
    model[3] = nn.Linear(6, 3, bias=False)


def _tie(model: nn.Sequential) -> None:
    model[1].bias = model[0].bias


CHANGES: dict[str, Callable[[nn.Sequential], object]] = {
    "mode": lambda model: model[2].train(),
    "attribute": lambda model: setattr(model[1], "eps", 0.5),
    "module": _replace,
    "tie": _tie,
    "hook": lambda model: model[0].register_forward_hook(lambda *_: None),
    "forward": lambda model: setattr(model[0], "forward", lambda x: x[:, :1].expand(-1, 6)),
}


@pytest.mark.parametrize("change", CHANGES)
def test_changed_model_is_captured_again(change: str) -> None:
    """Whatever tracing may look at counts."""
    model = _model()
    first = recall(model, _batch(4), "cross_entropy")
    CHANGES[change](model)
    second = recall(model, _batch(4), "cross_entropy")
    assert second.graph is not first.graph
    assert change in ("mode", "hook", "tie") or text(second.graph) != text(first.graph)


def test_other_shapes_and_losses_are_captured_anew() -> None:
    """A capture holds for its shapes and its named loss; a callable may change unseen."""
    model = _model()
    graphs = [
        recall(model, batch, loss).graph
        for batch, loss in (
            (_batch(2), "cross_entropy"),
            (_batch(3), "cross_entropy"),
            (_batch(3), nn.functional.cross_entropy),
            (_batch(3), nn.functional.cross_entropy),
        )
    ]
    assert len(set(map(id, graphs))) == 4


def test_unwatchable_attribute_prevents_keeping() -> None:
    """A model that holds a plain tensor, whose values are constants, is captured every time."""
    model = _model()
    model.register_module("scale", nn.Identity())
    model[0].table = torch.ones(3)
    first = recall(model, _batch(), "cross_entropy")
    assert recall(model, _batch(), "cross_entropy").graph is not first.graph
