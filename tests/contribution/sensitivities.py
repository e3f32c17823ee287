"""Made-up gains, for what only needs some."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pockengine.contribution.choice import Choice
from pockengine.contribution.layers import Layer
from pockengine.contribution.measured import Gain, Sensitivity


def layers_of(count: int) -> tuple[Layer, ...]:
    """Layers named by their index."""
    return tuple(
        Layer(
            name=f"{index}",
            weight=f"{index}.weight",
            biases=(f"{index}.bias",),
            role="",
            block="",
            shape=(8, 8),
            sliceable=True,
        )
        for index in range(count)
    )


def sensitivity(
    biases: Sequence[float],
    weights: Mapping[tuple[int, float], float],
    layers: Sequence[Layer] | None = None,
    head: Sequence[str] = (),
) -> Sensitivity:
    """Gains by count of biases, and by layer and ratio."""
    count = len(biases)
    return Sensitivity(
        layers=tuple(layers or layers_of(count)),
        head=tuple(head),
        baseline=_gain(Choice(0), 0.0),
        biases=tuple(_gain(Choice(k), mean) for k, mean in enumerate(biases, start=1)),
        weights={
            (layer, ratio): _gain(Choice(count - layer, {layer: ratio}), mean)
            for (layer, ratio), mean in weights.items()
        },
        settings={},
    )


def _gain(choice: Choice, mean: float) -> Gain:
    return Gain(choice=choice, mean=mean, low=mean, high=mean, accuracy=mean, steps=1, seeds=1)
