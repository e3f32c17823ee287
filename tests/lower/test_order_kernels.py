"""Kernels that sort, accumulate, find last places and gather single elements."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from pockengine.ir.text import parse
from pockengine.passes.fuse import fuse
from tests.lower.kernel_oracle import check_kernels

_RETURN = "return loss=None, outputs=({}), gradients={{}}, updates=()"


def _check(body: str, outputs: str, values: dict[str, Tensor], folder: Path) -> None:
    check_kernels(fuse(parse(f"{body}\n{_RETURN.format(outputs)}")), values, folder)


@pytest.mark.parametrize("count", [1, 2, 5, 16, 37])
def test_sort(count: int, tmp_path: Path) -> None:
    """Either axis, either direction; ties stay as they stand, NaN is the largest."""
    x = torch.randn(3, count).mul(2).round()
    x[0, count // 2], x[1, 0], x[2, -1] = float("nan"), float("inf"), float("-inf")
    x[2, : count // 2] = float("nan")
    shape = f"3x{count}"
    _check(
        f"%x: f32[{shape}] = input('x')\n"
        f"%a: i64[{shape}] = sort_places(%x, 1, False)\n"
        f"%b: i64[{shape}] = sort_places(%x, 1, True)\n"
        f"%c: i64[{shape}] = sort_places(%x, 0, False)",
        "%a, %b, %c",
        {"x": x},
        tmp_path,
    )


def test_sort_of_whole_numbers_and_booleans(tmp_path: Path) -> None:
    """Integers and booleans order as numbers do."""
    _check(
        "%i: i64[2x9] = input('i')\n%m: bool[2x9] = input('m')\n"
        "%a: i64[2x9] = sort_places(%i, 1, True)\n%b: i64[2x9] = sort_places(%m, 1, False)",
        "%a, %b",
        {"i": torch.randint(-3, 4, (2, 9)), "m": torch.rand(2, 9) > 0.5},
        tmp_path,
    )


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_scans(axis: int, tmp_path: Path) -> None:
    """Sums and products along any axis, of floats and integers; infinity reaches what follows."""
    x = torch.randn(3, 5, 19)
    x[1, 2, 3] = float("inf")
    _check(
        "%x: f32[3x5x19] = input('x')\n%i: i64[3x5x19] = input('i')\n"
        f"%a: f32[3x5x19] = cumsum(%x, {axis})\n%b: f32[3x5x19] = cumprod(%x, {axis})\n"
        f"%c: i64[3x5x19] = cumsum(%i, {axis})",
        "%a, %b, %c",
        {"x": x, "i": torch.randint(-9, 9, (3, 5, 19))},
        tmp_path,
    )


def test_last_places_and_single_elements(tmp_path: Path) -> None:
    """Of duplicates the last place counts; elements of one column are gathered in vectors."""
    _check(
        "%i: i64[5x7] = input('i')\n%t: f32[40x1] = input('t')\n%n: i64[40x1] = input('n')\n"
        "%m: bool[40x1] = input('m')\n"
        "%a: i64[40] = last_places(%i, 40)\n%b: f32[5x7x1] = take_rows(%t, %i)\n"
        "%c: i64[5x7x1] = take_rows(%n, %i)\n%d: bool[5x7x1] = take_rows(%m, %i)\n"
        "%v: i32[76] = invert_index(%i, 40)\n%e: i64[40x1] = sum_rows(%c, %v)",
        "%a, %b, %c, %d, %e",
        {
            "i": torch.randint(0, 40, (5, 7)),
            "t": torch.randn(40, 1),
            "n": torch.randint(-9, 9, (40, 1)),
            "m": torch.rand(40, 1) > 0.5,
        },
        tmp_path,
    )


def test_whole_numbers(tmp_path: Path) -> None:
    """Remainders, quotients and bits of integers; a divisor of zero stops nothing."""
    pairs = torch.cartesian_prod(torch.arange(-7, 8), torch.tensor([-3, -1, 1, 2, 5]))
    calls = "\n".join(
        f"%r{n}: i64[75] = {op}(%a, %b)"
        for n, op in enumerate("fmod quotient bitand bitor bitxor maximum".split())
    )
    _check(
        f"%a: i64[75] = input('a')\n%b: i64[75] = input('b')\n%z: i64[75] = input('z')\n{calls}\n"
        "%q: i64[75] = quotient(%a, %z)\n%n: i64[75] = abs(%a)\n%s: i64[75] = sign(%a)",
        ", ".join(f"%r{n}" for n in range(6)) + ", %q, %n, %s",
        {"a": pairs[:, 0].clone(), "b": pairs[:, 1].clone(), "z": torch.zeros(75).long()},
        tmp_path,
    )


def test_large_quotients_of_fmod(tmp_path: Path) -> None:
    """The remainder is right to the rounding of the divisor for quotients far beyond 2^24."""
    a = torch.tensor([1e9, 123456.78, -3e7, 5.1, 7.0, 1e-3, 2**35 + 0.0])
    b = torch.tensor([3.3, 0.1, 7.7, 1.7, 3.5, 5.0, 3.0])
    _check(
        "%a: f32[7] = input('a')\n%b: f32[7] = input('b')\n%r: f32[7] = fmod(%a, %b)",
        "%r,",
        {"a": a, "b": b},
        tmp_path,
    )


@pytest.mark.parametrize("shape", [(0,), (3, 0), (0, 3)])
def test_last_places_of_nothing(shape: tuple[int, ...], tmp_path: Path) -> None:
    """An index without elements names no place."""
    text = "x".join(map(str, shape))
    _check(
        f"%i: i64[{text}] = input('i')\n%l: i64[4] = last_places(%i, 4)",
        "%l,",
        {"i": torch.zeros(shape, dtype=torch.int64)},
        tmp_path,
    )


def test_negated_comparisons_of_nan(tmp_path: Path) -> None:
    """What is not below NaN is not above it either."""
    x = torch.tensor([1.0, float("nan"), 0.0] * 7)
    calls = "\n".join(
        f"%c{n}: bool[21] = {op}(%x, 0.25)\n%n{n}: bool[21] = logical_not(%c{n})"
        for n, op in enumerate("lt le gt ge eq ne".split())
    )
    outputs = ", ".join(f"%n{n}" for n in range(6))
    _check(f"%x: f32[21] = input('x')\n{calls}", outputs, {"x": x}, tmp_path)


def test_arithmetic_of_zeros(tmp_path: Path) -> None:
    """Zero times NaN is NaN, also behind the last whole vector; a number by zero is infinite."""
    x = torch.tensor([1.0, float("nan"), -0.0, float("inf"), -2.0] * 5)
    body = (
        "%x: f32[25] = input('x')\n%product: f32[25] = mul(%x, 0.0)\n"
        "%minus: f32[25] = mul(%x, -0.0)\n"
        "%quotient: f32[25] = div(0.0, %x)\n%pole: f32[25] = div(%x, 0.0)"
    )
    _check(body, "%product, %minus, %quotient, %pole", {"x": x}, tmp_path)
