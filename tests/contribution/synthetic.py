"""Sensitivities that nobody measured, of real shapes: to see how a report looks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import prod, sqrt

import numpy as np
from scipy.stats import spearmanr

from pockengine.contribution.choice import RATIOS, Choice
from pockengine.contribution.layers import Layer
from pockengine.contribution.measured import Gain, Sensitivity
from pockengine.contribution.shown import Checked, FrontPoint, LayerCost

_INVERTED = ((1, 16, 1), (6, 24, 2), (6, 32, 3), (6, 64, 4), (6, 96, 3), (6, 160, 3), (6, 320, 1))


def mobilenet_layers() -> tuple[Layer, ...]:
    """The 52 convolutions of MobileNetV2."""
    found = [_layer("features.0.0", "stem", "", (32, 3, 3, 3))]
    cin, block = 32, 1
    for expansion, cout, repeats in _INVERTED:
        for _ in range(repeats):
            path, hidden = f"features.{block}", cin * expansion
            rows = [
                *[("first point-wise", (hidden, cin, 1, 1))] * (expansion > 1),
                ("depthwise", (hidden, 1, 3, 3)),
                ("second point-wise", (cout, hidden, 1, 1)),
            ]
            found += [
                _layer(f"{path}.conv.{i}.0", *row[:1], path, row[1]) for i, row in enumerate(rows)
            ]
            cin, block = cout, block + 1
    found.append(_layer("features.18.0", "last point-wise", "", (1280, 320, 1, 1)))
    return tuple(found)


def bert_layers(blocks: int = 6, width: int = 384) -> tuple[Layer, ...]:
    """Six products a block of an encoder."""
    rows = [
        *((f"attention.self.{role}", role, (width, width)) for role in ("query", "key", "value")),
        ("attention.output.dense", "attention output", (width, width)),
        ("intermediate.dense", "first FFN", (4 * width, width)),
        ("output.dense", "second FFN", (width, 4 * width)),
    ]
    paths = [f"bert.encoder.layer.{block}" for block in range(blocks)]
    return tuple(
        _layer(f"{path}.{name}", role, path, shape) for path in paths for name, role, shape in rows
    )


def plain_layers(count: int) -> tuple[Layer, ...]:
    """So many linear layers in no block."""
    return tuple(_layer(f"layer{i}", "linear", "", (8, 8)) for i in range(count))


def sensitivity(
    layers: Sequence[Layer],
    *,
    ratios: Sequence[float] = RATIOS,
    seed: int = 0,
    noise: float = 0.006,
) -> Sensitivity:
    """Gains that rise towards the end and with the part, with noise; a few stopped early."""
    random, count, base = np.random.default_rng(seed), len(layers), 0.634
    worth = [_worth(random, index / count) for index in range(count)]
    weights = {}
    for index, layer in enumerate(layers):
        for ratio in ratios if layer.sliceable else (1.0,):
            true = worth[index] * ratio**0.4 - 0.002
            choice = Choice(count - index, {index: ratio})
            estimate = abs(true) * random.uniform(0.3, 3)
            steps = 100 if true < 0 and random.random() < 0.5 else 400
            weights[index, ratio] = _gain(random, choice, true, noise, base + 0.03, steps, estimate)
    biases = [
        _gain(random, Choice(k), 0.05 * (k / count) ** 0.5, noise, base, 400)
        for k in range(1, count + 1)
    ]
    estimates = [gain.estimate for gain in weights.values()]
    found = (
        spearmanr(estimates, [gain.mean for gain in weights.values()]).statistic
        if len(weights) > 2
        else None
    )
    return Sensitivity(
        layers=tuple(layers),
        head=("classifier.weight", "classifier.bias"),
        baseline=Gain(
            choice=Choice(0), mean=0.0, low=0.0, high=0.0, accuracy=base, steps=400, seeds=3
        ),
        biases=tuple(biases),
        weights=weights,
        settings={
            "model": "synthetic",
            "task": "none",
            "optimizer": "SGD, momentum 0.9",
            "batch": 32,
        },
        rank_correlation=None if found is None else float(found),
    )


def alone(gain: Gain) -> Gain:
    """A gain of one seed where no candidate had another."""
    return replace(gain, seeds=1, low=gain.mean, high=gain.mean)


def costs(layers: Sequence[Layer], *, ratios: Sequence[float] = RATIOS) -> list[LayerCost]:
    """Bytes as weights have, and time and energy as bytes."""
    found = []
    for index, layer in enumerate(layers):
        for ratio in (0.0, *(ratios if layer.sliceable else (1.0,))):
            reach = (len(layers) - index) * 30_000
            size = int(4 * prod(layer.shape) * ratio) + 20_000 if ratio else reach
            found.append(
                LayerCost(
                    layer=index,
                    ratio=ratio,
                    memory_bytes=size,
                    step_ms=size / 4e5,
                    joules=size / 2e8,
                )
            )
    return found


def front(found: Sequence[LayerCost], sensitivity: Sensitivity) -> list[FrontPoint]:
    """Weights taken greedily by gain a byte, with the biases of the last half."""
    size = {(cost.layer, cost.ratio): cost.memory_bytes for cost in found}
    count, chosen = len(sensitivity.layers), dict[int, float]()
    ranked = sorted(sensitivity.weights, key=lambda key: -sensitivity.weights[key].mean / size[key])
    points = [_point(sensitivity, Choice(count // 2), size)]
    for index, ratio in ranked:
        if index in chosen or index < count // 2 or sensitivity.weights[index, ratio].mean <= 0:
            continue
        chosen[index] = ratio
        points.append(_point(sensitivity, Choice(count // 2, dict(chosen)), size))
    return points


def checked(points: Sequence[FrontPoint], *, seed: int = 0) -> list[Checked]:
    """Choices that gain a little less than the sum of their parts."""
    random, found = np.random.default_rng(seed), []
    for point in points:
        measured = point.gain * 0.8 + random.normal(0, 0.006)
        found.append(
            Checked(
                choice=point.choice,
                predicted=point.gain,
                measured=measured,
                low=measured - 0.012,
                high=measured + 0.012,
            )
        )
    return found


def _layer(name: str, role: str, block: str, shape: tuple[int, ...]) -> Layer:
    return Layer(
        name=name, weight=f"{name}.weight", biases=(f"{name}.bias",), role=role, block=block,
        shape=shape, sliceable=role != "depthwise",
    )  # fmt: skip


def _worth(random: np.random.Generator, place: float) -> float:
    return max(0.0, random.normal(0.010, 0.008)) * (0.3 + place)


def _gain(
    random: np.random.Generator,
    choice: Choice,
    true: float,
    noise: float,
    base: float,
    steps: int,
    estimate: float | None = None,
) -> Gain:
    mean = random.normal(true, noise / sqrt(3))
    half = noise * random.uniform(0.7, 1.6)
    return Gain(
        choice=choice, mean=mean, low=mean - half, high=mean + half, accuracy=base + mean,
        steps=steps, seeds=3, estimate=estimate,
    )  # fmt: skip


def _point(
    sensitivity: Sensitivity, choice: Choice, size: dict[tuple[int, float], int]
) -> FrontPoint:
    nbytes = 2_000_000 + sum(size[part] for part in choice.weights.items())
    gain = sensitivity.predicted(choice)
    return FrontPoint(
        choice=choice, gain=gain, memory_bytes=nbytes, step_ms=nbytes / 4e5, joules=nbytes / 2e8
    )
