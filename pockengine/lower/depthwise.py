"""Depthwise convolution, channel multiplier 1, float32, NHWC, weights as (R, S, C).

Three loop nests, each with callbacks for what is read, scaled and stored, so that neighbouring
elementwise work fuses into them. Nothing is padded, no zeros are inserted: every output reads
exactly the taps that lie inside (`pockengine.lower.window`).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from math import ceil

from pockengine.lower import nest
from pockengine.lower.gather import Pixel, Reduction, channel_tiles, gather, inside, keep, pixels
from pockengine.lower.nest import Expr, Stmt
from pockengine.lower.sliding import UNROLLED_TAPS, Depthwise
from pockengine.lower.window import Piece, Tap, pieces

__all__ = ["Depthwise", "forward", "input_gradient", "weight_gradient"]

_CHAINS = 8  # sums in flight that hide the latency of a multiply-add

PixelValue = Callable[[Expr, Expr, Expr, Expr, int], Expr]
"""(n, h, w, c0, lanes) -> vector of ``lanes`` channels of a pixel."""
WeightValue = Callable[[Expr, Expr, Expr, int], Expr]
"""(r, s, c0, lanes) -> vector of weights; evaluated once per unit of work."""
PixelStore = Callable[[Expr, Expr, Expr, Expr, int, Expr], Stmt]
"""(n, h, w, c0, lanes, value) -> statements that store the pixel."""
WeightStore = Callable[[Expr, Expr, Expr, int, Expr], Stmt]
"""(r, s, c0, lanes, value) -> statements that store the weights."""


def forward(
    shape: Depthwise,
    x_value: PixelValue,
    w_value: WeightValue,
    store: PixelStore,
    begin: Expr,
    end: Expr,
) -> Stmt:
    """out[n, i, j, c] = sum over r, s of x[n, i sh - ph + r dh, j sw - pw + s dw, c] w[r, s, c].

    Args:
        shape: see `Depthwise`.
        x_value: reads the input, (N, H, W, C).
        w_value: reads the weights.
        store: stores the output, (N, OH, OW, C).
        begin: first iteration of ``shape.forward_extent``.
        end: one past the last.
    """
    return gather(shape.forward(), _weighted_sum(shape, x_value, w_value, store), begin, end)


def input_gradient(
    shape: Depthwise,
    dy_value: PixelValue,
    w_value: WeightValue,
    store: PixelStore,
    begin: Expr,
    end: Expr,
) -> Stmt:
    """dx[n, h, w, c] = sum of dy[n, i, j, c] w[r, s, c] over the windows (i, j) that read it.

    Args:
        shape: see `Depthwise`.
        dy_value: reads the output's gradient, (N, OH, OW, C).
        w_value: reads the weights.
        store: stores the input's gradient, (N, H, W, C); every element, also those no window reads.
        begin: first iteration of ``shape.input_gradient_extent``.
        end: one past the last.
    """
    return gather(shape.gradient(), _weighted_sum(shape, dy_value, w_value, store), begin, end)


def _weighted_sum(
    shape: Depthwise, value: PixelValue, w_value: WeightValue, store: PixelStore
) -> Reduction:
    """The sum of taps times weights, which a tile first collects on the stack."""
    height, width = shape.rows.kernel, shape.columns.kernel
    scratch: dict[int, nest.Buffer] = {}

    def prepare(c0: Expr, lanes: int) -> list[Stmt]:
        scratch[lanes] = nest.local("weights", height * width, lanes)

        def one(r: Expr, s: Expr) -> Stmt:
            made, value = keep("w", w_value(r, s, c0, lanes))
            return nest.block(*made, nest.store(scratch[lanes], r * width + s, value))

        def row(r: Expr) -> Stmt:
            return nest.serial("s", width, partial(one, r))

        return [nest.allocate(scratch[lanes]), nest.serial("r", height, row)]

    def weight(r: Expr, s: Expr, lanes: int) -> Expr:
        return nest.load(scratch[lanes], r * width + s)

    return Reduction(
        dtypes=("float32",),
        prepare=prepare,
        initial=lambda _r, _s, lanes: (nest.zeros(lanes),),
        load=lambda *place: (value(*place),),
        combine=lambda state, x, r, s, _c0, lanes: (state[0] + x[0] * weight(r, s, lanes),),
        finish=lambda n, h, w, c0, lanes, state: store(n, h, w, c0, lanes, state[0]),
    )


def weight_gradient(
    shape: Depthwise,
    x_value: PixelValue,
    dy_value: PixelValue,
    store: WeightStore,
    begin: Expr,
    end: Expr,
) -> Stmt:
    """dw[r, s, c] = sum over n, i, j of x[n, i sh - ph + r dh, j sw - pw + s dw, c] dy[n, i, j, c].

    All weights of a channel tile are summed in one pass over an image if they fit the registers,
    else the weights of one r after the other.

    Args:
        shape: see `Depthwise`.
        x_value: reads the input, (N, H, W, C).
        dy_value: reads the output's gradient, (N, OH, OW, C).
        store: stores the weights' gradient, (R, S, C).
        begin: first iteration of ``shape.weight_gradient_extent``.
        end: one past the last.
    """

    def tile(c0: Expr, lanes: int) -> Stmt:
        return _WeightSums(shape, x_value, dy_value, store, c0, lanes).emit()

    def unit(index: Expr) -> Stmt:
        return channel_tiles(index, shape.channels, shape.lanes, tile)

    return nest.serial("tile", end - begin, unit, begin)


class _WeightSums:
    """The sums of one channel tile over all pixels, image by image.

    Each weight has ``chains`` sums that take turns pixel by pixel, so that few weights still keep
    the multipliers busy; they are added at the end.
    """

    def __init__(
        self,
        shape: Depthwise,
        x_value: PixelValue,
        dy_value: PixelValue,
        store: WeightStore,
        c0: Expr,
        lanes: int,
    ) -> None:
        self.shape = shape
        self.x_value = x_value
        self.dy_value = dy_value
        self.store = store
        self.c0 = c0
        self.lanes = lanes
        every = shape.rows.kernel * shape.columns.kernel
        self.whole = every <= UNROLLED_TAPS
        self.count = every if self.whole else shape.columns.kernel
        self.chains = ceil(_CHAINS / self.count)
        self.sums = nest.local("sums", self.count * self.chains, lanes)
        self.totals = nest.local("totals", every, lanes)

    def emit(self) -> Stmt:
        """The sums, from zero to their store."""
        rows, width = self.shape.rows.kernel, self.shape.columns.kernel
        one_image = self._all_rows if self.whole else self._row_by_row

        def clear(k: Expr) -> Stmt:
            return nest.store(self.totals, k, nest.zeros(self.lanes))

        def store(r: Expr, s: Expr) -> Stmt:
            total = nest.load(self.totals, r * width + s)
            return self.store(r, s, self.c0, self.lanes, total)

        return nest.block(
            nest.allocate(self.sums),
            nest.allocate(self.totals),
            nest.serial("k", rows * width, clear),
            nest.serial("n", self.shape.batch, one_image),
            nest.serial("r", rows, lambda r: nest.serial("s", width, partial(store, r))),
        )

    def _all_rows(self, n: Expr) -> Stmt:
        """An image's share of all weights: output rows by which taps are inside."""
        axis = self.shape.rows.forward()

        def row(taps: tuple[Tap, ...], i: Expr) -> Stmt:
            start = i * axis.stride
            return self._output_row(n, i, [(start + tap.offset, tap.index) for tap in taps])

        runs = [run for run in axis.runs(0) if run.taps]
        loops = [nest.serial("i", run.end - run.begin, partial(row, run.taps), run.begin)
                 for run in runs]  # fmt: skip
        every = range(self.shape.rows.kernel)
        totals = [line for r in every for line in self._add_to_totals(nest.const(r), r)]
        return nest.block(*self._clear(), *loops, *totals)

    def _row_by_row(self, n: Expr) -> Stmt:
        """An image's share of all weights, those of one r after the other."""
        sweep = self.shape.rows

        def weights(r: Expr) -> Stmt:
            start = r * sweep.dilation - sweep.padding
            begin, end = inside(start, sweep.stride, sweep.windows, sweep.size)
            first, bind_first = nest.bound("first", begin)

            def row(i: Expr) -> Stmt:
                return self._output_row(n, i, [(i * sweep.stride + start, 0)])

            loop = nest.serial("i", end - first, row, first)
            return nest.block(bind_first, *self._clear(), loop, *self._add_to_totals(r, 0))

        return nest.serial("r", sweep.kernel, weights)

    def _output_row(self, n: Expr, i: Expr, inputs: list[tuple[Expr, int]]) -> Stmt:
        """A row of dy times the input rows it concerns, each with its row of sums."""
        axis = self.shape.columns.forward()

        def tile(piece: Piece, t: Expr) -> Stmt:
            return nest.block(*self._register_tile(n, i, inputs, *pixels(axis, piece, t)))

        parts = pieces(axis, self.shape.width)
        return nest.block(*(nest.serial("j", part.tiles, partial(tile, part)) for part in parts))

    def _register_tile(
        self,
        n: Expr,
        i: Expr,
        inputs: list[tuple[Expr, int]],
        start: Expr,
        outputs: list[Pixel],
    ) -> list[Stmt]:
        """Neighbouring pixels of dy, each loaded once, times every input pixel, loaded once."""
        place = (self.c0, self.lanes)
        kept = [keep("dy", self.dy_value(n, i, o.column, *place)) for o in outputs]
        statements = [line for made, _ in kept for line in made]
        users: dict[int, list[tuple[int, int]]] = {}
        for j, output in enumerate(outputs):
            for s, column in output.reads:
                users.setdefault(column, []).append((j, s))
        for column in sorted(users):
            for h, slot in inputs:
                made, x = keep("x", self.x_value(n, h, start + column, *place))
                statements += made
                statements += [self._add(slot, s, j, x * kept[j][1]) for j, s in users[column]]
        return statements

    def _add(self, slot: int, s: int, turn: int, product: Expr) -> Stmt:
        """Add to the sum of a weight whose turn it is."""
        at = self._index(slot, s, turn)
        return nest.store(self.sums, at, nest.load(self.sums, at) + product)

    def _index(self, slot: int, s: int, turn: int) -> Expr:
        weight = slot * self.shape.columns.kernel + s
        return nest.const(weight * self.chains + turn % self.chains)

    def _clear(self) -> list[Stmt]:
        zero = nest.zeros(self.lanes)
        every = range(self.count * self.chains)
        return [nest.store(self.sums, nest.const(k), zero) for k in every]

    def _add_to_totals(self, r: Expr, slot: int) -> list[Stmt]:
        """Add the sums of one r to its totals."""
        width = self.shape.columns.kernel
        lines = []
        for s in range(width):
            chains = [nest.load(self.sums, self._index(slot, s, k)) for k in range(self.chains)]
            at = r * width + s
            lines.append(nest.store(self.totals, at, sum(chains, nest.load(self.totals, at))))
        return lines
