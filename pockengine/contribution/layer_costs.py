"""What the update of a part of each layer costs, as a report shows it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from pockengine.contribution.choice import Choice
from pockengine.contribution.costs import CostTable
from pockengine.contribution.measured import Sensitivity
from pockengine.contribution.shown import LayerCost
from pockengine.errors import InputError
from pockengine.plan.amounts import energy_joules_of, step_ms_of
from pockengine.targets import Target


def layer_costs(sensitivity: Sensitivity, costs: CostTable, target: Target) -> list[LayerCost]:
    """What weights add to the biases behind them, and those to the head alone.

    Args:
        sensitivity: whose layers and parts are told.
        costs: of all choices.
        target: the machine; what it does not tell is None.
    """
    count = len(sensitivity.layers)
    behind = {index: Choice(count - index) for index in range(count)}
    pairs = [(index, 0.0, choice, Choice(0)) for index, choice in behind.items()]
    pairs += [
        (index, ratio, replace(behind[index], weights={index: ratio}), behind[index])
        for index, ratio in sensitivity.weights
    ]
    return [
        LayerCost(
            layer=index,
            ratio=ratio,
            memory_bytes=costs.memory_bytes(choice) - costs.memory_bytes(base),
            step_ms=_more(costs, choice, base, target, step_ms_of),
            joules=_more(costs, choice, base, target, energy_joules_of),
        )
        for index, ratio, choice, base in pairs
    ]


def _more(
    costs: CostTable, choice: Choice, base: Choice, target: Target, rates_of: Callable[..., Any]
) -> float | None:
    """What a choice takes more than another; None where the target does not tell."""
    try:
        rates = rates_of(target)
    except InputError:
        return None
    return costs.amount(choice, rates) - costs.amount(base, rates)
