"""Kernels in which every output pixel reduces the window of input pixels it reads (NHWC).

A register tile is a few neighbouring pixels by the channels of a vector. The channel tiles of a
group are the loop around it, and pixels lie outside of that, so memory is read in order. The range
of a kernel counts (image, band of rows, channel group), the group fastest. Rows and columns inside
run with all taps and without bounds; borders have their own code with exactly the taps that exist.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from tvm import tirx
from tvm.ir.expr import TensorLoad

from pockengine.lower import nest
from pockengine.lower.nest import Expr, Stmt
from pockengine.lower.sliding import ChannelGroups, Gather
from pockengine.lower.window import Axis, Piece, Tap, pieces


@dataclass(frozen=True, slots=True, kw_only=True)
class Reduction:
    """What is done with the taps of a window. All vectors have ``lanes`` lanes from channel c0.

    Attributes:
        dtypes: types of the state's components.
        prepare: (group) -> statements ahead of a channel group's pixels.
        initial: (row tap, column tap, lanes) -> state before the first tap, which is given.
        load: (n, h, w, c0, lanes) -> what is needed of an input pixel; read once for all windows
            of a register tile.
        combine: (state, loaded, row tap, column tap, tile of the group, lanes) -> state after it.
        finish: (n, oh, ow, c0, lanes, state) -> statements that store an output pixel.
    """

    dtypes: tuple[str, ...]
    prepare: Callable[[Group], Sequence[Stmt]]
    initial: Callable[[Expr, Expr, int], tuple[Expr, ...]]
    load: Callable[[Expr, Expr, Expr, Expr, int], tuple[Expr, ...]]
    combine: Callable[[tuple[Expr, ...], tuple[Expr, ...], Expr, Expr, Expr, int], tuple[Expr, ...]]
    finish: Callable[[Expr, Expr, Expr, Expr, int, tuple[Expr, ...]], Stmt]


@dataclass(frozen=True, slots=True)
class Group:
    """The channels a unit of work goes over.

    Attributes:
        c0: the first channel.
        lanes: lanes of its tiles.
        count: how many tiles it has.
        most: most tiles a group of these lanes has.
    """

    c0: Expr
    lanes: int
    count: int | Expr
    most: int


@dataclass(frozen=True, slots=True)
class _Tile:
    """Where a register tile's code works: image, channel tile of its group, first channel."""

    n: Expr
    index: Expr
    c0: Expr
    lanes: int


@dataclass(frozen=True, slots=True)
class _Row:
    """An output row: its index, the input row that offsets count from, its valid taps.

    ``taps`` None: they must be found at run time, among ``all_taps``.
    """

    index: Expr
    start: Expr
    taps: tuple[Tap, ...] | None
    all_taps: tuple[Tap, ...]


@dataclass(frozen=True, slots=True)
class Pixel:
    """An output pixel of a register tile: its column and the columns it reads, by tap."""

    column: Expr
    reads: tuple[tuple[int, int], ...]  # (tap index, input column less the tile's first one)


def gather(shape: Gather, reduction: Reduction, begin: Expr, end: Expr) -> Stmt:
    """The loop nest over the iterations [begin, end) of ``shape.extent``."""
    groups = shape.groups

    def unit(index: Expr) -> Stmt:
        rest = _divide(index, groups.count)
        band = _remainder(rest, shape.bands)
        n = _divide(rest, shape.bands)
        which = _remainder(index, groups.count)
        return channel_group(which, groups, lambda group: _band(shape, reduction, n, group, band))

    return nest.serial("unit", end - begin, unit, begin)


def channel_group(which: Expr, groups: ChannelGroups, body: Callable[[Group], Stmt]) -> Stmt:
    """``body`` of one of the channel groups; the lanes left over have their own code."""
    size, full = groups.size, groups.full
    tail = Group(nest.const(full * groups.lanes), groups.tail, 1, 1)
    if not full:
        return body(tail)
    count: int | Expr = size
    if full % size:
        count = tirx.min(full - which * size, nest.const(size))
    whole = body(Group(which * (size * groups.lanes), groups.lanes, count, size))
    if not groups.tail:
        return whole
    return tirx.IfThenElse(which < groups.count - 1, whole, body(tail))


