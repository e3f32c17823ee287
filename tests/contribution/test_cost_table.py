"""A cost table composes what the costs of each choice by itself are."""

from __future__ import annotations

from functools import cache
from random import Random

import pytest

from pockengine.compile import prepare
from pockengine.contribution.choice import RATIOS, Choice
from pockengine.contribution.cost_table import ChoiceCosts
from pockengine.contribution.costs import CostTable
from pockengine.contribution.layers import Layer
from pockengine.errors import InputError
from pockengine.optimizer import SGD
from pockengine.plan.amounts import step_ms_of
from pockengine.plan.fit import working_bytes
from pockengine.targets import get_target
from tests.oracles import conv_net

HOST = get_target("host")
HEAD = ("head.weight", "head.bias")


@cache
def example_costs() -> tuple[ChoiceCosts, CostTable]:
    """The costs of a small net of convolutions, and their table."""
    example = conv_net()
    costs = ChoiceCosts(
        example.graph,
        example.model,
        layers=conv_layers(),
        head=HEAD,
        optimizer=SGD(momentum=0.9),
        target=HOST,
    )
    return costs, costs.table()


def conv_layers() -> list[Layer]:
    """Its convolutions, with the shifts of the normalizations after them."""
    model = conv_net().model
    names = [name for name, _ in model.named_parameters()]
    return [
        Layer(
            name=name.removesuffix(".weight"),
            weight=name,
            biases=(next(x for x in names[names.index(name) :] if x.endswith("bias")),),
            role="",
            block="",
            shape=tuple(weight.shape),
            sliceable=True,
        )
        for name, weight in model.named_parameters()
        if weight.dim() == 4
    ]


def test_table_composes_choices() -> None:
    """Memory and time of random choices are what their own lifetimes say.

    In arenas of some kilobytes, a value that two parts change by turns is up to a tenth.
    """
    costs, table = example_costs()
    rates, rng = step_ms_of(HOST), Random(0)  # noqa: S311 - a reproducible draw
    for _ in range(40):
        weights = rng.sample(range(table.layers), rng.randint(0, 5))
        choice = Choice(rng.randint(0, table.layers), {i: rng.choice(RATIOS) for i in weights})
        alone = costs.alike(choice)
        kept = costs.kept_bytes(alone)
        assert table.memory_bytes(choice) == pytest.approx(kept + alone.peak_bytes, rel=0.1)
        own = float(alone.amounts @ rates)
        assert table.amount(choice, rates) == pytest.approx(own, rel=0.05)


def test_table_against_the_plan() -> None:
    """All memory of a planned trainer, within 5 %; the table never says much less."""
    costs, table = example_costs()
    example = conv_net()
    for choice in (Choice(0), Choice(4, {8: 0.5}), Choice(table.layers, {0: 1.0, 6: 1.0})):
        plan = prepare(
            example.model,
            example.batch,
            loss=example.loss,
            optimizer=SGD(momentum=0.9),
            scheme=choice.scheme(costs.layers, HEAD),
        ).plan
        assert costs.memory_bytes(choice) == pytest.approx(working_bytes(plan, HOST), rel=0.05)
        assert table.memory_bytes(choice) > 0.95 * working_bytes(plan, HOST)


def test_more_costs_more() -> None:
    """One more weight, or a larger part of it, takes no less memory and no less time."""
    _, table = example_costs()
    rates = step_ms_of(HOST)
    for layer in range(table.layers):
        choices = [Choice(table.layers), *(Choice(table.layers, {layer: r}) for r in RATIOS)]
        nbytes = [table.memory_bytes(choice) for choice in choices]
        times = [table.amount(choice, rates) for choice in choices]
        assert nbytes == sorted(nbytes)
        assert times[0] <= min(times[1:])


def test_table_is_plain_data() -> None:
    """What was written is read again, with the same costs."""
    _, table = example_costs()
    again = CostTable.from_json(table.to_json())
    assert again == table
    assert again.to_json() == table.to_json()


@pytest.mark.parametrize("text", ["", "[]", '{"format": "pockengine.costs", "version": 9}'])
def test_other_documents_are_refused(text: str) -> None:
    """One clear error for what is no cost table, or one of another version."""
    with pytest.raises(InputError, match=r"cost table JSON.*of version 1"):
        CostTable.from_json(text)


def test_unknown_parts_are_refused() -> None:
    """A ratio that the table does not have is an error that names it."""
    _, table = example_costs()
    with pytest.raises(InputError, match=r"layer 1 at ratio 0\.3"):
        table.memory_bytes(Choice(0, {1: 0.3}))
