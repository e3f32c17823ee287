"""The frozen front of a joint graph is cut off, and both parts together are the whole."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from pockengine.errors import SchemeError
from pockengine.frontend.capture import Captured, capture
from pockengine.ir.graph import calls, outputs_of, placeholders, type_of
from pockengine.ir.interpret import interpret
from pockengine.ir.text import text
from pockengine.ir.types import Role
from pockengine.ir.verify import verify
from pockengine.passes.split_frozen import split_frozen
from pockengine.tasks import small_encoder
from tests.passes.golden import example
from tests.zoo import ZOO


def test_example() -> None:
    """The docstring's example."""
    before, after = example(split_frozen)
    split = split_frozen(before, {"w"})
    assert text(split.after) == after
    assert split.inputs == ("frozen.0",)
    assert [node.name for node in outputs_of(split.before).outputs] == ["h"]


def last_weight(captured: Captured, nth: int) -> str:
    """The nth parameter from the end."""
    return list(outputs_of(captured.graph).gradients)[-nth]


@pytest.mark.parametrize("name", ["resnet18", "bert", "vit", "densenet", "llama", "gru"])
def test_both_parts_are_the_whole(name: str) -> None:
    """Loss and gradients of the rest, from what the front yields, are those of the whole."""
    size = ZOO[name].tiny
    torch.manual_seed(0)
    captured = capture(size.model().eval(), size.batch(), ZOO[name].loss)
    updated = {last_weight(captured, 1), last_weight(captured, 6)}
    split = split_frozen(captured.graph, updated)
    verify(split.before)
    verify(split.after)
    names = (*captured.inputs, *captured.targets)
    inputs = dict(zip(names, torch.utils._pytree.tree_leaves(size.batch()), strict=True))
    values = {**captured.tensors, **inputs}
    whole = interpret(captured.graph, values)
    front = dict(zip(split.inputs, interpret(split.before, values).outputs, strict=True))
    rest = interpret(split.after, {**values, **front})
    assert torch.equal(rest.loss, whole.loss)
    assert rest.gradients.keys() == updated
    for parameter in updated:
        assert torch.equal(rest.gradients[parameter], whole.gradients[parameter])
    assert len(list(calls(split.after))) < len(list(calls(captured.graph)))


def test_nothing_frozen_leaves_the_inputs() -> None:
    """Where the first layer is updated, the rest reads the inputs themselves."""
    model = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    captured = capture(model, (torch.zeros(2, 4), torch.tensor([0, 1])), "cross_entropy")
    split = split_frozen(captured.graph, {"0.weight"})
    assert split.inputs == ("input",)
    assert not list(calls(split.before))


def test_random_numbers_stay_behind_the_cut() -> None:
    """What dropout draws is never computed once for all steps."""
    model = nn.Sequential(nn.Linear(4, 3), nn.Dropout(0.5), nn.Linear(3, 3), nn.Linear(3, 2))
    captured = capture(model, (torch.zeros(2, 4), torch.tensor([0, 1])), "cross_entropy")
    split = split_frozen(captured.graph, {"3.weight"})
    assert not list(placeholders(split.before, Role.STATE))
    assert list(placeholders(split.after, Role.STATE))


def test_masks_are_made_behind_the_cut() -> None:
    """What is made of an input element by element is no value of the front; the input is."""
    tokens = torch.ones(2, 8, dtype=torch.long)
    inputs = {"input_ids": tokens, "attention_mask": torch.ones_like(tokens)}
    captured = capture(small_encoder(2, 50).eval(), (inputs, torch.tensor([0, 1])), "cross_entropy")
    split = split_frozen(captured.graph, {"encoder.layer.1.attention.self.query.bias"})
    frozen = [name for name in split.inputs if name.startswith("frozen.")]
    assert frozen
    assert set(split.inputs) - set(frozen) == {"input.attention_mask"}
    front = outputs_of(split.before).outputs
    assert all(type_of(node).dtype.is_float for node in front if node.op != "placeholder")


def test_nothing_updated_is_an_error() -> None:
    """As in prune_backward."""
    before, _ = example(split_frozen)
    with pytest.raises(SchemeError, match="without a gradient"):
        split_frozen(before, {"nothing"})