def _band(shape: Gather, reduction: Reduction, n: Expr, group: Group, band: Expr) -> Stmt:
    """All output pixels of a band for a channel group."""
    rows = shape.rows
    statements = list(reduction.prepare(group))

    def row(phase: int, valid: tuple[Tap, ...] | None, q: Expr) -> Stmt:
        index, start = q * rows.period + phase, q * rows.stride
        return _row(shape, reduction, n, group, _Row(index, start, valid, rows.phases[phase]))

    for phase, taps in enumerate(rows.phases):
        runs = [(run.begin, run.end, run.taps) for run in rows.runs(phase)]
        anywhere = [(0, rows.count(phase), None)] if taps else runs
        for begin, end, valid in runs if shape.unrolled else anywhere:
            first, count = _within(begin, end, shape, band)
            statements.append(nest.serial("row", count, partial(row, phase, valid), first))
    return nest.block(*statements)


def _within(begin: int, end: int, shape: Gather, band: Expr) -> tuple[int | Expr, int | Expr]:
    """First and count of the q of [begin, end) that belong to a band."""
    if shape.bands == 1:
        return begin, end - begin
    first = tirx.max(nest.const(begin), band * shape.band)
    last = tirx.min(nest.const(end), band * shape.band + shape.band)
    return first, last - first


def _row(shape: Gather, reduction: Reduction, n: Expr, group: Group, row: _Row) -> Stmt:
    """An output row: its border tiles and the loop over the inside, each over all channels."""

    def register_tile(piece: Piece, t: Expr, g: Expr) -> Stmt:
        start, outputs = pixels(shape.columns, piece, t)
        return _RegisterTile(
            inputs=shape.rows.inputs,
            reduction=reduction,
            tile=_Tile(n, g, group.c0 + g * group.lanes, group.lanes),
            row=row,
            start=start,
            pixels=outputs,
            state=[
                nest.local(f"state{k}", len(outputs), group.lanes, dtype)
                for k, dtype in enumerate(reduction.dtypes)
            ],
        ).emit()

    def channels(piece: Piece, t: Expr) -> Stmt:
        return nest.serial("channels", group.count, partial(register_tile, piece, t))

    cut = pieces(shape.columns, shape.width)
    return nest.block(
        *(nest.serial("tile", piece.tiles, partial(channels, piece)) for piece in cut)
    )


