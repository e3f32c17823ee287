"""Max and average pooling and their gradients, float32, NHWC, as gathers.

Gradients gather too: an input pixel sums over the windows that read it, in a fixed order, so
results do not depend on how the range is split.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf

from tvm import tirx

from pockengine.lower import nest
from pockengine.lower.gather import Reduction, gather
from pockengine.lower.math import is_nan
from pockengine.lower.nest import Expr, Stmt
from pockengine.lower.sliding import Pool
from pockengine.lower.window import Adaptive, Sweep

PixelValue = Callable[[Expr, Expr, Expr, Expr, int], Expr]
"""(n, h, w, c0, lanes) -> vector of ``lanes`` channels of a pixel."""
PixelStore = Callable[[Expr, Expr, Expr, Expr, int, Expr], Stmt]
"""(n, h, w, c0, lanes, value) -> statements that store the pixel."""
IndexedStore = Callable[[Expr, Expr, Expr, Expr, int, Expr, Expr], Stmt]
"""(n, h, w, c0, lanes, value, index) -> statements that store the pixel; the index is int32."""


def max_pool(shape: Pool, x_value: PixelValue, store: IndexedStore, begin: Expr, end: Expr) -> Stmt:
    """The largest of each window and its tap's index, r S + s; the first of equals wins.

    NaN wins over numbers, and the last NaN over earlier ones, as in PyTorch.

    Args:
        shape: see `Pool`; every window must reach into the input.
        x_value: reads the input, (N, H, W, C).
        store: stores value and index, (N, OH, OW, C).
        begin: first iteration of ``shape.forward_extent``.
        end: one past the last.
    """
    width = shape.columns.kernel

    def initial(r: Expr, s: Expr, lanes: int) -> tuple[Expr, ...]:
        lowest = nest.splat(tirx.FloatImm("float32", -inf), lanes)
        return lowest, _index(r, s, width, lanes)

    def combine(
        state: tuple[Expr, ...], x: tuple[Expr, ...], r: Expr, s: Expr, _g: Expr, lanes: int
    ) -> tuple[Expr, ...]:
        wins = tirx.Or(x[0] > state[0], is_nan(x[0]))
        index = tirx.Select(wins, _index(r, s, width, lanes), state[1])
        return tirx.Select(wins, x[0], state[0]), index

    reduction = Reduction(
        dtypes=("float32", "int32"),
        prepare=lambda _group: (),
        initial=initial,
        load=lambda *place: (x_value(*place),),
        combine=combine,
        finish=lambda n, h, w, c0, lanes, state: store(n, h, w, c0, lanes, *state),
    )
    return gather(shape.forward(), reduction, begin, end)


def max_pool_gradient(
    shape: Pool,
    dy_value: PixelValue,
    index_value: PixelValue,
    store: PixelStore,
    begin: Expr,
    end: Expr,
) -> Stmt:
    """dx[n, h, w, c] = sum of dy over the windows that (h, w) won.

    Args:
        shape: see `Pool`.
        dy_value: reads the output's gradient, (N, OH, OW, C).
        index_value: reads the winners' index as int32, (N, OH, OW, C).
        store: stores the input's gradient, (N, H, W, C); every element.
        begin: first iteration of ``shape.gradient_extent``.
        end: one past the last.
    """
    width = shape.columns.kernel

    def combine(
        state: tuple[Expr, ...], y: tuple[Expr, ...], r: Expr, s: Expr, _g: Expr, lanes: int
    ) -> tuple[Expr, ...]:
        won = y[1] == _index(r, s, width, lanes)
        return (state[0] + tirx.Select(won, y[0], nest.zeros(lanes)),)

    def load(n: Expr, h: Expr, w: Expr, c0: Expr, lanes: int) -> tuple[Expr, ...]:
        return dy_value(n, h, w, c0, lanes), index_value(n, h, w, c0, lanes)

    return gather(shape.gradient(), _sum(load, combine, store), begin, end)


def average_pool(
    shape: Pool,
    x_value: PixelValue,
    store: PixelStore,
    begin: Expr,
    end: Expr,
    *,
    count_padding: bool = True,
    divisor: int | None = None,
) -> Stmt:
    """The sum of each window over its number of elements.

    Args:
        shape: see `Pool`.
        x_value: reads the input, (N, H, W, C).
        store: stores the output, (N, OH, OW, C).
        begin: first iteration of ``shape.forward_extent``.
        end: one past the last.
        count_padding: whether padding counts; what ceil_mode reaches beyond it never does.
        divisor: a number to divide by instead.
    """

    def finish(n: Expr, h: Expr, w: Expr, c0: Expr, lanes: int, value: Expr) -> Stmt:
        share = _count(shape, h, w, count_padding=count_padding, divisor=divisor)
        return store(n, h, w, c0, lanes, value / nest.splat(share, lanes))

    def combine(
        state: tuple[Expr, ...], x: tuple[Expr, ...], _r: Expr, _s: Expr, _g: Expr, _lanes: int
    ) -> tuple[Expr, ...]:
        return (state[0] + x[0],)

    reduction = _sum(lambda *place: (x_value(*place),), combine, finish)
    return gather(shape.forward(), reduction, begin, end)


def average_pool_gradient(
    shape: Pool,
    dy_value: PixelValue,
    store: PixelStore,
    begin: Expr,
    end: Expr,
    *,
    count_padding: bool = True,
    divisor: int | None = None,
) -> Stmt:
    """dx[n, h, w, c] = sum of dy over the windows that read (h, w), each over its count.

    Args:
        shape: see `Pool`.
        dy_value: reads the output's gradient, (N, OH, OW, C).
        store: stores the input's gradient, (N, H, W, C); every element.
        begin: first iteration of ``shape.gradient_extent``.
        end: one past the last.
        count_padding: as in `average_pool`.
        divisor: as in `average_pool`.
    """

    def load(n: Expr, h: Expr, w: Expr, c0: Expr, lanes: int) -> tuple[Expr, ...]:
        share = _count(shape, h, w, count_padding=count_padding, divisor=divisor)
        return (dy_value(n, h, w, c0, lanes) / nest.splat(share, lanes),)

    def combine(
        state: tuple[Expr, ...], y: tuple[Expr, ...], _r: Expr, _s: Expr, _g: Expr, _lanes: int
    ) -> tuple[Expr, ...]:
        return (state[0] + y[0],)

    return gather(shape.gradient(), _sum(load, combine, store), begin, end)


def _sum(
    load: Callable[..., tuple[Expr, ...]],
    combine: Callable[..., tuple[Expr, ...]],
    store: PixelStore,
) -> Reduction:
    """A reduction whose state is one sum."""
    return Reduction(
        dtypes=("float32",),
        prepare=lambda _group: (),
        initial=lambda _r, _s, lanes: (nest.zeros(lanes),),
        load=load,
        combine=combine,
        finish=lambda n, h, w, c0, lanes, state: store(n, h, w, c0, lanes, state[0]),
    )


def _index(r: Expr, s: Expr, width: int, lanes: int) -> Expr:
    """The index of a tap in its window, in every lane."""
    return nest.splat(tirx.Cast("int32", r * width + s), lanes)


def _count(shape: Pool, h: Expr, w: Expr, *, count_padding: bool, divisor: int | None) -> Expr:
    """The number, as float32, that the sum of window (h, w) is divided by."""
    if divisor is not None:
        return tirx.FloatImm("float32", divisor)
    rows = _reach(shape.rows, h, count_padding=count_padding)
    return tirx.Cast("float32", rows * _reach(shape.columns, w, count_padding=count_padding))


def _reach(sweep: Sweep | Adaptive, at: Expr, *, count_padding: bool) -> Expr:
    """How many elements of window ``at`` exist along one axis; pooling windows are not dilated."""
    if isinstance(sweep, Adaptive):
        start = tirx.truncdiv(at * sweep.size, nest.const(sweep.windows))
        last = (at + 1) * sweep.size + (sweep.windows - 1)
        return tirx.truncdiv(last, nest.const(sweep.windows)) - start
    begin = at * sweep.stride - sweep.padding
    limit = sweep.size + sweep.padding if count_padding else sweep.size
    end = tirx.min(begin + sweep.kernel, nest.const(limit))
    return end - (begin if count_padding else tirx.max(begin, nest.const(0)))
