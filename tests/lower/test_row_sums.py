"""An index's inverse, and rows summed by it inside whatever reads them, are the interpreter's."""

from __future__ import annotations

from math import prod
from pathlib import Path

import pytest
import torch
from torch.fx import Graph

from pockengine.ir.graph import outputs_of
from pockengine.ir.text import parse
from pockengine.lower.kernel import form_of, kernels
from pockengine.passes.fuse import fuse
from tests.lower.kernel_oracle import check_kernels, random_values

_STEP = """
%a: f32[{v}x{d}]{order} = mul(%m, 0.9)
%b: f32[{v}x{d}]{order} = add(%a, %g)
%c: f32[{v}x{d}]{order} = mul(%b, 0.1)
%e: f32[{v}x{d}]{order} = sub(%w, %c)
%u: f32[{v}x{d}]{order} = update(%m, %b)
%k: f32[{v}x{d}]{order} = update(%w, %e)
return loss=None, outputs=(), gradients={{}}, updates=(%u, %k)
"""


def _graph(
    count: int, width: int, places: tuple[int, ...], *, index: str = "i64", order: str = ""
) -> Graph:
    """A momentum step on a table of which rows were looked up."""
    dims, total = "x".join(map(str, places)), prod(places)
    head = f"""
%w: f32[{count}x{width}]{order} = param('w')
%m: f32[{count}x{width}]{order} = state('m')
%r: f32[{dims}x{width}] = input('r')
%i: {index}[{dims}] = input('i')
%j: i32[{count + 1 + total}] = invert_index(%i, {count})
%g: f32[{count}x{width}]{order} = sum_rows(%r, %j)"""
    return parse(head + _STEP.format(v=count, d=width, order=order))


@pytest.mark.parametrize(("count", "width", "places", "below"), [
    (30, 24, (3, 4), 30), (30, 40, (3, 12), 2), (7, 17, (5,), 7), (40, 1, (4, 5), 40),
    (45, 1, (9,), 3), (1, 5, (3,), 1), (1, 1, (3,), 1), (5, 33, (0,), 1), (9, 8, (2, 3, 4), 9),
    (3, 5000, (4,), 3),
])  # fmt: skip
def test_steps(count: int, width: int, places: tuple[int, ...], below: int, tmp_path: Path) -> None:
    """Any width and rank; rows of no, one and many places; two kernels, neither with a gradient."""
    graph = fuse(_graph(count, width, places))
    assert check_kernels(graph, random_values(graph, below), tmp_path, tolerance=1e-6) == 2
    assert [form_of(parse(k.text)) for k in kernels(graph)] == ["invert_index", "map"]


@pytest.mark.parametrize("below", [35, 2])
def test_a_table_that_lies_by_columns(below: int, tmp_path: Path) -> None:
    """Neighbours in memory are then sums of their own."""
    graph = fuse(_graph(35, 6, (3, 4), index="i32", order="@1.0"))
    assert check_kernels(graph, random_values(graph, below), tmp_path, tolerance=1e-6) == 2


@pytest.mark.parametrize("order", ["", "@1.0"])
def test_tied_tables(order: str, tmp_path: Path) -> None:
    """Where a product is the other half of a gradient, its tail adds the rows."""
    dense = f"""
%w: f32[70x24]{order} = param('w')
%m: f32[70x24]{order} = state('m')
%y: f32[70x9] = input('y')
%x: f32[9x24] = input('x')
%r: f32[3x4x24] = input('r')
%i: i64[3x4] = input('i')
%p: f32[70x24]{order} = matmul(%y, %x)
%j: i32[83] = invert_index(%i, 70)
%s: f32[70x24]{order} = sum_rows(%r, %j)
%g: f32[70x24]{order} = add(%p, %s)"""
    graph = fuse(parse(dense + _STEP.format(v=70, d=24, order=order)))
    assert check_kernels(graph, random_values(graph, 70), tmp_path) == 2
    assert {form_of(parse(k.text)) for k in kernels(graph)} == {"invert_index", "contract"}


def test_a_gradient_that_is_asked_for(tmp_path: Path) -> None:
    """The table itself, of rows that are seen through a permutation; NaN stays in its row."""
    graph = fuse(
        parse("""
%q: f32[20x3x4] = input('q')
%i: i64[3x4] = input('i')
%r: f32[3x4x20] = permute(%q, (1, 2, 0))
%j: i32[22] = invert_index(%i, 9)
%g: f32[9x20] = sum_rows(%r, %j)
return loss=None, outputs=(%g, %j), gradients={}, updates=()
""")
    )
    values = random_values(graph, 9)
    values["q"][:, 1, 2] = torch.nan
    check_kernels(graph, values, tmp_path, tolerance=1e-6)
    assert len(outputs_of(graph).outputs) == 2


def test_sums_add_in_order(tmp_path: Path) -> None:
    """Many places of one row: the same bits as one addition after the other."""
    graph = fuse(
        parse("""
%r: f32[500x33] = input('r')
%i: i64[500] = input('i')
%j: i32[505] = invert_index(%i, 4)
%g: f32[4x33] = sum_rows(%r, %j)
return loss=None, outputs=(%g,), gradients={}, updates=()
""")
    )
    assert check_kernels(graph, random_values(graph, 2), tmp_path, tolerance=0.0) == 2
