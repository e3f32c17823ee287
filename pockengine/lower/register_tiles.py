"""Which register tile a contraction gets: the one with the fewest modelled cycles.

The machine of the model issues two fused multiply-adds and two loads per cycle, with four cycles of
latency; see experiments/kernels/contraction.py for what that reaches. Plain arithmetic without TVM,
because the plan needs a kernel's extent when its code is already cached.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from pockengine.lower.tile_parameters import TileParameters

_LATENCY = 4.0
_PORTS = 2.0
_TILE_CYCLES = 10.0  # to begin and end a register tile, beside one for each of its vectors
_STEP_CYCLES = 0.5  # of an iteration of the innermost loop,
_ROW_CYCLES = 0.1  # of each element of the left operand
_LINE_CYCLES = 0.4  # and of each cache line of the right one, beside the multiply-adds
_ROW_TAIL = 1.04  # for a second register tile's code
_COLUMN_TAIL = 1.01  # for a second panel's code
_ADDRESSES = 8  # of rows at no common stride that have a register each
_APART = 1.1  # for more of them
LINE = 16  # elements of a cache line


@dataclass(frozen=True, slots=True, kw_only=True)
class Extents:
    """What of a contraction decides on its register tile.

    Attributes:
        batch: independent products.
        rows: M.
        columns: N.
        reduction: K, all reduction loops together.
        packed: the right operand is copied into a scratch panel before use.
        row_period: rows follow each other at one stride only within this many (an image line); 0
            if everywhere.
        by_steps: vectors of the left operand hold steps of one row.
    """

    batch: int
    rows: int
    columns: int
    reduction: int
    packed: bool
    row_period: int = 0
    by_steps: bool = False


def choose_tile(tiles: TileParameters, work: Extents) -> tuple[int, int]:
    """(rows, vectors) of the register tile with the fewest modelled cycles."""
    if tiles.choice is not None:
        return min(tiles.choice.row_tile, work.rows), tiles.choice.vectors
    return min(_tiles(tiles, work), key=lambda tile: _estimate(tiles, work, tile))


def _tiles(tiles: TileParameters, work: Extents) -> list[tuple[int, int]]:
    """All (rows, vectors) whose accumulators and operands fit the registers."""
    return [
        (row_tile, vectors)
        for vectors in range(1, tiles.column_vectors + 1)
        for row_tile in range(1, min(tiles.row_tile, work.rows) + 1)
        if (row_tile + 1) * _widest(tiles, work.columns, vectors) + row_tile * work.by_steps
        < tiles.vector_registers
    ]


def _estimate(tiles: TileParameters, work: Extents, tile: tuple[int, int]) -> float:
    return _cycles(tiles, work, *tile) * _penalty(tiles, work, *tile)


def ranked_tiles(tiles: TileParameters, work: Extents) -> list[tuple[int, int]]:
    """Register tiles (rows, vectors) that may be had, the fewest modelled cycles first."""
    return sorted(_tiles(tiles, work), key=lambda tile: _estimate(tiles, work, tile))


def _penalty(tiles: TileParameters, work: Extents, row_tile: int, vectors: int) -> float:
    """Factor for what the cycle count of the inner loop does not see."""
    factor, width = 1.0, vectors * tiles.vector_lanes
    apart = work.row_period % row_tile and row_tile % work.row_period if work.row_period else 0
    if apart and row_tile > _ADDRESSES:
        factor *= _APART
    if work.packed and 4 * work.reduction * width > tiles.scratch_bytes:
        factor *= 1.1  # the reduction needs chunks
    if work.rows % row_tile:
        factor *= _ROW_TAIL
    if work.columns % width:
        factor *= _COLUMN_TAIL
    return factor


def _widest(tiles: TileParameters, columns: int, vectors: int) -> int:
    width = vectors * tiles.vector_lanes
    tail = len(vector_pieces(columns % width, tiles.vector_lanes))
    return max(vectors, tail) if columns >= width else tail


def _cycles(tiles: TileParameters, work: Extents, row_tile: int, vectors: int) -> float:
    """Modelled cycles of the whole contraction; only comparisons between tiles matter."""
    width = vectors * tiles.vector_lanes
    tail = len(vector_pieces(work.columns % width, tiles.vector_lanes))
    total = 0.0
    for count, height in ((work.rows // row_tile, row_tile), (1, work.rows % row_tile)):
        for panels, wide in ((work.columns // width, vectors), (1, tail)):
            if height and wide:
                step = max(_issue(tiles, work, height, wide) / _PORTS, _LATENCY) + _STEP_CYCLES
                step += _ROW_CYCLES * height + _LINE_CYCLES * wide * tiles.vector_lanes / LINE
                edge = _TILE_CYCLES + height * wide
                total += count * panels * (work.reduction * step + edge)
    return total


def unrolled_steps(tiles: TileParameters, row_tile: int, vectors: int) -> int:
    """Steps an iteration where vectors hold steps of a row: two vectors', with room for pairs."""
    used = (row_tile + 1) * vectors + row_tile + row_tile // 2
    return tiles.vector_lanes * (2 if used < tiles.vector_registers else 1)


def _issue(tiles: TileParameters, work: Extents, height: int, wide: int) -> float:
    """What the busiest ports do in a step: multiply-adds or loads, or both where they share."""
    if tiles.by_lane:
        left = height / tiles.vector_lanes
        return height * wide + (left if work.by_steps else math.ceil(left)) + wide
    return max(height * wide, height + wide)


def vector_pieces(columns: int, lanes: int) -> tuple[int, ...]:
    """Columns as full vectors, then powers of two: 26 = 16 + 8 + 2."""
    pieces = [lanes] * (columns // lanes)
    rest = columns % lanes
    while rest:
        pieces.append(1 << (rest.bit_length() - 1))
        rest -= pieces[-1]
    return tuple(pieces)
