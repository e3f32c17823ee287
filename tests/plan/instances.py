"""Packing problems with a known best arena, and the shape of a training step's buffers."""

from __future__ import annotations

import random
from collections.abc import Sequence

from pockengine.plan.model import Buffer

CAPACITY = 1 << 20


def named(rows: Sequence[tuple[int, int, int]]) -> list[Buffer]:
    """Buffers of (lower, upper, size), named by position."""
    return [
        Buffer(id=str(index), lower=lower, upper=upper, size=size)
        for index, (lower, upper, size) in enumerate(rows)
    ]


def perfect(pieces: int, seed: int, *, unit: int = 1024, steps: int = 1000) -> list[Buffer]:
    """A rectangle of time and CAPACITY bytes cut into pieces: nothing is free at any time."""
    rng = random.Random(seed)  # noqa: S311 - reproducible, not secret
    tiles = [(0, steps, 0, CAPACITY // unit)]
    while len(tiles) < pieces:
        area = [(b - a) * (d - c) * rng.random() for a, b, c, d in tiles]
        a, b, c, d = tiles.pop(area.index(max(area)))
        if rng.random() < 0.5 and b - a > 1:
            cut = rng.randint(a + 1, b - 1)
            tiles += [(a, cut, c, d), (cut, b, c, d)]
        elif d - c > 1:
            cut = rng.randint(c + 1, d - 1)
            tiles += [(a, b, c, cut), (a, b, cut, d)]
        else:
            tiles.append((a, b, c, d))
    rng.shuffle(tiles)
    return named([(a, b, (d - c) * unit) for a, b, c, d in tiles])


def shrunk(pieces: int, seed: int, share: float) -> list[Buffer]:
    """A perfect packing whose pieces lose up to ``share`` of their bytes: nothing matches."""
    rng = random.Random(seed)  # noqa: S311 - reproducible, not secret
    rows = [(b.lower, b.upper, b.size) for b in perfect(pieces, seed, unit=1)]
    return named([(low, up, int(size * rng.uniform(1 - share, 1)) + 1) for low, up, size in rows])


def dropped(pieces: int, seed: int, share: float) -> list[Buffer]:
    """A perfect packing of which a share of the pieces is missing."""
    rng = random.Random(seed)  # noqa: S311 - reproducible, not secret
    kept = [b for b in perfect(pieces, seed) if rng.random() >= share]
    return named([(b.lower, b.upper, b.size) for b in kept])


def intervals(count: int, seed: int) -> list[Buffer]:
    """Unrelated buffers: lifetimes of exponential length, sizes uniform in their logarithm."""
    rng = random.Random(seed)  # noqa: S311 - reproducible, not secret
    rows = []
    for _ in range(count):
        lower = rng.randrange(1000)
        length = int(rng.expovariate(1 / rng.choice([20, 60, 150]))) + 1
        rows.append((lower, lower + length, int(2 ** rng.uniform(4, 16))))
    return named(rows)


def training(layers: int, seed: int) -> list[Buffer]:
    """Activations saved until their backward step, gradients and scratch that soon die."""
    rng = random.Random(seed)  # noqa: S311 - reproducible, not secret
    rows = []
    for layer in range(layers):
        forward, backward = 3 * layer, 6 * layers - 3 * (layer + 1)
        size = rng.choice([1, 2, 3, 4, 6, 8, 12, 16]) * rng.choice([960, 1024, 4096])
        saved = rng.random() < 0.6
        rows.append((forward, backward + 2 if saved else forward + 6, size))
        rows.append((backward, backward + 4, size))
        if rng.random() < 0.5:
            rows.append((forward + 1, forward + 3, rng.choice([1, 2, 3, 5]) * size))
            rows.append((forward, backward + 1, size // 32 + 4))
        if rng.random() < 0.5:
            rows.append((backward + 1, backward + 3, rng.randint(1, 40) * 1000))
    return named(rows)
