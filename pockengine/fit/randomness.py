"""Random numbers of the data alone: what a data set draws does not depend on anything else."""

from __future__ import annotations

import random
from collections.abc import Callable
from threading import RLock
from typing import Any, TypeVar

import numpy as np
import torch

Result = TypeVar("Result")
_LOCK = RLock()  # the generators below belong to the whole process


class Randomness:
    """PyTorch's, NumPy's and Python's global generators, in a state of one's own.

    Data sets and samplers draw from them, callers as well. Inside ``draw`` they are this object's;
    before and after they are the caller's, untouched. Threads that draw take turns.

    Args:
        seed: whole numbers, such as a seed and an epoch; equal ones give equal numbers.
    """

    def __init__(self, *seed: int) -> None:
        self._seed = seed
        self._state: tuple[Any, ...] | None = None

    def draw(self, make: Callable[[], Result]) -> Result:
        """Call something that draws."""
        with _LOCK:
            outside = _state()
            if self._state is None:
                _start(self._seed)
            else:
                _restore(self._state)
            try:
                return make()
            finally:
                self._state = _state()
                _restore(outside)


def _state() -> tuple[Any, ...]:
    return (
        torch.default_generator.get_state(),
        np.random.get_state(),  # noqa: NPY002 - the one that users' data sets draw from
        random.getstate(),
    )


def _restore(state: tuple[Any, ...]) -> None:
    torch.default_generator.set_state(state[0])
    np.random.set_state(state[1])  # noqa: NPY002
    random.setstate(state[2])


def _start(seed: tuple[int, ...]) -> None:
    first, second, third = map(int, np.random.SeedSequence(seed).generate_state(3))
    torch.default_generator.manual_seed(first)
    np.random.seed(second)  # noqa: NPY002
    random.seed(third)
