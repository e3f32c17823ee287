"""All that a profile tries: the head, biases of the last k layers, weights in parts."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence

from torch import nn

from pockengine.contribution.choice import Choice
from pockengine.contribution.fronts import updated_from
from pockengine.contribution.layers import Layer
from pockengine.contribution.measured import Sensitivity
from pockengine.contribution.trial import Candidate


def bias_choices(layers: Sequence[Layer]) -> list[Choice]:
    """The biases of the last 0, 1, 2, ... layers."""
    return [Choice(count) for count in range(len(layers) + 1)]


def weight_choices(
    layers: Sequence[Layer], ratios: Sequence[float], model: nn.Module
) -> list[Choice]:
    """Each weight at each ratio, with the biases from its layer on.

    A ratio that gives as many channels as a smaller one is left out, and so are parts of a weight
    that is updated as a whole or not at all.
    """
    found = []
    for index, layer in enumerate(layers):
        seen = set()
        for ratio in sorted(ratios):
            if ratio < 1 and not layer.sliceable:
                continue
            choice = Choice(len(layers) - index, {index: ratio})
            parts = choice.scheme(layers, ()).channels(model)
            count = parts[layer.weight].count if layer.weight in parts else None
            if count not in seen:
                seen.add(count)
                found.append(choice)
    return found


def plain_choices(sensitivity: Sensitivity, fits: Callable[[Choice], bool]) -> list[Choice]:
    """The most biases, and the most whole layers, from the output on, that fit.

    Args:
        sensitivity: of weights in parts; whole is the largest of them.
        fits: whether a choice does; each needs more than those of fewer layers.
    """
    count = len(sensitivity.layers)
    largest = dict(sorted(sensitivity.weights))  # the last of a layer stays
    tails = [Choice(k) for k in range(count + 1)]
    wholes = [
        Choice(k, {index: ratio for index, ratio in largest.items() if index >= count - k})
        for k in range(count + 1)
    ]
    return [
        series[max(bisect_left(series, True, key=lambda choice: not fits(choice)) - 1, 0)]
        for series in (tails, wholes)
    ]


def candidate_of(
    choice: Choice,
    layers: Sequence[Layer],
    head: Sequence[str],
    model: nn.Module,
    cuts: Sequence[int],
) -> Candidate:
    """A choice as what a trial trains.

    Args:
        choice: what is updated.
        layers: of the model.
        head: names of its parameters.
        model: knows the channels of its weights.
        cuts: for each place where a front may end, whose values are kept for it, or -1.
    """
    scheme = choice.scheme(layers, head).resolve(model)
    cut = cuts[choice.first(len(layers))]
    return Candidate(
        fractions=tuple(sorted(scheme.items())),
        channels=tuple(sorted(scheme.channels(model).items(), key=lambda part: part[0])),
        before=updated_from(layers, head, cut) if cut >= 0 else (),
        cut=cut,
    )
