"""64-bit integers: converted without library calls, and not in 32-bit machines' indices."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from pockengine.lower.build import build_object, kernel_function
from pockengine.lower.features import host_target
from pockengine.runtime.elf import undefined
from pockengine.targets import get_target
from tests.lower.harness import built

CAST = """\
%a: i64[SIZE] = input('a')
%b: f32[SIZE] = cast(%a, 'f32')
return loss=None, outputs=(%b,), gradients={}, updates=()
"""
PRODUCT = """\
%a: f32[16x10] = input('a')
%b: f32[16x7] = input('b')
%t: f32[10x16] = permute(%a, (1, 0))
%c: f32[10x7] = matmul(%t, %b)
return loss=None, outputs=(%c,), gradients={}, updates=()
"""


def test_float_of_int64(tmp_path: Path) -> None:
    """Every magnitude and both signs round as NumPy rounds: once, to the nearest, ties to even."""
    around = [(1 << bits) + offset for bits in range(1, 63) for offset in range(-3, 4)]
    ties = [((1 << 24) + odd) << shift for odd in (1, 3) for shift in range(1, 38)]
    whole = [*around, *ties, *(tie + d for tie in ties for d in (-1, 1)), 2**63 - 1]
    a = np.array([*whole, *(-x for x in whole), -(2**63)], np.int64)
    b = np.empty(len(a), np.float32)
    function, work = kernel_function(CAST.replace("SIZE", str(len(a))), host_target())
    built(function, tmp_path)(0, work.extent, a, b)
    np.testing.assert_array_equal(b, a.astype(np.float32))


@pytest.mark.parametrize("text", [CAST.replace("SIZE", "64"), PRODUCT], ids=["cast", "product"])
def test_no_library_call_on_32_bits(text: str) -> None:
    """A Cortex-M kernel needs no 64-bit division or conversion of a compiler's library."""
    target = get_target("stm32f746").llvm
    assert target is not None
    code = build_object(text, json.dumps(dict(target)), "kernel")
    assert undefined(code[:-16]) <= {"memset", "memcpy"}
