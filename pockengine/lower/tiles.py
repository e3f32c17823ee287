"""How a contraction is cut into register tiles, column panels and row blocks.

Plain arithmetic without TVM, because the plan needs a kernel's extent when its code is already
cached. The tile is chosen by a small machine model: two fused multiply-adds and two loads per
cycle, four cycles of latency; see experiments/kernels/contraction.py for what that reaches.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

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
_UNITS = 8  # of work, at least, where the rows suffice
_COPIED_COLUMNS = 128  # that make a copy of the rows cheap beside the products
_LEAST_STEPS = 64  # of a piece of a reduction
_SUM_BYTES = 12  # of a column: two sums, and a part of one
_TAP_COLUMNS = 32  # where the rows are read as they lie


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Geometry:
    """A contraction cut up: units of work, each a row block by a group of column panels.

    Attributes:
        row_tile: rows of a full register tile.
        row_tiles: full tiles.
        row_tail: rows of the last, smaller tile; 0 if there is none.
        block_tiles: full tiles of a row block.
        row_blocks: row blocks.
        panel: lanes of each vector of a full column panel.
        panels: full panels.
        tail: lanes of each vector of the last, narrower panel; empty if there is none.
        group_panels: panels of a unit.
        packed_panels: how many of them are packed at once; more than one: all.
        groups: panel groups.
        batch: independent products.
        chunk: reduction steps between two visits of the accumulators' scratch; 0: all in registers.
        columns_first: units that follow each other share their rows rather than their columns.
        whole_columns: a unit goes through all row blocks, one after the other.
        left_lanes: neighbouring elements of the left operand that are loaded at once.
        unrolled: steps of the reduction in one iteration of the innermost loop.
    """

    row_tile: int
    row_tiles: int
    row_tail: int
    block_tiles: int
    row_blocks: int
    panel: tuple[int, ...]
    panels: int
    tail: tuple[int, ...]
    group_panels: int
    packed_panels: int
    groups: int
    batch: int
    chunk: int
    columns_first: bool
    whole_columns: bool = False
    left_lanes: int = 1
    unrolled: int = 1

    @property
    def extent(self) -> int:
        """Iterations of the kernel's range."""
        return self.batch * self.groups * (1 if self.whole_columns else self.row_blocks)

    @property
    def panel_columns(self) -> int:
        """Columns of the widest panel."""
        return max(sum(self.panel), sum(self.tail))

    @property
    def block_rows(self) -> int:
        """Rows of the largest row block."""
        return self.block_tiles * self.row_tile + self.row_tail


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


