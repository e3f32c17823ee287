"""All that a profile tries: the head, biases of the last k layers, weights in parts."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from pockengine.contribution.choice import Choice
from pockengine.contribution.fronts import updated_from
from pockengine.contribution.layers import Layer
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
