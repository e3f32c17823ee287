"""Schemes at random, for what a profile predicts of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from pockengine.contribution.choice import Choice

if TYPE_CHECKING:
    from experiments.contribution.compare import Comparison

COUNT, SEEDS, SPREAD = 20, (0, 1), (0.05, 1.0)


def random(comparison: Comparison) -> list[Choice]:
    """Schemes spread over the range of memory: some biases, then weights as they fit."""
    costs, rng = comparison.report.costs(), np.random.default_rng(0)
    count = len(comparison.begun.layers)
    low = costs.memory_bytes(Choice(0))
    high = costs.memory_bytes(comparison.everything)
    known = list(comparison.report.sensitivity.weights)
    found = []
    for share in np.linspace(*SPREAD, COUNT):
        limit = low + share * (high - low)
        fitting = [
            k for k in range(count + 1) if costs.memory_bytes(Choice(k)) <= (low + limit) / 2
        ]
        choice = Choice(int(rng.choice(fitting)))
        for index in rng.permutation(len(known)):
            layer, ratio = known[index]
            if layer in choice.weights:
                continue
            more = Choice(choice.biases, {**choice.weights, layer: ratio})
            if costs.memory_bytes(more) <= limit:
                choice = more
        found.append(choice)
    return found


def predicted(comparison: Comparison) -> list[dict[str, Any]]:
    """Train what is missing of the random schemes; their gains beside what was predicted."""
    report, rate = comparison.report, (comparison.pair.lr, 0)  # as the profile was measured
    choices = {f"random {index}": choice for index, choice in enumerate(random(comparison))}
    named = {name: comparison.candidate(c) for name, c in {**choices, "head": Choice(0)}.items()}
    comparison.train([(each, rate, SEEDS) for each in named.values()])
    found = {
        name: np.array(comparison.accuracies(each, rate, SEEDS)) for name, each in named.items()
    }
    return [
        {
            "biases": choice.biases,
            "weights": list(choice.weights.items()),
            "memory_bytes": report.costs().memory_bytes(choice),
            "predicted": report.sensitivity.predicted(choice),
            "gains": (found[name] - found["head"]).tolist(),
        }
        for name, choice in choices.items()
    ]