def contraction_geometry(  # noqa: PLR0913 - all extents of a contraction
    tiles: TileParameters,
    *,
    batch: int,
    rows: int,
    columns: int,
    reduction: int,
    packed: bool,
    blocked: bool = False,
    row_period: int = 0,
    in_pieces: bool = False,
    along_steps: bool = False,
    whole_columns: bool = False,
) -> Geometry:
    """Cut ``out[batch, rows, columns] = sum over reduction`` into tiles.

    Args:
        tiles: the processor.
        batch: independent products.
        rows: M.
        columns: N.
        reduction: K, all reduction loops together.
        packed: the right operand is copied into a scratch panel before use.
        blocked: both operands are visited piece by piece, for many rows and columns at once.
        row_period: rows follow each other at one stride only within this many (an image line); 0
            if everywhere.
        in_pieces: what is summed comes in several pieces, ``reduction`` steps at most each, so that
            sums are kept between them.
        along_steps: the left operand's steps, not its rows, are next to each other.
        whole_columns: one unit of work has all rows of its columns.
    """
    by_steps = tiles.by_lane and along_steps and not blocked
    work = _Work(batch, rows, columns, reduction, packed, row_period, by_steps)
    if blocked:
        return _blocked(tiles, work, along_steps=along_steps, whole_columns=whole_columns)
    row_tile, vectors = _choose_tile(tiles, work)
    width = vectors * tiles.vector_lanes
    panels = columns // width
    tail = vector_pieces(columns % width, tiles.vector_lanes)
    panel_columns = width if panels else columns
    panel_count = panels + bool(tail)
    packed_panels = _packed_panels(tiles, work, panel_columns, panel_count)
    if whole_columns:
        packed_panels = min(packed_panels, _most_panels(tiles, panel_columns))
    block_rows = _block_rows(tiles, work, math.ceil(panel_count / packed_panels))
    chunk = _chunk(tiles, work, panel_columns, min(rows, block_rows))
    if in_pieces and not chunk:
        chunk = reduction
    if chunk:
        packed_panels = 1
    elif whole_columns:
        block_rows = rows
    group_panels = packed_panels
    if chunk and packed:
        block_rows = min(block_rows, tiles.scratch_bytes // (4 * panel_columns) - row_tile)
    elif chunk:
        most = min(96, tiles.scratch_bytes // (4 * (block_rows + row_tile)))
        group_panels = max(1, most // panel_columns)
    geometry = _geometry(
        tiles,
        work,
        (row_tile, vectors),
        block_rows=block_rows,
        group_panels=group_panels,
        packed_panels=packed_panels,
        chunk=chunk,
        columns_first=rows > columns or reduction * columns <= tiles.scratch_bytes,
    )
    return replace(geometry, whole_columns=whole_columns)


def _blocked(
    tiles: TileParameters, work: _Work, *, along_steps: bool, whole_columns: bool
) -> Geometry:
    """Pieces of the reduction.

    A panel's piece stays in the nearest cache while all tiles of the unit pass; the unit's rows,
    panels and sums share the second one. Where the left operand's steps are next to each other,
    its rows each begin a cache line anew in every piece, so that pieces are rather long.
    """
    pieces, steps = _pieces(tiles, work.reduction, tiles.chunk_steps)
    row_tile, vectors = _choose_tile(tiles, replace(work, reduction=steps))
    width = min(vectors * tiles.vector_lanes, work.columns)
    if pieces > 1 and not along_steps:
        pieces, steps = _pieces(tiles, work.reduction, _near_steps(tiles, work, width))
    panel_count = math.ceil(work.columns / width)
    groups = math.ceil(panel_count / max(1, tiles.left_bytes // (8 * steps * width)))
    blocks = math.ceil(work.rows / (tiles.left_bytes // (8 * steps)))
    if whole_columns:
        groups = max(groups, min(panel_count, _column_groups(work)))
        groups = max(groups, math.ceil(panel_count / _most_panels(tiles, width)))
    while (pieces > 1 and 4 * work.rows * work.columns > groups * blocks * tiles.left_bytes) or (
        not whole_columns
        and groups * blocks * work.batch < _UNITS // 2
        and work.rows > 4 * blocks * row_tile
    ):
        if groups < panel_count and work.rows * blocks <= work.columns * groups:
            groups += 1  # rows are read again for it
        else:
            blocks += 1  # columns are
    group_panels = math.ceil(panel_count / groups)
    block_rows = math.ceil(work.rows / blocks)
    geometry = _geometry(
        tiles,
        work,
        (row_tile, vectors),
        block_rows=block_rows,
        group_panels=group_panels,
        packed_panels=group_panels,
        chunk=steps if pieces > 1 else 0,
        columns_first=True,
    )
    return replace(geometry, whole_columns=whole_columns)


def _near_steps(tiles: TileParameters, work: _Work, width: int) -> int:
    """Steps of a piece: its panel stays in the nearest cache; of a small product, both copies do.

    Where all rows and columns share the second cache, shorter pieces cost little.
    """
    steps = min(tiles.chunk_steps, tiles.panel_bytes // (4 * width))
    both = 4 * (work.rows + work.columns)
    if tiles.chunk_steps * both > tiles.left_bytes:
        return steps
    near = max(_LEAST_STEPS, tiles.panel_bytes // both)
    return near if near * both <= 3 * tiles.panel_bytes // 2 else min(steps, tiles.chunk_steps // 2)


def _pieces(tiles: TileParameters, reduction: int, most: int) -> tuple[int, int]:
    """Equal pieces of at most about so many steps, and the steps of each, in whole vectors."""
    pieces = math.ceil(reduction / most)
    return pieces, math.ceil(reduction / pieces / tiles.vector_lanes) * tiles.vector_lanes


def _most_panels(tiles: TileParameters, columns: int) -> int:
    """Panels of a unit that adds up its columns: the sums take an eighth of the stack at most."""
    return max(1, tiles.left_bytes // (8 * _SUM_BYTES * columns))


def _column_groups(work: _Work) -> int:
    """Units that whole columns are dealt out to: few enough that copying rows for each is cheap."""
    least = _TAP_COLUMNS if work.row_period else _COPIED_COLUMNS
    most = min(_UNITS // 2 // work.batch, work.columns // least)
    return 1 << max(0, most.bit_length() - 1)


def _geometry(
    tiles: TileParameters,
    work: _Work,
    tile: tuple[int, int],
    *,
    block_rows: int,
    group_panels: int,
    packed_panels: int,
    chunk: int,
    columns_first: bool,
) -> Geometry:
    """Whole tiles and panels, and what is left."""
    row_tile, vectors = tile
    width = vectors * tiles.vector_lanes
    panels, tail = work.columns // width, vector_pieces(work.columns % width, tiles.vector_lanes)
    row_tiles = work.rows // row_tile
    block_tiles = _even(row_tiles, max(1, block_rows // row_tile))
    return Geometry(
        row_tile=row_tile,
        row_tiles=row_tiles,
        row_tail=work.rows % row_tile,
        block_tiles=block_tiles,
        row_blocks=max(1, math.ceil(row_tiles / block_tiles)),
        panel=(tiles.vector_lanes,) * vectors if panels else (),
        panels=panels,
        tail=tail,
        group_panels=group_panels,
        packed_panels=packed_panels,
        groups=math.ceil((panels + bool(tail)) / group_panels),
        batch=work.batch,
        chunk=chunk,
        left_lanes=tiles.vector_lanes if tiles.by_lane else 1,
        unrolled=_unrolled(tiles, row_tile, vectors) if work.by_steps else tiles.unrolled,
        columns_first=columns_first,
    )


@dataclass(frozen=True, slots=True)
class _Work:
    """The arguments of `contraction_geometry`."""

    batch: int
    rows: int
    columns: int
    reduction: int
    packed: bool
    row_period: int
    by_steps: bool  # vectors of the left operand hold steps of one row


def _choose_tile(tiles: TileParameters, work: _Work) -> tuple[int, int]:
    """(rows, vectors) of the register tile with the fewest modelled cycles."""
    if tiles.choice is not None:
        return min(tiles.choice.row_tile, work.rows), tiles.choice.vectors
    return min(_tiles(tiles, work), key=lambda tile: _estimate(tiles, work, tile))


def _tiles(tiles: TileParameters, work: _Work) -> list[tuple[int, int]]:
    """All (rows, vectors) whose accumulators and operands fit the registers."""
    return [
        (row_tile, vectors)
        for vectors in range(1, tiles.column_vectors + 1)
        for row_tile in range(1, min(tiles.row_tile, work.rows) + 1)
        if (row_tile + 1) * _widest(tiles, work.columns, vectors) + row_tile * work.by_steps
        < tiles.vector_registers
    ]


def _estimate(tiles: TileParameters, work: _Work, tile: tuple[int, int]) -> float:
    return _cycles(tiles, work, *tile) * _penalty(tiles, work, *tile)


def ranked_tiles(
    tiles: TileParameters,
    *,
    batch: int,
    rows: int,
    columns: int,
    reduction: int,
    packed: bool,
    row_period: int = 0,
) -> list[tuple[int, int]]:
    """Register tiles (rows, vectors) that a contraction may have, the fewest modelled cycles first.

    Args:
        tiles: the processor.
        batch: as `contraction_geometry`, like the others.
        rows: M.
        columns: N.
        reduction: K.
        packed: whether the right operand is copied.
        row_period: of the left operand's rows.
    """
    work = _Work(batch, rows, columns, reduction, packed, row_period, by_steps=False)
    return sorted(_tiles(tiles, work), key=lambda tile: _estimate(tiles, work, tile))


def _penalty(tiles: TileParameters, work: _Work, row_tile: int, vectors: int) -> float:
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


def _cycles(tiles: TileParameters, work: _Work, row_tile: int, vectors: int) -> float:
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


def _unrolled(tiles: TileParameters, row_tile: int, vectors: int) -> int:
    """Steps an iteration where vectors hold steps of a row: two vectors', with room for pairs."""
    used = (row_tile + 1) * vectors + row_tile + row_tile // 2
    return tiles.vector_lanes * (2 if used < tiles.vector_registers else 1)


def _issue(tiles: TileParameters, work: _Work, height: int, wide: int) -> float:
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


def _packed_panels(tiles: TileParameters, work: _Work, columns: int, panels: int) -> int:
    """Panels to pack at once: what fits and still leaves units of many rows for each thread."""
    if not work.packed:
        return 1
    most = min(panels, max(1, tiles.scratch_bytes // (4 * work.reduction * columns)))
    while most > 1:
        blocks = math.ceil(_UNITS / (math.ceil(panels / most) * work.batch))
        if blocks == 1 or work.rows >= blocks * 4 * tiles.row_block:
            break
        most -= 1
    return most


def _block_rows(tiles: TileParameters, work: _Work, panels: int) -> int:
    """Rows of a block; of a packed panel as many as leave enough units of work."""
    if not work.packed:
        return tiles.row_block
    blocks = max(1, _UNITS // (panels * work.batch))
    return max(tiles.row_block, min(work.rows // blocks, 16 * tiles.row_block))


def _chunk(tiles: TileParameters, work: _Work, panel_columns: int, block_rows: int) -> int:
    """Reduction steps whose operands stay in the nearer caches; 0 when all of them do."""
    if work.packed and 4 * work.reduction * panel_columns > tiles.scratch_bytes:
        steps = tiles.scratch_bytes // (4 * panel_columns)
        return max(1, steps - steps % tiles.vector_lanes)
    step_bytes = 4 * (panel_columns + min(block_rows, tiles.row_block))
    if work.reduction * step_bytes > 4 * tiles.scratch_bytes:
        return max(1, tiles.scratch_bytes // (8 * tiles.row_block))
    return 0


def _even(count: int, most: int) -> int:
    """Size of equal parts of ``count``, none larger than ``most``."""
    return max(1, math.ceil(count / max(1, math.ceil(count / most))))
