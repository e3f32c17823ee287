"""What a processor offers a contraction's register tiles, and what a tuning file chooses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """How a contraction is cut in place of what the machine model says.

    Attributes:
        row_tile: rows of a register tile.
        vectors: of a panel's width.
        packed: whether the right operand is copied into panels even if it could be read in place.
        blocked: whether both operands are visited piece by piece of the reduction.
        row_block: rows a unit of work aims for.
        scratch_bytes: stack for packed panels, within what the processor's parameters say.
    """

    row_tile: int
    vectors: int
    packed: bool
    blocked: bool
    row_block: int
    scratch_bytes: int


UNTUNED: Mapping[str, Choice] = MappingProxyType({})
"""No choices."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TileParameters:
    """What a processor offers a register tile.

    Attributes:
        vector_lanes: float32 lanes of one vector register.
        vector_registers: how many of them there are.
        row_tile: most rows of a register tile.
        column_vectors: most vectors of a panel's width.
        row_block: rows a unit of work aims for.
        scratch_bytes: stack a kernel may use for packed panels, and again for its accumulators.
        left_bytes: stack for the sums of a contraction in pieces, and again for its packed rows and
            panels together.
        chunk_steps: of a reduction that is not cut into pieces, and of a piece at most.
        panel_bytes: of a piece of a panel, which stays in the nearest cache.
        by_lane: a fused multiply-add takes its left factor from any lane of a vector register, so
            that one load brings several of them.
        unrolled: steps of the reduction in one iteration of the innermost loop.
        choice: how the contraction at hand is cut; None for what the machine model says.
    """

    vector_lanes: int
    vector_registers: int
    row_tile: int
    column_vectors: int
    row_block: int
    scratch_bytes: int
    left_bytes: int
    chunk_steps: int = 256
    panel_bytes: int = 1 << 14
    by_lane: bool = False
    unrolled: int = 1
    choice: Choice | None = None

    def chosen(self, choice: Choice) -> TileParameters:
        """These with one contraction's choice."""
        scratch = min(choice.scratch_bytes, self.scratch_bytes)
        return replace(self, row_block=choice.row_block, scratch_bytes=scratch, choice=choice)


_AVX512 = TileParameters(
    vector_lanes=16,
    vector_registers=32,
    row_tile=12,
    column_vectors=8,
    row_block=64,
    scratch_bytes=1 << 18,
    left_bytes=3 << 18,
    panel_bytes=1 << 15,
)
_AVX2 = TileParameters(
    vector_lanes=8,
    vector_registers=16,
    row_tile=6,
    column_vectors=8,
    row_block=48,
    scratch_bytes=1 << 17,
    left_bytes=1 << 18,
)
_NEON = TileParameters(
    vector_lanes=4,
    vector_registers=32,
    row_tile=8,
    column_vectors=8,
    row_block=48,
    scratch_bytes=1 << 16,
    left_bytes=1 << 17,
    by_lane=True,
    unrolled=8,
)
_RVV = replace(_NEON, by_lane=False, unrolled=1)
_SIMD128 = TileParameters(
    vector_lanes=4,
    vector_registers=16,
    row_tile=6,
    column_vectors=6,
    row_block=48,
    scratch_bytes=1 << 16,
    left_bytes=1 << 17,
)
_SCALAR = TileParameters(
    vector_lanes=1,
    vector_registers=32,
    row_tile=4,
    column_vectors=4,
    row_block=16,
    scratch_bytes=1 << 12,
    left_bytes=1 << 12,
    chunk_steps=64,
)


def tile_parameters(target: Mapping[str, Any]) -> TileParameters:
    """Tiles for a TVM target dict, from its features and its architecture."""
    features = frozenset(target.get("mattr", ()))
    architecture = str(target.get("mtriple", "")).partition("-")[0]
    if "+avx512f" in features:
        return _AVX512
    if "+avx2" in features:
        return _AVX2
    if architecture in ("aarch64", "arm64"):
        return _NEON
    if "+v" in features:
        return _RVV
    if architecture in ("x86_64", "amd64") or features & {"+simd128", "+neon"}:
        return _SIMD128
    return _SCALAR
