"""Depthwise convolution, channel multiplier 1, float32, NHWC, weights as (R, S, C).

Three loop nests, each with callbacks for what is read, scaled and stored, so that neighbouring
elementwise work fuses into them. Nothing is padded, no zeros are inserted: every output reads
exactly the taps that lie inside (`pockengine.lower.window`).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from math import ceil

from tvm import tirx

from pockengine.lower import nest
from pockengine.lower.gather import (
    Group,
    Pixel,
    Reduction,
    channel_group,
    gather,
    inside,
    keep,
    pixels,
)
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
    """The sum of taps times weights; those of a channel group are first collected on the stack."""
    height, width = shape.rows.kernel, shape.columns.kernel
    scratch: dict[int, nest.Buffer] = {}

    def index(g: Expr, r: Expr, s: Expr) -> Expr:
        return (g * height + r) * width + s

    def prepare(group: Group) -> list[Stmt]:
        weights = nest.local("weights", group.most * height * width, group.lanes)
        scratch[group.lanes] = weights

        def one(g: Expr, r: Expr, s: Expr) -> Stmt:
            c0 = group.c0 + g * group.lanes
            made, value = keep("w", w_value(r, s, c0, group.lanes))
            return nest.block(*made, nest.store(weights, index(g, r, s), value))

        return [nest.allocate(weights), _loops((group.count, height, width), one)]

    def combine(
        state: tuple[Expr, ...], x: tuple[Expr, ...], r: Expr, s: Expr, g: Expr, lanes: int
    ) -> tuple[Expr, ...]:
        return (state[0] + x[0] * nest.load(scratch[lanes], index(g, r, s)),)

    return Reduction(
        dtypes=("float32",),
        prepare=prepare,
        initial=lambda _r, _s, lanes: (nest.zeros(lanes),),
        load=lambda *place: (value(*place),),
        combine=combine,
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

    The sums of a channel group lie on the stack; a register tile of pixels adds to those of all
    weights, or of one r if there are too many.

    Args:
        shape: see `Depthwise`.
        x_value: reads the input, (N, H, W, C).
        dy_value: reads the output's gradient, (N, OH, OW, C).
        store: stores the weights' gradient, (R, S, C).
        begin: first iteration of ``shape.weight_gradient_extent``.
        end: one past the last.
    """

    def group(channels: Group) -> Stmt:
        return _WeightSums(shape, x_value, dy_value, channels).emit(store)

    def unit(index: Expr) -> Stmt:
        return channel_group(index, shape.weight_groups, group)

    return nest.serial("group", end - begin, unit, begin)


