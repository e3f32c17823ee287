"""The built-in tasks: they need no download, always work, and say little about real data."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from pockengine.tasks.task import Task, split

_LICENCE = "Apache-2.0"
_SOURCE = "made by pockengine"
_SHAPES = ("circle", "square", "triangle", "cross")
_SHAPES_PER_CLASS = 250
_PHRASES_PER_CLASS = 500
_NOISE = 12.0

_THINGS = "film book song meal room phone train park lamp coat game show trip shop chair".split()
_SCENES = "today|last week|at home|in the city|with friends|as ever|on the way|again".split("|")
_DEGREES = "very|really|quite|rather|so|truly".split("|")
_GOOD = "good great lovely superb charming delightful pleasant clever bright fine".split()
_BAD = "bad awful dreadful poor boring dull nasty ugly broken sad".split()


def shapes(*, size: int | None, limit: int | None, seed: int) -> Task:
    """Bright filled shapes at any place, size and angle on dark noise, 32 px; four classes."""
    side, count = size or 32, limit or _SHAPES_PER_CLASS
    random = np.random.default_rng(seed)
    labels = np.repeat(np.arange(len(_SHAPES), dtype=np.int64), count)
    images = np.stack([_draw(_SHAPES[label], side, random) for label in labels])
    train, test = split(images, labels, seed)
    return Task(
        name="shapes",
        kind="image",
        train_inputs=train[0],
        train_labels=train[1],
        test_inputs=test[0],
        test_labels=test[1],
        classes=_SHAPES,
        licence=_LICENCE,
        source=_SOURCE,
    )


def phrases(*, limit: int | None, seed: int) -> Task:
    """Templated sentences about things, with negation; negative and positive."""
    count = limit or _PHRASES_PER_CLASS
    random = np.random.default_rng(seed)
    labels = np.repeat(np.arange(2, dtype=np.int64), count)
    sentences = [_phrase(int(label), random) for label in labels]
    texts = np.empty(len(sentences), dtype=np.object_)
    texts[:] = sentences
    train, test = split(texts, labels, seed)
    return Task(
        name="phrases",
        kind="text",
        train_inputs=train[0],
        train_labels=train[1],
        test_inputs=test[0],
        test_labels=test[1],
        classes=("negative", "positive"),
        licence=_LICENCE,
        source=_SOURCE,
    )


def _draw(shape: str, side: int, random: np.random.Generator) -> npt.NDArray[np.uint8]:
    """Return one picture, uint8 ``(side, side, 3)``."""
    columns, rows = np.meshgrid(*[np.linspace(-1, 1, side)] * 2)
    radius, angle = random.uniform(0.35, 0.6), random.uniform(-0.4, 0.4)
    across, down = random.uniform(-0.3, 0.3, size=2)
    x = ((columns - across) * np.cos(angle) + (rows - down) * np.sin(angle)) / radius
    y = ((rows - down) * np.cos(angle) - (columns - across) * np.sin(angle)) / radius
    ground, ink = random.uniform(0, 100, size=3), random.uniform(155, 255, size=3)
    picture = np.where(_inside(shape, x, y)[..., None], ink, ground)
    noisy = picture + random.normal(scale=_NOISE, size=picture.shape)
    return np.asarray(np.clip(noisy, 0, 255), dtype=np.uint8)


def _inside(
    shape: str, x: npt.NDArray[np.float64], y: npt.NDArray[np.float64]
) -> npt.NDArray[np.bool_]:
    """Tell which points of the shape's own coordinates (radius about 1) it covers."""
    match shape:
        case "circle":
            return x * x + y * y < 1
        case "square":
            return np.maximum(np.abs(x), np.abs(y)) < 0.85
        case "triangle":
            return (y < 0.6) & (y > 1.9 * np.abs(x) - 1.1)
        case _:
            near, far = np.minimum(np.abs(x), np.abs(y)), np.maximum(np.abs(x), np.abs(y))
            return (near < 0.3) & (far < 1)


def _phrase(label: int, random: np.random.Generator) -> str:
    negated = random.random() < 0.3
    word = random.choice(_GOOD if label != negated else _BAD)
    degree = "" if negated else f"{random.choice(_DEGREES)} "
    verb = "was not" if negated else "was"
    return f"the {random.choice(_THINGS)} {verb} {degree}{word} {random.choice(_SCENES)}"
