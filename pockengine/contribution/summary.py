"""From outcomes of trials to what each layer is worth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import sqrt
from statistics import fmean
from typing import Any, TypeAlias

from pockengine.contribution.begin import Begun
from pockengine.contribution.choice import Choice
from pockengine.contribution.expected import continued, shrunk, walked
from pockengine.contribution.intervals import Spread, paired, pooled, rank_correlation, spread_over
from pockengine.contribution.measured import ALL_BIASES, ALL_WEIGHTS, Gain, Sensitivity
from pockengine.contribution.pool import Outcomes
from pockengine.contribution.saturation import Saturation, saturation
from pockengine.contribution.trial import Outcome

_Kind: TypeAlias = tuple[bool, int]
"""Whether a weight was trained beside the biases, and for how many steps."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """All that was measured.

    Args:
        biases: of the last 0, 1, 2, ... layers, by choice and seed.
        weights: of each weight in parts, likewise, as far as each was trained.
        estimates: of the gradients, by choice.
        together: of the largest part of every weight beside all biases.
    """

    biases: Outcomes
    weights: Outcomes
    estimates: Mapping[Choice, float]
    together: Outcomes


def summarize(begun: Begun, measured: Measured, settings: Mapping[str, Any]) -> Sensitivity:
    """Gains of biases over the head alone, and of weights over the biases behind them.

    Args:
        begun: the study.
        measured: its outcomes.
        settings: for the report.
    """
    head = measured.biases[Choice(0)]
    base = {choice: _behind(choice) for choice in measured.weights}
    compared = {
        **{choice: (found, head) for choice, found in measured.biases.items() if choice.biases},
        **{c: (found, measured.biases[base[c]]) for c, found in measured.weights.items()},
    }
    differences = {choice: differences_of(*pair) for choice, pair in compared.items()}
    spreads = _spreads(begun, compared, differences)
    gains = {
        choice: _gain(choice, compared[choice][0], values, spreads[_kind(choice, compared)])
        for choice, values in differences.items()
    }
    for choice, expected in _expected(gains, compared, spreads, measured.estimates).items():
        estimate = measured.estimates[choice]
        gains[choice] = replace(gains[choice], expected=expected, estimate=estimate)
    weights = {next(iter(choice.weights.items())): gains[choice] for choice in measured.weights}
    ((whole, outcomes),) = measured.together.items()
    together = differences_of(outcomes, measured.biases[Choice(whole.biases)])
    return Sensitivity(
        layers=begun.layers,
        head=begun.head,
        baseline=_gain(Choice(0), head, [0.0] * len(head), Spread(0.0, 1)),
        biases=tuple(gains[choice] for choice in measured.biases if choice.biases),
        weights=weights,
        settings={
            **settings,
            ALL_BIASES: gains[Choice(whole.biases)].mean,
            ALL_WEIGHTS: fmean(together),
        },
        rank_correlation=_agreement(list(weights.values())),
        saturation=_saturation(gains, whole, together, spreads[True, _steps(outcomes)]),
    )


def _saturation(
    gains: Mapping[Choice, Gain], whole: Choice, together: Sequence[float], spread: Spread
) -> Saturation:
    """That which explains what all weights gain beside all biases.

    They may lose, where so many fall apart at this learning rate; one alone still gains what it
    gains, and all at least what cannot be told from nothing.
    """
    biases = {choice: gain.counted for choice, gain in gains.items() if not choice.weights}
    weights = {part: gain for choice, gain in gains.items() for part in choice.weights.items()}
    parts = [
        (weights[part].counted, biases.get(_behind(weights[part].choice), 0.0))
        for part in whole.weights.items()
    ]
    noise = sqrt(spread.variance / len(together))
    all_biases = biases[Choice(whole.biases)]
    return saturation(all_biases, parts, all_biases + max(fmean(together), noise))


def differences_of(
    ours: Mapping[int, Any], theirs: Mapping[int, Any], *, stop: int | None = None
) -> list[float]:
    """Ours less theirs after so many steps, of seeds that both were measured with there.

    None for where ours was last measured.
    """
    at = _steps(ours) if stop is None else stop
    return paired(_accuracies(ours, at), _accuracies(theirs, at))


def _accuracies(outcomes: Mapping[int, Any], step: int) -> dict[int, float]:
    curves = {seed: dict(outcome.curve) for seed, outcome in outcomes.items()}
    return {seed: curve[step] for seed, curve in curves.items() if step in curve}


def longer(first: Mapping[int, Outcome], then: Mapping[int, Outcome]) -> dict[int, Outcome]:
    """By seed, outcomes of trials that went on where first ones ended, with the curves of both."""
    return {
        seed: replace(outcome, curve=(*first[seed].curve, *outcome.curve))
        if seed in first
        else outcome
        for seed, outcome in then.items()
    }


def _behind(choice: Choice) -> Choice:
    """The biases that a weight was trained with."""
    return Choice(choice.biases)


def _steps(outcomes: Mapping[int, Any]) -> int:
    steps: int = next(iter(outcomes.values())).curve[-1][0]
    return steps


def _kind(choice: Choice, compared: Mapping[Choice, Any]) -> _Kind:
    return bool(choice.weights), _steps(compared[choice][0])


def _spreads(
    begun: Begun, compared: Mapping[Choice, Any], differences: Mapping[Choice, Sequence[float]]
) -> dict[_Kind, Spread]:
    """How far one seed lies from the mean, over all of a kind."""
    samples = begun.study.rows["test"]
    groups: dict[_Kind, list[Sequence[float]]] = {}
    for choice, values in differences.items():
        groups.setdefault(_kind(choice, compared), []).append(values)
    several = any(len(values) > 1 for values in differences.values())
    return {
        kind: spread_over([value for (value,) in group])
        if several and len(group) > 1 and all(len(values) == 1 for values in group)
        else pooled(group, samples)
        for kind, group in groups.items()
    }


def _expected(
    gains: Mapping[Choice, Gain],
    compared: Mapping[Choice, tuple[Mapping[int, Outcome], Mapping[int, Outcome]]],
    spreads: Mapping[_Kind, Spread],
    estimates: Mapping[Choice, float],
) -> dict[Choice, float]:
    """What to count on of each gain, at the end of a whole run."""
    ahead = {choice: max(estimates[choice], 0.0) for choice in gains}
    kinds: dict[_Kind, list[Choice]] = {}
    for choice in gains:
        kinds.setdefault(_kind(choice, compared), []).append(choice)
    most = max(steps for _, steps in kinds)
    found: dict[Choice, float] = {}
    for (is_weight, steps), choices in kinds.items():
        noise = spreads[is_weight, steps].variance / gains[choices[0]].seeds
        whole = kinds.get((is_weight, most), [])
        lucky = luck([compared[choice] for choice in whole])
        means = [gains[choice].mean - lucky * (steps == most) for choice in choices]
        likely = [ahead[choice] for choice in choices]
        if steps < most and len(whole) > 1:
            expected = continued(
                means,
                likely,
                sooner=[fmean(differences_of(*compared[choice], stop=steps)) for choice in whole],
                beside=[ahead[choice] for choice in whole],
                later=[gains[choice].mean - lucky for choice in whole],
            )
        elif is_weight:
            expected = shrunk(means, noise, likely)
        else:
            expected = walked(means, noise)
        found |= zip(choices, expected, strict=True)
    return found


def luck(
    compared: Sequence[tuple[Mapping[int, Outcome], Mapping[int, Outcome]]],
) -> float:
    """How much better candidates look by the seeds that they were chosen by, than by all others.

    Those were measured before the end of the run.
    """
    new = [
        ({seed: outcome for seed, outcome in ours.items() if len(outcome.curve) == 1}, theirs)
        for ours, theirs in compared
    ]
    fresh = [value for pair in new if pair[0] for value in differences_of(*pair)]
    values = [value for pair in compared for value in differences_of(*pair)]
    return fmean(values) - fmean(fresh) if 0 < len(fresh) < len(values) else 0.0


def _gain(
    choice: Choice, outcomes: Mapping[int, Any], values: Sequence[float], spread: Spread
) -> Gain:
    mean = fmean(values)
    half = spread.half_width(len(values)) if spread.is_measured else 0.0
    accuracies = [outcome.curve[-1][1] for outcome in outcomes.values()]
    return Gain(
        choice=choice,
        mean=mean,
        low=mean - half,
        high=mean + half,
        accuracy=fmean(accuracies),
        steps=_steps(outcomes),
        seeds=len(values),
    )


def _agreement(gains: Sequence[Gain]) -> float | None:
    """Of estimates with what was measured."""
    pairs = [(gain.estimate, gain.mean) for gain in gains if gain.estimate is not None]
    return rank_correlation(pairs)
