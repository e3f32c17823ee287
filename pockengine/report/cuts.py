"""The ways to cut a contraction that are worth measuring, the likely ones first."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import TypeAlias

from pockengine.ir.text import parse
from pockengine.lower.operands import by_signature, geometry, is_blocked, reads_in_place
from pockengine.lower.products import Product
from pockengine.lower.register_tiles import Extents, ranked_tiles
from pockengine.lower.tile_parameters import Choice, TileParameters
from pockengine.lower.tiles import Geometry
from pockengine.lower.tuning import ROW_BLOCKS, SCRATCHES

Cut: TypeAlias = tuple[Geometry, tuple[bool, ...], bool]
"""What shapes the code: the geometry, which right operands are read in place, whether in pieces."""

_TILES = 8  # register tiles that are tried, by the machine model's order


@dataclass(frozen=True, slots=True)
class Nest:
    """A sum of products of a kernel.

    Args:
        terms: the products.
    """

    terms: Sequence[Product]

    def default(self, tiles: TileParameters) -> Choice:
        """What the machine model says, as a choice."""
        packed = not all(reads_in_place(term, tiles) for term in self.terms)
        row_tile, vectors = self.ranked_tiles(tiles, packed=packed)[0]
        return Choice(
            row_tile=row_tile,
            vectors=vectors,
            packed=packed,
            blocked=self._is_blocked(tiles),
            row_block=tiles.row_block,
            scratch_bytes=tiles.scratch_bytes,
        )

    def cut(self, tiles: TileParameters, choice: Choice | None = None) -> Cut:
        """What comes of a choice; without one, of the machine model."""
        own = tiles if choice is None else tiles.chosen(choice)
        in_place = tuple(reads_in_place(term, own) for term in self.terms)
        return geometry(self.terms, own), in_place, self._is_blocked(own)

    def _is_blocked(self, tiles: TileParameters) -> bool:
        return len(self.terms) == 1 and is_blocked(self.terms[0], tiles)

    def next(self, tiles: TileParameters, best: Choice, tried: Collection[Choice]) -> Choice | None:
        """The next choice worth measuring: one step from the best, with another cut than any tried.

        Args:
            tiles: the processor.
            best: the best so far.
            tried: what was measured.
        """
        seen = [self.cut(tiles), *(self.cut(tiles, choice) for choice in (best, *tried))]
        steps = self._steps(tiles, best)
        return next((choice for choice in steps if self.cut(tiles, choice) not in seen), None)

    def _steps(self, tiles: TileParameters, best: Choice) -> Iterator[Choice]:
        """A choice with one thing changed, what usually matters most ahead."""
        ranked = self.ranked_tiles(tiles, packed=best.packed)[:_TILES]
        others = [replace(best, row_tile=rows, vectors=wide) for rows, wide in ranked]
        rows, wide = self.ranked_tiles(tiles, packed=not best.packed)[0]
        yield replace(best, packed=not best.packed, row_tile=rows, vectors=wide)
        yield from others[:3]
        yield replace(best, blocked=not best.blocked)
        for row_block in (best.row_block * 2, best.row_block // 2):
            if tiles.row_block // ROW_BLOCKS <= row_block <= tiles.row_block * ROW_BLOCKS:
                yield replace(best, row_block=row_block)
        for scratch in (best.scratch_bytes // 2, best.scratch_bytes * 2):
            if tiles.scratch_bytes // SCRATCHES <= scratch <= tiles.scratch_bytes:
                yield replace(best, scratch_bytes=scratch)
        yield from others[3:]

    def ranked_tiles(self, tiles: TileParameters, *, packed: bool) -> list[tuple[int, int]]:
        """Register tiles (rows, vectors), the fewest modelled cycles first."""
        first = self.terms[0]
        work = Extents(
            batch=first.batch,
            rows=first.rows,
            columns=first.columns,
            reduction=max(1, *(prod(term.reduction) for term in self.terms)),
            packed=packed,
            row_period=first.row_period,
        )
        return ranked_tiles(tiles, work)


def nests(text: str) -> dict[str, Nest]:
    """The sums of products of a contraction kernel (as IR text) by signature."""
    return {name: Nest(terms) for name, terms in by_signature(parse(text)).items()}
