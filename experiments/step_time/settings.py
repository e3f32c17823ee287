"""What is timed: models, batches and goals."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pockengine.tasks import mini_lm, mobilenet_v2

IMAGE_SIZE = 128
TOKENS = 128
VOCABULARY = 30522


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A model with random weights, and what the compiled step is to reach.

    Attributes:
        model: makes the model, in eval mode: BatchNorm uses its running statistics.
        batch: makes ``(inputs, labels)``.
        speed_goal: PyTorch's time over ours.
        memory_goal: our transient bytes over what PyTorch saves for the backward pass.
    """

    model: Callable[[], nn.Module]
    batch: Callable[[], tuple[tuple[Tensor, ...], Tensor]]
    speed_goal: float
    memory_goal: float = 0.5


def _images(count: int) -> tuple[tuple[Tensor, ...], Tensor]:
    images = torch.randn(count, 3, IMAGE_SIZE, IMAGE_SIZE)
    return (images,), torch.randint(0, 10, (count,))


def _texts(count: int) -> tuple[tuple[Tensor, ...], Tensor]:
    ids = torch.randint(0, VOCABULARY, (count, TOKENS))
    mask = torch.ones(count, TOKENS, dtype=torch.int64)
    return (ids, mask), torch.randint(0, 2, (count,))


CASES: dict[str, Case] = {
    "mobilenet_v2-b1": Case(
        model=lambda: mobilenet_v2(classes=10).eval(),
        batch=lambda: _images(1),
        speed_goal=2.5,
    ),
    "mobilenet_v2-b8": Case(
        model=lambda: mobilenet_v2(classes=10).eval(),
        batch=lambda: _images(8),
        speed_goal=2.0,
    ),
    "mini_lm-b8": Case(
        model=lambda: mini_lm(2).eval(),
        batch=lambda: _texts(8),
        speed_goal=1.0,
    ),
}

START_CASE = "mobilenet_v2-b8"
START_GOALS_S = {"cold": 40.0, "warm": 8.0}
"""Seconds from the module to the end of the first step, without and with a kernel cache."""
