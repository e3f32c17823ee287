"""What the profiler measured, as plain data: what the search reads and the report shows."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite
from typing import Any, Self

from pockengine.contribution.choice import Choice
from pockengine.contribution.layers import Layer
from pockengine.contribution.saturation import ADDITIVE, Saturation

ALL_BIASES, ALL_WEIGHTS = "all biases", "all weights"
"""Settings that tell what these gained together: over the head alone, and beside all biases."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Gain:
    """Held-out accuracy gained by a candidate over what it is compared with, in fractions of 1.

    Args:
        choice: the candidate.
        mean: over seeds; paired, as both start from the same head and see the same batches.
        low: lower end of the 95 % interval; the mean where there is none, as no candidate had
            several seeds.
        high: its upper end.
        accuracy: the candidate's own, mean over seeds.
        steps: how long each seed was trained; fewer than the longest where it was stopped early, 0
            where it was not trained at all, but its gain is a share of a measured one.
        seeds: how many.
        estimate: what the gradients of the untrained model say, in units of its own; None where
            it was not asked.
        expected: what to count on: the mean, drawn to what was expected ahead of it as far as it is
            likely noise; None for the mean.
    """

    choice: Choice
    mean: float
    low: float
    high: float
    accuracy: float
    steps: int
    seeds: int
    estimate: float | None = None
    expected: float | None = None

    @property
    def counted(self) -> float:
        """What predictions and the search count on."""
        return self.mean if self.expected is None else self.expected

    def stopped_early(self, most: int) -> bool:
        """Whether it was trained for less than ``most`` steps, but trained."""
        return 0 < self.steps < most


@dataclass(frozen=True, slots=True, kw_only=True)
class Sensitivity:
    """How much each layer is worth on a task.

    Args:
        layers: in the order of the forward pass, without the head.
        head: canonical names of the head's parameters.
        baseline: accuracy with only the head trained: ``Choice(0)``.
        biases: for k = 1, 2, ...: the gain of ``Choice(k)`` over the baseline.
        weights: by (layer, ratio): the gain of ``Choice(k, {layer: ratio})`` over ``Choice(k)``,
            where k reaches back to this layer: the backward pass goes there anyway.
        settings: how it was measured, for the report.
        rank_correlation: Spearman's, of the estimates with the measured gains of the weights; None
            where one of the two is missing.
        saturation: what the gains of several parts come to.
    """

    layers: tuple[Layer, ...]
    head: tuple[str, ...]
    baseline: Gain
    biases: tuple[Gain, ...]
    weights: Mapping[tuple[int, float], Gain]
    settings: Mapping[str, Any]
    rank_correlation: float | None = None
    saturation: Saturation = ADDITIVE

    def bias_gain(self, count: int) -> float:
        """Gain of the biases of the last ``count`` layers, as far as it is to be counted on."""
        return self.biases[count - 1].counted if count else 0.0

    def predicted(self, choice: Choice) -> float:
        """What is to be expected of a choice, from the gains of its parts."""
        parts = sum(self.part_amount(*part) for part in choice.weights.items())
        return self.saturation.gain(self.bias_amount(choice.biases) + parts)

    def bias_amount(self, count: int) -> float:
        """What the biases of the last ``count`` layers add to the sum that saturates."""
        return self.saturation.amount(self.bias_gain(count))

    def part_amount(self, layer: int, ratio: float) -> float:
        """What a part of a weight adds to it."""
        gain = self.weights[layer, ratio]
        return self.saturation.amount(gain.counted, self.bias_gain(gain.choice.biases))

    def to_json(self) -> str:
        """All of it as a JSON document."""
        document = {
            "format": "pockengine.sensitivity",
            "version": 1,
            "layers": [layer.to_dict() for layer in self.layers],
            "head": list(self.head),
            "baseline": _plain(self.baseline),
            "biases": [_plain(gain) for gain in self.biases],
            "weights": [_plain(gain) for gain in self.weights.values()],
            "settings": dict(self.settings),
            "rank_correlation": self.rank_correlation,
            "ceiling": self.saturation.ceiling if isfinite(self.saturation.ceiling) else None,
        }
        return json.dumps(document, indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Self:
        """What ``to_json`` wrote."""
        document = json.loads(text)
        ceiling = document["ceiling"]
        weights = [_gain(each) for each in document["weights"]]
        return cls(
            layers=tuple(Layer.from_dict(each) for each in document["layers"]),
            head=tuple(document["head"]),
            baseline=_gain(document["baseline"]),
            biases=tuple(_gain(each) for each in document["biases"]),
            weights={next(iter(gain.choice.weights.items())): gain for gain in weights},
            settings=document["settings"],
            rank_correlation=document["rank_correlation"],
            saturation=ADDITIVE if ceiling is None else Saturation(ceiling),
        )


def _plain(gain: Gain) -> dict[str, Any]:
    choice = {"biases": gain.choice.biases, "weights": list(gain.choice.weights.items())}
    values = {name: getattr(gain, name) for name in Gain.__slots__ if name != "choice"}
    return {"choice": choice, **values}


def _gain(values: Mapping[str, Any]) -> Gain:
    choice = Choice(values["choice"]["biases"], dict(values["choice"]["weights"]))
    return Gain(**{**values, "choice": choice})
