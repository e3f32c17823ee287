"""What the demo fine-tunes; baseline.py found the settings of the pretrained models."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from baseline import movie_data, openclipart_data
from data import Data, image_data, text_data
from torch import nn

import pockengine as pe
from pockengine.scheme import Rule
from pockengine.tasks import EncoderShape, load_task, mini_lm, mobilenet_v2, word_vocabulary

SHAPES_SIZE = 32  # pixels
PHRASE_TOKENS = 16
PHRASE_WORDS = 64  # the built-in phrases have fewer


@dataclass(frozen=True, slots=True)
class Run:
    """One scheme, and how fast and how long it learns."""

    name: str
    scheme: Rule
    lr: float
    epochs: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A model and a task, fine-tuned by several schemes.

    Attributes:
        title: of its table.
        data: loads the task.
        model: makes the model for a number of classes.
        optimizer: of all runs.
        runs: the schemes.
        instead: the built-in job where data or weights cannot be had; "" for a built-in one.
    """

    title: str
    data: Callable[[], Data]
    model: Callable[[int], nn.Module]
    optimizer: pe.SGD | pe.AdamW
    runs: tuple[Run, ...]
    instead: str = ""


def shapes_data() -> Data:
    """Return drawn shapes of four kinds."""
    return image_data(load_task("shapes"), SHAPES_SIZE)


def phrases_data() -> Data:
    """Return templated sentences, negative and positive."""
    task = load_task("phrases")
    return text_data(task, word_vocabulary(task.train_inputs), PHRASE_TOKENS)


def small_network(classes: int) -> nn.Module:
    """Return three strided convolutions and a linear head, for pictures of ``SHAPES_SIZE``."""
    return nn.Sequential(
        *(nn.Conv2d(3, 16, 3, stride=2, padding=1), nn.ReLU()),
        *(nn.Conv2d(16, 32, 3, stride=2, padding=1), nn.ReLU()),
        *(nn.Conv2d(32, 64, 3, stride=2, padding=1), nn.ReLU()),
        nn.Flatten(),
        nn.Linear(64 * (SHAPES_SIZE // 8) ** 2, classes),
    )


def small_encoder(classes: int) -> nn.Module:
    """Return a BERT encoder of two narrow layers."""
    shape = EncoderShape(
        layers=2,
        width=64,
        heads=4,
        intermediate=128,
        vocabulary=PHRASE_WORDS,
        positions=PHRASE_TOKENS,
    )
    return mini_lm(classes, shape=shape)


JOBS: dict[str, Job] = {
    "openclipart": Job(
        title="MobileNetV2, pretrained: clip art of eight topics, 128 px",
        data=openclipart_data,
        model=lambda classes: mobilenet_v2(classes=classes, pretrained=True),
        optimizer=pe.SGD(momentum=0.9),
        runs=(
            Run("last 3 blocks", pe.Scheme.last_blocks(3), 1e-3, 4),
            Run("full", pe.Scheme.full(), 1e-3, 4),
        ),
        instead="shapes",
    ),
    "sentiment-movie": Job(
        title="MiniLM, pretrained: sentiment of film snippets, 64 tokens",
        data=movie_data,
        model=lambda classes: mini_lm(classes, pretrained=True),
        optimizer=pe.SGD(momentum=0.9),
        runs=(
            Run("last 2 blocks", pe.Scheme.last_blocks(2), 1e-2, 3),
            Run("full", pe.Scheme.full(), 3e-3, 3),
        ),
        instead="phrases",
    ),
    "shapes": Job(
        title="Small network, random weights: drawn shapes, 32 px",
        data=shapes_data,
        model=small_network,
        optimizer=pe.AdamW(weight_decay=0.0),
        runs=(
            Run("last 2 layers", pe.Scheme.last_blocks(2), 3e-3, 4),
            Run("full", pe.Scheme.full(), 3e-3, 4),
        ),
    ),
    "phrases": Job(
        title="Small encoder, random weights: sentiment of phrases, 16 tokens",
        data=phrases_data,
        model=small_encoder,
        optimizer=pe.AdamW(weight_decay=0.0),
        runs=(
            Run("last block", pe.Scheme.last_blocks(1), 3e-3, 3),
            Run("full", pe.Scheme.full(), 3e-3, 3),
        ),
    ),
}
"""By the name of their task."""