class _WeightSums:
    """The sums of one channel group over all pixels.

    Each weight has ``chains`` sums that take turns pixel by pixel, so that few weights still keep
    the multipliers busy; they are added at the end.
    """

    def __init__(
        self, shape: Depthwise, x_value: PixelValue, dy_value: PixelValue, group: Group
    ) -> None:
        self.shape = shape
        self.x_value = x_value
        self.dy_value = dy_value
        self.group = group
        self.every = shape.rows.kernel * shape.columns.kernel
        self.whole = self.every <= UNROLLED_TAPS
        self.chains = ceil(_CHAINS / (self.every if self.whole else shape.columns.kernel))
        self.sums = nest.local("sums", group.most * self.every * self.chains, group.lanes)

    def emit(self, store: WeightStore) -> Stmt:
        """The sums, from zero to their store."""
        kernel = (self.shape.rows.kernel, self.shape.columns.kernel)

        def clear(k: Expr) -> Stmt:
            return nest.store(self.sums, k, nest.zeros(self.group.lanes))

        def finish(g: Expr, r: Expr, s: Expr) -> Stmt:
            chains = [nest.load(self.sums, self._index(g, r, s) + k) for k in range(self.chains)]
            c0 = self.group.c0 + g * self.group.lanes
            return store(r, s, c0, self.group.lanes, sum(chains[1:], chains[0]))

        return nest.block(
            nest.allocate(self.sums),
            nest.serial("k", self.group.most * self.every * self.chains, clear),
            nest.serial("n", self.shape.batch, self._all_rows if self.whole else self._row_by_row),
            _loops((self.group.count, *kernel), finish),
        )

    def _all_rows(self, n: Expr) -> Stmt:
        """An image's share of all weights: output rows by which taps are inside."""
        axis = self.shape.rows.forward()

        def row(taps: tuple[Tap, ...], i: Expr) -> Stmt:
            inputs = [(i * axis.stride + tap.offset, nest.const(tap.index)) for tap in taps]
            return self._output_row(n, i, inputs)

        loops = [nest.serial("i", run.end - run.begin, partial(row, run.taps), run.begin)
                 for run in axis.runs(0) if run.taps]  # fmt: skip
        return nest.block(*loops) if loops else tirx.Evaluate(0)

    def _row_by_row(self, n: Expr) -> Stmt:
        """An image's share of all weights, those of one r after the other."""
        sweep = self.shape.rows

        def weights(r: Expr) -> Stmt:
            start = r * sweep.dilation - sweep.padding
            begin, end = inside(start, sweep.stride, sweep.windows, sweep.size)
            first, bind_first = nest.bound("first", begin)

            def row(i: Expr) -> Stmt:
                return self._output_row(n, i, [(i * sweep.stride + start, r)])

            return nest.block(bind_first, nest.serial("i", end - first, row, first))

        return nest.serial("r", sweep.kernel, weights)

    def _output_row(self, n: Expr, i: Expr, inputs: list[tuple[Expr, Expr]]) -> Stmt:
        """A row of dy times the input rows it concerns, each given with its r."""
        axis = self.shape.columns.forward()

        def register_tile(piece: Piece, t: Expr, g: Expr) -> Stmt:
            return self._register_tile(n, i, g, inputs, *pixels(axis, piece, t))

        def channels(piece: Piece, t: Expr) -> Stmt:
            return nest.serial("channels", self.group.count, partial(register_tile, piece, t))

        cut = pieces(axis, self.shape.registers // 4)
        return nest.block(*(nest.serial("j", part.tiles, partial(channels, part)) for part in cut))

    def _register_tile(
        self,
        n: Expr,
        i: Expr,
        g: Expr,
        inputs: list[tuple[Expr, Expr]],
        start: Expr,
        outputs: list[Pixel],
    ) -> Stmt:
        """Neighbouring pixels of dy, each loaded once, times every input pixel, loaded once."""
        place = (self.group.c0 + g * self.group.lanes, self.group.lanes)
        kept = [keep("dy", self.dy_value(n, i, o.column, *place)) for o in outputs]
        statements = [line for made, _ in kept for line in made]
        users: dict[int, list[tuple[int, int]]] = {}
        for j, output in enumerate(outputs):
            for s, column in output.reads:
                users.setdefault(column, []).append((j, s))
        width = self.shape.columns.kernel * self.chains
        share = nest.local("share", len(inputs) * width, self.group.lanes)
        touched: list[int] = []
        for column in sorted(users):
            for row, (h, _) in enumerate(inputs):
                made, x = keep("x", self.x_value(n, h, start + column, *place))
                statements += made
                for j, s in users[column]:
                    k = row * width + s * self.chains + j % self.chains
                    product, at = x * kept[j][1], nest.const(k)
                    value = nest.load(share, at) + product if k in touched else product
                    statements.append(nest.store(share, at, value))
                    touched.append(k)
        for k in sorted(set(touched)):
            at = self._index(g, inputs[k // width][1], nest.const(0)) + k % width
            total = nest.load(self.sums, at) + nest.load(share, nest.const(k))
            statements.append(nest.store(self.sums, at, total))
        return nest.block(nest.allocate(share), *statements)

    def _index(self, g: Expr, r: Expr, s: Expr) -> Expr:
        """Where the first chain of a weight lies."""
        height, width = self.shape.rows.kernel, self.shape.columns.kernel
        return ((g * height + r) * width + s) * self.chains


def _loops(extents: tuple[int | Expr, ...], body: Callable[..., Stmt]) -> Stmt:
    """Nested loops, the first outermost, around ``body`` of their variables."""
    if not extents:
        return body()
    return nest.serial("k", extents[0], lambda k: _loops(extents[1:], partial(body, k)))
