"""Two programs measured beside each other: times in turns, and what PyTorch saves for backward."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

STEPS = 21
UNTIMED = 3


def in_turns(
    one: Callable[[], float],
    other: Callable[[], float],
    *,
    steps: int = STEPS,
    tolerance: float = 1e-3,
) -> dict[str, float]:
    """Medians of PyTorch's step and ours, which alternate; their losses have to agree.

    Args:
        one: a step of PyTorch; gives its loss.
        other: a step of ours.
        steps: of each; the first ``UNTIMED`` do not count.
        tolerance: by how much the losses may differ, relative.

    Returns:
        Milliseconds by the clock, and of processor time, which other programs disturb less.

    Raises:
        AssertionError: a loss differs.
    """
    times, losses = timed_in_turns(one, other, steps=steps)
    np.testing.assert_allclose(losses[1], losses[0], rtol=tolerance)
    return times


def timed_in_turns(
    one: Callable[[], float], other: Callable[[], float], *, steps: int = STEPS
) -> tuple[dict[str, float], tuple[list[float], list[float]]]:
    """As ``in_turns``, with the losses of both instead of a comparison."""
    marks: list[tuple[float, ...]] = []
    losses: tuple[list[float], list[float]] = ([], [])
    for _ in range(steps):
        begun = (time.perf_counter(), time.process_time())
        losses[0].append(one())
        between = (time.perf_counter(), time.process_time())
        losses[1].append(other())
        marks.append((*begun, *between, time.perf_counter(), time.process_time()))
    spans = np.diff(np.array(marks[UNTIMED:]).reshape(-1, 3, 2), axis=1) * 1e3
    names = ("torch_ms", "torch_cpu_ms", "ms", "cpu_ms")
    medians = np.median(spans, axis=0).ravel()
    return dict(zip(names, (round(float(ms), 2) for ms in medians), strict=True)), losses


def saved_bytes(model: nn.Module, forward: Callable[[], Tensor]) -> int:
    """What PyTorch saves for the backward pass: each storage once, without the model's own."""
    known = {t.untyped_storage().data_ptr() for t in (*model.parameters(), *model.buffers())}
    saved: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        saved[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = forward()
    total = sum(t.untyped_storage().nbytes() for p, t in saved.items() if p not in known)
    del loss
    return total
