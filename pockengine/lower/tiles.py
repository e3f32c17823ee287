"""How a contraction is cut into register tiles, column panels and row blocks.

Plain arithmetic without TVM, because the plan needs a kernel's extent when its code is already
cached.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from pockengine.lower.register_tiles import Extents, choose_tile, unrolled_steps, vector_pieces
from pockengine.lower.tile_parameters import TileParameters

_UNITS = 8  # of work, at least, where the rows suffice
_COPIED_COLUMNS = 128  # that make a copy of the rows cheap beside the products
_LEAST_STEPS = 64  # of a piece of a reduction
_SUM_BYTES = 12  # of a column: two sums, and a part of one
_TAP_COLUMNS = 32  # where the rows are read as they lie


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
    work = Extents(
        batch=batch,
        rows=rows,
        columns=columns,
        reduction=reduction,
        packed=packed,
        row_period=row_period,
        by_steps=tiles.by_lane and along_steps and not blocked,
    )
    if blocked:
        return _blocked(tiles, work, along_steps=along_steps, whole_columns=whole_columns)
    row_tile, vectors = choose_tile(tiles, work)
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
    tiles: TileParameters, work: Extents, *, along_steps: bool, whole_columns: bool
) -> Geometry:
    """Pieces of the reduction.

    A panel's piece stays in the nearest cache while all tiles of the unit pass; the unit's rows,
    panels and sums share the second one. Where the left operand's steps are next to each other,
    its rows each begin a cache line anew in every piece, so that pieces are rather long.
    """
    pieces, steps = _pieces(tiles, work.reduction, tiles.chunk_steps)
    row_tile, vectors = choose_tile(tiles, replace(work, reduction=steps))
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


def _near_steps(tiles: TileParameters, work: Extents, width: int) -> int:
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


def _column_groups(work: Extents) -> int:
    """Units that whole columns are dealt out to: few enough that copying rows for each is cheap."""
    least = _TAP_COLUMNS if work.row_period else _COPIED_COLUMNS
    most = min(_UNITS // 2 // work.batch, work.columns // least)
    return 1 << max(0, most.bit_length() - 1)


def _geometry(
    tiles: TileParameters,
    work: Extents,
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
        unrolled=unrolled_steps(tiles, row_tile, vectors) if work.by_steps else tiles.unrolled,
        columns_first=columns_first,
    )


def _packed_panels(tiles: TileParameters, work: Extents, columns: int, panels: int) -> int:
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


def _block_rows(tiles: TileParameters, work: Extents, panels: int) -> int:
    """Rows of a block; of a packed panel as many as leave enough units of work."""
    if not work.packed:
        return tiles.row_block
    blocks = max(1, _UNITS // (panels * work.batch))
    return max(tiles.row_block, min(work.rows // blocks, 16 * tiles.row_block))


def _chunk(tiles: TileParameters, work: Extents, panel_columns: int, block_rows: int) -> int:
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
