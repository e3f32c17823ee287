"""Two small models without pretrained weights, for the built-in tasks and for trying things out."""

from __future__ import annotations

from torch import nn

from pockengine.tasks.mini_lm import EncoderShape, MiniLM

_POSITIONS = 512


def small_cnn(classes: int) -> nn.Sequential:
    """Return three strided convolutions, their mean over the picture, and a linear head.

    Images float32 ``(N, 3, H, W)`` of any size to logits ``(N, classes)``.
    """
    return nn.Sequential(
        *(nn.Conv2d(3, 16, 3, stride=2, padding=1), nn.ReLU()),
        *(nn.Conv2d(16, 32, 3, stride=2, padding=1), nn.ReLU()),
        *(nn.Conv2d(32, 64, 3, stride=2, padding=1), nn.ReLU()),
        *(nn.AdaptiveAvgPool2d(4), nn.Flatten()),
        nn.Linear(64 * 16, classes),
    )


def small_encoder(classes: int, vocabulary: int) -> MiniLM:
    """Return a BERT encoder of two narrow layers.

    Args:
        classes: outputs.
        vocabulary: how many tokens there are.
    """
    shape = EncoderShape(
        layers=2,
        width=64,
        heads=4,
        intermediate=128,
        vocabulary=vocabulary,
        positions=_POSITIONS,
    )
    return MiniLM(classes, shape)
