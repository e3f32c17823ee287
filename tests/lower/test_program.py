"""``lower.program``: what may be done in place, and kernels from the cache."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch

from pockengine.ir.text import parse
from pockengine.lower import program
from pockengine.lower.cache import KernelCache
from pockengine.lower.features import host_target
from pockengine.lower.kernel import kernels
from pockengine.lower.program import build_kernels, kernel_name, works
from pockengine.lower.tile_parameters import Choice
from pockengine.lower.trailer import TRAILER
from pockengine.passes.fuse import fuse
from tests.lower.kernel_oracle import check_kernels

_CASES = {
    "%y: f32[8x4] = exp(%x)": ["x"],
    "%e: f32[8x4] = exp(%x)\n%y: f32[8x4] = mul(%e, %z)": ["x", "z"],
    "%y: f32[8x4] = add(%x, %r)": ["x"],  # r is broadcast
    "%y: f32[8x4] = where(%b, %x, 0.0)": ["x"],  # b has other bytes
    "%t: f32[8x4] = permute(%s, (1, 0))\n%y: f32[8x4] = add(%x, %t)": ["x"],
    "%t: f32[8x4] = permute(%s, (1, 0))\n%q: f32[4x8] = permute(%t, (1, 0))\n"
    "%y: f32[4x8] = add(%s, %q)": [],  # s is read directly and through a view
    "%y: f32[10x4] = pad(%x, (1, 0), (1, 0), 0.0)": [],
    "%m: f32[8x1] = amax(%x, (1,), True)\n%y: f32[8x4] = sub(%x, %m)": ["x"],  # in the last pass
    "%y: f32[8x4] = mul(%x, %z)\n%m: f32[8x1] = sum(%y, (1,), True)\n%q: f32[8x4] = sub(%x, %m)": [
        "x"
    ],  # q, not y: y is stored before the last use of x
    "%y: f32[8x4] = matmul(%x, %w)": [],  # x is read by other rows' and columns' sums too
    "%m: f32[8x4] = matmul(%x, %w)\n%y: f32[8x4] = add(%m, %z)": ["z"],
    "%m: f32[8x4] = matmul(%x, %w)\n%y: f32[8x4] = add(%m, %x)": [],
    "%m: f32[8x4] = matmul(%x, %w)\n%f: f32[8x4] = reshape(%s, (8, 4))\n"
    "%y: f32[8x4] = add(%m, %f)": ["s"],  # the same address
    "%m: f32[8x4] = matmul(%x, %w)\n%t: f32[8x4] = permute(%s, (1, 0))\n"
    "%y: f32[8x4] = add(%m, %t)": [],
}


@pytest.mark.parametrize("body", _CASES)
def test_in_place(body: str) -> None:
    """Only what is read at the element that is written, for the last time, may be overwritten."""
    outputs = "%y, %q" if "%q: f32[8x4]" in body else "%y,"
    graph = fuse(
        parse(f"""
%x: f32[8x4] = input('x')
%z: f32[8x4] = input('z')
%r: f32[4] = input('r')
%s: f32[4x8] = input('s')
%b: bool[8x4] = input('b')
%w: f32[4x4] = input('w')
{body}
return loss=None, outputs=({outputs}), gradients={{}}, updates=()
""")
    )
    found = [pair for work in works(graph, kernels(graph)) for pair in work.in_place]
    assert [read.name for read, _ in found] == _CASES[body]
    assert not found or found[0][1].name == ("q" if "%q: f32[8x4]" in body else "y")


def test_warm_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel is built once; its range is read back from the cache."""
    built: list[str] = []

    def build(text: str, target: str, choices: Mapping[str, Choice]) -> bytes:
        assert not choices
        built.append(json.loads(target)["kind"])
        return text.encode() + TRAILER.pack(12, 3)

    monkeypatch.setattr(program, "_build", build)
    cache = KernelCache(tmp_path)
    for _ in range(2):
        found = build_kernels(["kernel", "kernel"], host_target(), cache)
        assert (found["kernel"].extent, found["kernel"].grain) == (12, 3)
    assert built == ["llvm"]


def test_names() -> None:
    """A kernel's symbol says what it is, and is a C identifier."""
    assert kernel_name("a") == kernel_name("a") != kernel_name("b")
    assert kernel_name("a").isidentifier()


def test_time_steps_are_one_kernel(tmp_path: Path) -> None:
    """Kernels that differ in where their slice of a value begins are one, pointed elsewhere."""
    graph = fuse(
        parse(
            "%x: f32[3x4x8] = input('x')\n%w: f32[8x8] = input('w')\n"
            "%s: f32[1x4x8] = slice(%x, 0, 1, 2)\n%a: f32[4x8] = reshape(%s, (4, 8))\n"
            "%y: f32[4x8] = matmul(%a, %w)\n"
            "%t: f32[1x4x8] = slice(%x, 0, 2, 3)\n%b: f32[4x8] = reshape(%t, (4, 8))\n"
            "%z: f32[4x8] = matmul(%b, %w)\n"
            "return loss=None, outputs=(%y, %z), gradients={}, updates=()"
        )
    )
    first, second = kernels(graph)
    assert first.text == second.text
    assert (first.shifts, second.shifts) == ((32, 0), (64, 0))
    check_kernels(graph, {"x": torch.randn(3, 4, 8), "w": torch.randn(8, 8)}, tmp_path)
