"""What a kernel took, what it had to take at least, and what the cost model told beforehand."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """One kernel call, or several together.

    Args:
        name: what a person recognizes it by.
        kind: its loops and its main op; of several together, what they have in common.
        calls: how many kernel calls it stands for.
        ms: median time, in place.
        flops: operations.
        nbytes: bytes read and written, each operand once.
        limit: what holds it at the machine's peaks: ``arithmetic``, or the memory that its operands
            fit in; of several together, what holds most of their time.
        peak_ms: what the work takes at the machine's peaks, the longer of arithmetic and traffic.
        predicted_ms: what the cost model tells (``plan.costs.kernel_ns``).
    """

    name: str
    kind: str
    calls: int
    ms: float
    flops: int
    nbytes: int
    limit: str
    peak_ms: float
    predicted_ms: float

    @property
    def gflops_per_s(self) -> float:
        """Rate of arithmetic."""
        return self.flops / self.ms / 1e6 if self.ms else 0.0

    @property
    def gbytes_per_s(self) -> float:
        """Rate of traffic."""
        return self.nbytes / self.ms / 1e6 if self.ms else 0.0

    @property
    def peak_share(self) -> float:
        """How much of the time the peaks account for; 1 is as fast as the machine can."""
        return self.peak_ms / self.ms if self.ms else 0.0

    @property
    def lost_ms(self) -> float:
        """What could be gained at most; below zero where the peak is no bound (a nearer cache)."""
        return self.ms - self.peak_ms

    @property
    def intensity(self) -> float:
        """Operations a byte."""
        return self.flops / self.nbytes if self.nbytes else 0.0

    def as_dict(self) -> dict[str, Any]:
        """All of it, rates included."""
        return {
            **asdict(self),
            "gflops_per_s": self.gflops_per_s,
            "gbytes_per_s": self.gbytes_per_s,
            "peak_share": self.peak_share,
            "lost_ms": self.lost_ms,
        }


ORDERS: MappingProxyType[str, Callable[[Timing], float]] = MappingProxyType(
    {
        "lost": lambda timing: -timing.lost_ms,
        "time": lambda timing: -timing.ms,
        "step": lambda _: 0.0,
    }
)
"""What kernels can be sorted by: the most time lost, or the most time, first; or as they run."""


def together(name: str, timings: Sequence[Timing]) -> Timing:
    """Several as one.

    Args:
        name: what they have in common.
        timings: all of them.
    """
    held: dict[str, float] = {}
    for timing in timings:
        held[timing.limit] = held.get(timing.limit, 0.0) + timing.peak_ms
    return Timing(
        name=name,
        kind=name,
        calls=sum(timing.calls for timing in timings),
        ms=sum(timing.ms for timing in timings),
        flops=sum(timing.flops for timing in timings),
        nbytes=sum(timing.nbytes for timing in timings),
        limit=max(held, key=lambda limit: held[limit], default=""),
        peak_ms=sum(timing.peak_ms for timing in timings),
        predicted_ms=sum(timing.predicted_ms for timing in timings),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """How predicted times compare with measured ones; None where too few kernels tell.

    Args:
        spearman: correlation of the ranks; 1: the model puts all in their order.
        median_ratio: median of predicted over measured.
        total_ratio: all predicted times over all measured ones.
    """

    spearman: float | None
    median_ratio: float | None
    total_ratio: float | None


def agreement(timings: Sequence[Timing]) -> Agreement:
    """How well the cost model did; what took no time that the clock can tell is left out."""
    told = [timing for timing in timings if timing.ms > 0]
    if not told:
        return Agreement(spearman=None, median_ratio=None, total_ratio=None)
    predicted = np.array([timing.predicted_ms for timing in told])
    measured = np.array([timing.ms for timing in told])
    return Agreement(
        spearman=_correlation(_ranks(predicted), _ranks(measured)),
        median_ratio=float(np.median(predicted / measured)),
        total_ratio=float(predicted.sum() / measured.sum()),
    )


def _ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Ranks from 0; equal values share the mean of theirs."""
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts) - 1.0
    found: NDArray[np.float64] = (last - (counts - 1) / 2)[place]
    return found


def _correlation(left: NDArray[np.float64], right: NDArray[np.float64]) -> float | None:
    left, right = left - left.mean(), right - right.mean()
    scale = float(np.sqrt((left @ left) * (right @ right)))
    return float(left @ right) / scale if scale else None
