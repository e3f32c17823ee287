"""Kernels whose operands lie across their loop read them transposed, a tile at a time."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from torch.fx import Graph

from pockengine.ir.text import parse
from pockengine.lower.build import kernel_function
from pockengine.lower.kernel import form_of, kernels
from pockengine.passes.fuse import fuse
from tests.lower.kernel_oracle import AVX512, check_kernels, random_values

SHAPES = [(2, 37, 100), (3, 5, 7), (1, 16, 300), (2, 64, 256), (4, 3, 40), (2, 70, 1), (1, 9, 1200)]

MAP = """
%a: f32[{b}x{r}x{c}]@0.2.1 = input('a')
%f: f32[{bc}x{r}] = input('f')
%g: f32[{b}x{r}x{c}] = input('g')
%w: f32[{c}] = param('w')
%s: f32[{b}x{c}x{r}] = reshape(%f, ({b}, {c}, {r}))
%t: f32[{b}x{r}x{c}] = permute(%s, (0, 2, 1))
%x: f32[{b}x{r}x{c}] = add(%a, %t)
%y: f32[{b}x{r}x{c}] = mul(%x, %w)
%z: f32[{b}x{r}x{c}] = sub(%y, %g)
return loss=None, outputs=(%z,), gradients={{}}, updates=()
"""

ROWS = """
%a: f32[{b}x{r}x{c}]@0.2.1 = input('a')
%f: f32[{bc}x{r}] = input('f')
%w: f32[{c}] = param('w')
%s: f32[{b}x{c}x{r}] = reshape(%f, ({b}, {c}, {r}))
%t: f32[{b}x{r}x{c}] = permute(%s, (0, 2, 1))
%x: f32[{b}x{r}x{c}] = add(%a, %t)
%m: f32[{b}x{r}x1] = amax(%x, (2,), True)
%d: f32[{b}x{r}x{c}] = sub(%x, %m)
%e: f32[{b}x{r}x{c}] = exp(%d)
%n: f32[{b}x{r}x1] = sum(%e, (2,), True)
%p: f32[{b}x{r}x{c}] = div(%e, %n)
%y: f32[{b}x{r}x{c}] = mul(%p, %w)
return loss=None, outputs=(%x, %y), gradients={{}}, updates=()
"""

REDUCE = """
%a: f32[{b}x{r}x{c}]@0.2.1 = input('a')
%g: f32[{b}x{r}x{c}] = input('g')
%y: f32[{b}x{r}x{c}]@0.2.1 = mul(%a, %g)
%s: f32[{b}x{r}x1] = sum(%y, (2,), True)
%m: f32[{b}x{r}x1] = mul(%s, 0.5)
return loss=None, outputs=(%m,), gradients={{}}, updates=()
"""


def _graph(text: str, shape: tuple[int, int, int]) -> Graph:
    b, r, c = shape
    return fuse(parse(text.format(b=b, r=r, c=c, bc=b * c)))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("text", [MAP, ROWS, REDUCE], ids=["map", "rows", "reduce"])
def test_values(text: str, shape: tuple[int, int, int], tmp_path: Path) -> None:
    """Whole tiles, the parts of the last one, and rows too few or too long for a copy."""
    graph = _graph(text, shape)
    assert check_kernels(graph, random_values(graph), tmp_path) == 1


@pytest.mark.parametrize(("text", "form", "copies"), [
    (MAP, "map", 2), (ROWS, "rows", 2), (REDUCE, "reduce", 1),
])  # fmt: skip
def test_operands_are_transposed(text: str, form: str, copies: int) -> None:
    """Vectors are loaded along memory and shuffled; none is gathered."""
    (kernel,) = kernels(_graph(text, (2, 64, 256)))
    assert form_of(parse(kernel.text)) == form
    function, _ = kernel_function(kernel.text, AVX512)
    script = function.script()
    assert len(re.findall(r"across\w* = T\.decl_buffer", script)) == copies
    assert script.count("T.Shuffle") >= 64 * copies
    assert set(re.findall(r"T\.Ramp\(.*, T\.int64\((\d+)\), 16\)", script)) == {"1"}
