"""What a report shows beside the sensitivity, as plain data: costs, a front and a check."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pockengine.contribution.choice import Choice
from pockengine.contribution.measured import Sensitivity
from pockengine.errors import InputError


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerCost:
    """What a training step costs more where a part of a layer's weight is updated.

    Args:
        layer: its index.
        ratio: part of the weight's input channels, compared with a backward pass that reaches this
            layer anyway. 0 stands for no weight: the biases of this layer and of all after it,
            compared with a step of the head alone.
        memory_bytes: at the peak.
        step_ms: of time; None where the target gives no rates.
        joules: of energy; None where the target gives none.
    """

    layer: int
    ratio: float
    memory_bytes: int
    step_ms: float | None = None
    joules: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class FrontPoint:
    """A choice that no other one beats in both predicted gain and memory.

    Args:
        choice: biases and parts of weights.
        gain: predicted, over training the head alone, in fractions of 1.
        memory_bytes: of a training step, at its peak.
        step_ms: its time; None where it is not known.
        joules: its energy; None where it is not known.
    """

    choice: Choice
    gain: float
    memory_bytes: int
    step_ms: float | None = None
    joules: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """A choice that was trained as a whole, to see whether its gain is the sum of its parts'.

    Args:
        choice: biases and parts of weights.
        predicted: gain over training the head alone, in fractions of 1.
        measured: the same, mean over seeds.
        low: lower end of its 95 % interval.
        high: upper end.
    """

    choice: Choice
    predicted: float
    measured: float
    low: float
    high: float


def check_fits(
    sensitivity: Sensitivity,
    costs: Sequence[LayerCost],
    chosen: Sequence[FrontPoint | Checked],
) -> None:
    """Whether what is shown beside a sensitivity is of the same layers.

    Raises:
        InputError: a layer is named that the sensitivity does not have.
    """
    count = len(sensitivity.layers)
    named = [("a cost", cost.layer) for cost in costs]
    named += [("a choice", index) for each in chosen for index in each.choice.weights]
    named += [
        ("a choice of biases", each.choice.biases - 1) for each in chosen if each.choice.biases
    ]
    for what, index in named:
        if not 0 <= index < count:
            raise InputError(
                where="report of a sensitivity",
                found=f"{what} of layer {index}",
                needed=f"one of the {count} layers that were measured",
                remedy="Give costs and choices of the same model as the sensitivity",
            )