def pixels(axis: Axis, piece: Piece, tile: Expr) -> tuple[Expr, list[Pixel]]:
    """First input column and the output pixels of a register tile of a piece."""
    outputs = []
    start: Expr = nest.const(0)
    if piece.interior:
        start = tile * (piece.width // axis.period * axis.stride)
    for j in range(piece.begin, piece.begin + piece.width):
        column = nest.const(j) if not piece.interior else tile * piece.width + j
        taps = axis.phases[j % axis.period] if piece.interior else axis.valid(j)
        at = j // axis.period * axis.stride
        outputs.append(Pixel(column, tuple((tap.index, at + tap.offset) for tap in taps)))
    return start, outputs


@dataclass(frozen=True, slots=True, kw_only=True)
class _RegisterTile:
    """Neighbouring output pixels of a row, whose state stays in registers."""

    inputs: int
    reduction: Reduction
    tile: _Tile
    row: _Row
    start: Expr
    pixels: list[Pixel]
    state: list[nest.Buffer]

    def emit(self) -> Stmt:
        """Start, reduce and store the pixels."""
        first, ahead, taps = self._tap_rows()
        statements = [nest.allocate(buffer) for buffer in self.state] + ahead
        for j, pixel in enumerate(self.pixels):
            column = nest.const(pixel.reads[0][0] if pixel.reads else 0)
            initial = self.reduction.initial(first, column, self.tile.lanes)
            statements += self._assign(j, initial)
        statements += taps
        tile = self.tile
        for j, pixel in enumerate(self.pixels):
            at = (tile.n, self.row.index, pixel.column, tile.c0, tile.lanes)
            statements.append(self.reduction.finish(*at, self._state(j)))
        return nest.block(*statements)

    def _tap_rows(self) -> tuple[Expr, list[Stmt], list[Stmt]]:
        """The first valid row tap, what it needs ahead of it, and the statements of all taps."""
        taps, start = self.row.taps, self.row.start
        if taps is None:
            return self._tap_loop(self.row.all_taps)
        rows = [self._tap_row(nest.const(tap.index), start + tap.offset) for tap in taps]
        first = nest.const(taps[0].index if taps else 0)
        return first, [], [statement for statements in rows for statement in statements]

    def _tap_loop(self, taps: tuple[Tap, ...]) -> tuple[Expr, list[Stmt], list[Stmt]]:
        """As _tap_rows, as a loop over the taps that are found to lie inside the input."""
        origin, second = taps[0], taps[min(1, len(taps) - 1)]
        apart, step = second.index - origin.index, second.offset - origin.offset
        start = self.row.start + origin.offset
        begin, end = inside(start, step or 1, len(taps), self.inputs)
        lower, bind_lower = nest.bound("lower", begin)

        def tap(k: Expr) -> Stmt:
            return nest.block(*self._tap_row(k * apart + origin.index, start + k * step))

        loop = nest.serial("tap", end - lower, tap, lower)
        return lower * apart + origin.index, [bind_lower], [loop]

    def _tap_row(self, r: Expr, h: Expr) -> list[Stmt]:
        """One row of taps: each input pixel is loaded once, then used by all pixels it concerns."""
        users: dict[int, list[tuple[int, int]]] = {}
        for j, pixel in enumerate(self.pixels):
            for s, column in pixel.reads:
                users.setdefault(column, []).append((j, s))
        statements: list[Stmt] = []
        tile = self.tile
        for column in sorted(users):
            place = (tile.n, h, self.start + column, tile.c0, tile.lanes)
            kept = [keep("x", value) for value in self.reduction.load(*place)]
            statements += [line for made, _ in kept for line in made]
            loaded = tuple(value for _, value in kept)
            for j, s in users[column]:
                state = self.reduction.combine(
                    self._state(j), loaded, r, nest.const(s), tile.index, tile.lanes
                )
                statements += self._assign(j, state)
        return statements

    def _state(self, j: int) -> tuple[Expr, ...]:
        return tuple(nest.load(buffer, nest.const(j)) for buffer in self.state)

    def _assign(self, j: int, values: tuple[Expr, ...]) -> list[Stmt]:
        """Replace the state of pixel j; all new values are computed from the old state."""
        if len(values) == 1:
            return [nest.store(self.state[0], nest.const(j), values[0])]
        bound = [nest.bound("next", value) for value in values]
        stores = [
            nest.store(buffer, nest.const(j), value)
            for buffer, (value, _) in zip(self.state, bound, strict=True)
        ]
        return [bind for _, bind in bound] + stores


def keep(name: str, value: Expr) -> tuple[list[Stmt], Expr]:
    """A variable for a value, and the statements that make it: as `nest.held`, less for loads."""
    if isinstance(value, TensorLoad):
        variable, bind = nest.bound(name, value)
        return [bind], variable
    return nest.held(name, value)


def inside(start: Expr, step: int, count: int, size: int) -> tuple[Expr, Expr]:
    """The k of [0, count), as [begin, end), with ``0 <= start + step k < size``."""
    low, high = (-start, size - 1 - start) if step > 0 else (start - (size - 1), start)
    distance = abs(step)
    begin = tirx.max(tirx.floordiv(low + (distance - 1), nest.const(distance)), nest.const(0))
    end = tirx.min(tirx.floordiv(high, nest.const(distance)) + 1, nest.const(count))
    return begin, tirx.max(end, begin)


def _divide(value: Expr, by: int) -> Expr:
    """Quotient value // by of a value that is not negative."""
    return value if by == 1 else tirx.truncdiv(value, nest.const(by))


def _remainder(value: Expr, by: int) -> Expr:
    """Remainder value % by of a value that is not negative."""
    return nest.const(0) if by == 1 else tirx.truncmod(value, nest.const(by))
