"""What is packed, and what comes of it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Buffer:
    """Memory that is live on the time steps [lower, upper).

    Args:
        id: name, unique in one packing.
        lower: first step at which it is live.
        upper: first step after ``lower`` at which it is no longer live.
        size: bytes.
        alignment: its offset is a multiple of this many bytes.
        fixed_offset: where it has to lie, if that is decided already.
    """

    id: str
    lower: int
    upper: int
    size: int
    alignment: int = 1
    fixed_offset: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Packing:
    """Offsets in bytes by buffer id; ``peak`` is the arena they need, never below ``lower_bound``.

    The bound is the largest sum of sizes live at once; ``gap`` is the share of the peak above it.
    """

    offsets: dict[str, int]
    peak: int
    lower_bound: int
    seconds: float

    @property
    def gap(self) -> float:
        """Peak over lower bound, less one; 0 is optimal."""
        return self.peak / self.lower_bound - 1.0 if self.lower_bound else 0.0
