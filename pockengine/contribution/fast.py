"""A sensitivity from estimates: three candidates are measured, and share their gains out."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import fmean
from typing import Any

from pockengine.contribution.begin import Begun
from pockengine.contribution.choice import Choice
from pockengine.contribution.measured import ALL_BIASES, ALL_WEIGHTS, Gain, Sensitivity
from pockengine.contribution.pool import Outcomes
from pockengine.contribution.summary import differences_of

_LEAST = 1e-3  # of accuracy: what all biases, or all weights, are taken to gain at least


def spread(
    begun: Begun, ends: Outcomes, estimates: Mapping[Choice, float], settings: Mapping[str, Any]
) -> Sensitivity:
    """Give each candidate a share of a measured gain, by its estimate.

    Args:
        begun: the study.
        ends: outcomes of the head alone, of all biases, and of everything.
        estimates: by choice: of each count of biases, and of each weight in parts.
        settings: for the report.
    """
    head, biases, whole = ends.values()
    count = len(begun.layers)
    of_biases = fmean(differences_of(biases, head))
    of_weights = fmean(differences_of(whole, biases))
    positive = {choice: max(value, 0.0) for choice, value in estimates.items()}
    full = sum(value for choice, value in positive.items() if 1.0 in choice.weights.values())
    scales = {
        False: max(of_biases, _LEAST) / (positive[Choice(count)] or 1.0),
        True: max(of_weights, _LEAST) / (full or 1.0),
    }
    accuracy = fmean([outcome.curve[-1][1] for outcome in head.values()])
    shares = {choice: scales[bool(choice.weights)] * value for choice, value in positive.items()}
    gains = {
        choice: Gain(
            choice=choice,
            mean=share,
            low=0.0,
            high=share,
            accuracy=accuracy + share,
            steps=0,
            seeds=0,
            estimate=estimates[choice],
        )
        for choice, share in shares.items()
    }
    steps = next(iter(head.values())).curve[-1][0]
    return Sensitivity(
        layers=begun.layers,
        head=begun.head,
        baseline=Gain(
            choice=Choice(0),
            mean=0.0,
            low=0.0,
            high=0.0,
            accuracy=accuracy,
            steps=steps,
            seeds=len(head),
        ),
        biases=tuple(gains[Choice(k)] for k in range(1, count + 1)),
        weights={
            next(iter(choice.weights.items())): gain
            for choice, gain in gains.items()
            if choice.weights
        },
        settings={**settings, ALL_BIASES: of_biases, ALL_WEIGHTS: of_weights},
    )
