"""Philox4x32-10 in vectors: the numbers of `pockengine.ir.draws.uniform`."""

from __future__ import annotations

from collections.abc import Callable

from tvm import tirx

from pockengine.ir.draws import MANTISSA_BITS, MULTIPLIERS, ROUNDS, WEYL
from pockengine.lower.nest import Expr, splat

Bind = Callable[[Expr], Expr]
"""A variable for an expression."""


def uniform(element: Expr, seed: Expr, step: Expr, stream: int, lanes: int, bind: Bind) -> Expr:
    """float32 in [0, 1) by element.

    Args:
        element: row-major numbers, int64 in ``lanes`` lanes.
        seed: int64 scalar.
        step: int64 scalar.
        stream: which draw of a step it is.
        lanes: of the result.
        bind: gives a variable for what is used more than once.
    """

    def word(value: Expr) -> Expr:
        return bind(splat(tirx.Cast("uint32", value), lanes))

    key = [tirx.Cast("uint32", seed), tirx.Cast("uint32", seed >> tirx.IntImm("int64", 32))]
    counter = [
        bind(tirx.Cast(_kind("uint32", lanes), element)),
        bind(tirx.Cast(_kind("uint32", lanes), element >> splat(tirx.IntImm("int64", 32), lanes))),
        word(step),
        splat(_u32(stream), lanes),
    ]
    for turn in range(ROUNDS):
        high, low = _product(MULTIPLIERS[0], counter[0], lanes, bind)
        other_high, other_low = _product(MULTIPLIERS[1], counter[2], lanes, bind)
        keys = [
            splat(k + _u32(turn * weyl & 0xFFFFFFFF), lanes)
            for k, weyl in zip(key, WEYL, strict=True)
        ]
        counter = [
            bind(other_high ^ counter[1] ^ keys[0]),
            other_low,
            bind(high ^ counter[3] ^ keys[1]),
            low,
        ]
    bits = counter[0] >> splat(_u32(32 - MANTISSA_BITS), lanes)
    real = tirx.Cast(_kind("float32", lanes), tirx.Cast(_kind("int32", lanes), bits))
    return real * splat(tirx.FloatImm("float32", 2.0**-MANTISSA_BITS), lanes)


def _product(factor: int, word: Expr, lanes: int, bind: Bind) -> tuple[Expr, Expr]:
    """High and low 32 bits of a product."""
    wide = tirx.Cast(_kind("uint64", lanes), word)
    product = bind(wide * splat(tirx.IntImm("uint64", factor), lanes))
    narrow = _kind("uint32", lanes)
    high = tirx.Cast(narrow, product >> splat(tirx.IntImm("uint64", 32), lanes))
    return bind(high), bind(tirx.Cast(narrow, product))


def _u32(value: int) -> Expr:
    return tirx.IntImm("uint32", value)


def _kind(dtype: str, lanes: int) -> str:
    return dtype if lanes == 1 else f"{dtype}x{lanes}"
