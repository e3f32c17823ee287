"""The arena of schemes, told from one capture, is what compiling each of them plans."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from pockengine.compile import prepare
from pockengine.optimizer import SGD
from pockengine.plan.costs import saving_costs
from pockengine.plan.scheme_costs import SchemeCosts
from pockengine.plan.scheme_memory import SchemeMemory
from pockengine.scheme import Rule, Scheme
from pockengine.targets import get_target
from tests.oracles import Example, conv_net, encoder
from tests.plan.test_scheme_costs import CONV_MIXED, ENCODER_MIXED

TOLERANCE = 0.05  # of arenas of some kilobytes: a copy or a mask more or less


def memory_of(example: Example) -> SchemeMemory:
    """The lifetimes of an example's schemes, for the host."""
    costs = SchemeCosts(
        example.graph,
        example.model,
        optimizer=SGD(),
        costs=saving_costs(get_target("host")),
    )
    return SchemeMemory(costs)


@pytest.mark.parametrize(
    ("make", "rule"),
    [
        *((conv_net, rule) for rule in (Scheme.full(), Scheme.bias_only(), Scheme.bias_only(3))),
        (conv_net, CONV_MIXED),
        *((encoder, rule) for rule in (Scheme.full(), Scheme.bias_only(), ENCODER_MIXED)),
    ],
)
def test_against_the_plan(make: Callable[[], Example], rule: Scheme | Rule) -> None:
    """Within 5 % of the bytes that the planned step needs."""
    example = make()
    plan = prepare(
        example.model, example.batch, loss=example.loss, optimizer=SGD(), scheme=rule
    ).plan
    found = memory_of(example).peak_bytes(rule.resolve(example.model))
    assert found == pytest.approx(plan.entries["step"].arena_bytes, rel=TOLERANCE)


def test_more_costs_more() -> None:
    """A weight takes no less than nothing; a larger part more work."""
    example = conv_net()
    memory = memory_of(example)
    name = "blocks.1.layers.0.weight"
    head = {"head.weight": 1.0}
    schemes = [head, *({**head, name: ratio} for ratio in (0.25, 0.5, 1.0))]
    lives = [memory.lives(scheme) for scheme in schemes]
    peaks = [each.peak_bytes for each in lives]
    flops = [each.amounts[0] for each in lives]
    assert peaks[0] == min(peaks)
    assert flops == sorted(flops)
    assert flops[0] < flops[-1]


def test_live_bytes_are_those_of_the_lives() -> None:
    """Each point counts what is live there, and no more."""
    lives = memory_of(conv_net()).lives({"head.weight": 1.0})
    expected = [
        int(lives.nbytes[(lives.first <= point) & (point <= lives.last)].sum())
        for point in range(lives.points)
    ]
    assert lives.live_bytes.tolist() == expected
    assert np.max(expected) == lives.peak_bytes
