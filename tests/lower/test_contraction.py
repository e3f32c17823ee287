"""One loop nest computes every contraction, exactly alike for any split of its range."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tvm import tirx

from pockengine.lower.codegen import compile_function
from pockengine.lower.contraction import contraction
from pockengine.lower.features import host_target
from pockengine.lower.nest import Expr, Stmt, const, kernel, load, operand, ranges, store
from pockengine.lower.summed import Contraction, Left, Right
from pockengine.lower.tile_parameters import TileParameters, tile_parameters
from pockengine.lower.tiles import contraction_geometry
from tests.lower.harness import built

HOST = tile_parameters(host_target())
SMALL = dataclasses.replace(HOST, scratch_bytes=2048, row_block=8)  # forces packing in pieces
BY_LANE = dataclasses.replace(HOST, by_lane=True, unrolled=8, vector_lanes=4)
TOLERANCE = 2e-6  # of the largest magnitude: float32 sums of a few hundred terms
KINDS = ("direct", "copied", "transposed", "gradient")


def matmul(
    rows: int, steps: int, columns: int, kind: str, batch: int = 1
) -> tuple[Contraction, list[tirx.Var]]:
    """Product of (batch, rows, steps) and (batch, steps, columns), and its operands.

    ``copied``: right is not read in place; ``transposed``: it is stored (columns, steps);
    ``gradient``: left is stored (steps, rows), as in a weight gradient.
    """
    a, b = operand("a", batch * rows * steps), operand("b", batch * steps * columns)
    out = operand("out", batch * rows * columns)
    row_stride, step_stride = (1, rows) if kind == "gradient" else (steps, 1)

    def value(n: Expr, k: Sequence[Expr], column: Expr, lanes: int) -> Expr:
        at = k[0] * const(columns) + column
        if kind == "transposed":
            at = column * const(steps) + k[0]
        return load(b, n * const(steps * columns) + at, lanes)

    def finish(n: Expr, m: Expr, column: Expr, lanes: int, total: Expr) -> Stmt:
        return store(out, (n * const(rows) + m) * const(columns) + column, total, lanes)

    work = Contraction(
        batch=batch,
        rows=rows,
        columns=columns,
        reduction=(steps,),
        left=Left(
            buffer=a,
            base=lambda n, m: n * const(rows * steps) + m * const(row_stride),
            offset=lambda k: k[0] * const(step_stride),
        ),
        right=Right(
            value=value,
            direct=kind in ("direct", "gradient"),
            along_reduction=kind == "transposed",
        ),
        store=finish,
    )
    return work, [a, b, out]


def normal(*shape: int) -> np.ndarray:
    """Normally distributed float32 numbers."""
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(np.float32)


def stored(array: np.ndarray, swapped: bool) -> np.ndarray:
    """The array as it lies in memory, perhaps with its last two axes exchanged."""
    return np.ascontiguousarray(array.swapaxes(-1, -2) if swapped else array)


def check_matmul(
    folder: Path,
    tiles: TileParameters,
    work: Contraction,
    operands: list[tirx.Var],
    kind: str,
) -> None:
    """Equal to float64 within the tolerance; three pieces of the range give the same bits."""
    batch, rows, columns, steps = work.batch, work.rows, work.columns, work.reduction[0]
    geometry = work.geometry(tiles)
    call = built(kernel(operands, lambda b, e: contraction(work, geometry, b, e)), folder)
    a, b = normal(batch, rows, steps), normal(batch, steps, columns)
    inputs = stored(a, kind == "gradient"), stored(b, kind == "transposed")
    out, pieces = np.full((2, batch, rows, columns), np.nan, np.float32)
    call(0, geometry.extent, *inputs, out)
    expected = a.astype(np.float64) @ b.astype(np.float64)
    assert np.abs(out - expected).max() <= TOLERANCE * np.abs(expected).max()
    cuts = [geometry.extent * i // 3 for i in range(4)]
    for begin, end in itertools.pairwise(cuts):
        call(begin, end, *inputs, pieces)
    np.testing.assert_array_equal(pieces, out)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("tiles", [HOST, SMALL], ids=["host", "chunks"])
@pytest.mark.parametrize(
    ("rows", "steps", "columns", "batch"),
    [(49, 64, 24, 1), (1, 130, 100, 1), (35, 29, 37, 3), (8, 130, 10, 1), (197, 7, 1, 2)],
)
def test_products(
    tmp_path: Path,
    kind: str,
    tiles: TileParameters,
    rows: int,
    steps: int,
    columns: int,
    batch: int,
) -> None:
    """All ways to read the operands, with remainders in rows, columns, steps and chunks."""
    check_matmul(tmp_path, tiles, *matmul(rows, steps, columns, kind, batch), kind)


@pytest.mark.parametrize("packed", [False, True], ids=["in place", "packed"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("rows", "steps", "columns"), [(35, 29, 37), (1, 7, 3)])
def test_left_elements_by_lane(
    tmp_path: Path, rows: int, steps: int, columns: int, kind: str, packed: bool
) -> None:
    """Vectors of left elements and several steps at once give the bits of one at a time."""
    work, operands = matmul(rows, steps, columns, kind)
    along = kind != "gradient"
    vectors = dataclasses.replace(
        work, left=dataclasses.replace(work.left, packed=packed, along_steps=along)
    )
    inputs = [
        stored(normal(1, rows, steps), not along),
        stored(normal(1, steps, columns), kind == "transposed"),
    ]
    outs = []
    for each, tiles in ((work, HOST), (vectors, BY_LANE)):
        cut = each.geometry(tiles)
        assert cut.unrolled > 1 or tiles is HOST
        func = kernel(operands, lambda b, e, w=each, g=cut: contraction(w, g, b, e))
        outs.append(np.full((rows, columns), np.nan, np.float32))
        built(func, tmp_path)(0, cut.extent, *inputs, outs[-1])
    np.testing.assert_array_equal(*outs)


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 70), st.integers(1, 200), st.integers(1, 70), st.sampled_from(KINDS))
def test_any_product(
    tmp_path_factory: pytest.TempPathFactory, rows: int, steps: int, columns: int, kind: str
) -> None:
    """No shape is special."""
    folder = tmp_path_factory.mktemp("any")
    check_matmul(folder, HOST, *matmul(rows, steps, columns, kind), kind)


def test_epilogue_in_a_loop_gives_the_same_bits(tmp_path: Path) -> None:
    """`compact_store` changes code, not values."""
    work, operands = matmul(35, 29, 37, "direct")
    a, b = normal(35, 29), normal(29, 37)
    results = []
    for compact in (False, True):
        chosen = dataclasses.replace(work, compact_store=compact)
        geometry = chosen.geometry(HOST)
        nest = kernel(operands, lambda s, e, w=chosen, g=geometry: contraction(w, g, s, e))
        results.append(np.zeros((35, 37), np.float32))
        built(nest, tmp_path)(0, geometry.extent, a, b, results[-1])
    np.testing.assert_array_equal(*results)


def test_convolution(tmp_path: Path) -> None:
    """A strided 3x3 convolution of a padded NHWC image, rows crossing image lines."""
    n, h, w, c, o = 2, 10, 14, 5, 24
    oh, ow, hp, wp = 5, 7, h + 2, w + 2
    x, k, y = operand("x", n * hp * wp * c), operand("k", 9 * c * o), operand("y", n * oh * ow * o)

    def base(_: Expr, m: Expr) -> Expr:
        image, line = tirx.floordiv(m, const(oh * ow)), tirx.floormod(m, const(oh * ow))
        row, column = tirx.floordiv(line, const(ow)), tirx.floormod(line, const(ow))
        return ((image * const(hp) + row * const(2)) * const(wp) + column * const(2)) * const(c)

    work = Contraction(
        batch=1,
        rows=n * oh * ow,
        columns=o,
        reduction=(3, 3, c),
        left=Left(
            buffer=x, base=base, offset=lambda i: (i[0] * const(wp) + i[1]) * const(c) + i[2]
        ),
        right=Right(
            value=lambda _, i, at, lanes: load(
                k, ((i[0] * const(3) + i[1]) * const(c) + i[2]) * const(o) + at, lanes
            )
        ),
        store=lambda _, m, at, lanes, total: store(y, m * const(o) + at, total, lanes),
        row_period=ow,
    )
    geometry = work.geometry(HOST)
    image, weight, out = normal(n, c, h, w), normal(o, c, 3, 3), np.zeros((n, oh, ow, o), "f4")
    padded = np.pad(image.transpose(0, 2, 3, 1), ((0, 0), (1, 1), (1, 1), (0, 0)))
    call = built(kernel([x, k, y], lambda b, e: contraction(work, geometry, b, e)), tmp_path)
    call(0, geometry.extent, padded, stored_weight(weight), out)
    expected = torch.conv2d(torch.from_numpy(image), torch.from_numpy(weight), None, 2, 1)
    np.testing.assert_allclose(out, expected.permute(0, 2, 3, 1), rtol=1e-4, atol=2e-5)


def stored_weight(weight: np.ndarray) -> np.ndarray:
    """(O, C, R, S) -> (R, S, C, O)."""
    return np.ascontiguousarray(weight.transpose(2, 3, 1, 0))


def phase(
    operands: list[tirx.Var], size: tuple[int, int, int, int], down: int, right: int
) -> Contraction:
    """Input gradient of a 3x3, stride 2, padding 1 convolution at rows 2i+down, columns 2j+right.

    Taps are r = 1 at even rows and r = 0, 2 at odd ones; dy is padded below and to the right.
    """
    n, h, c, o = size
    dy, weight, dx = operands
    half, line = h // 2, h // 2 + 1

    def base(_: Expr, m: Expr) -> Expr:
        image, rest = tirx.floordiv(m, const(half * half)), tirx.floormod(m, const(half * half))
        i, j = tirx.floordiv(rest, const(half)), tirx.floormod(rest, const(half))
        return ((image * const(line) + i + const(down)) * const(line) + j + const(right)) * const(o)

    def value(_: Expr, k: Sequence[Expr], column: Expr, lanes: int) -> Expr:
        r, s = k[0] * const(2) + const(1 - down), k[1] * const(2) + const(1 - right)
        return load(weight, ((r * const(3) + s) * const(c) + column) * const(o) + k[2], lanes)

    def finish(_: Expr, m: Expr, column: Expr, lanes: int, total: Expr) -> Stmt:
        image, rest = tirx.floordiv(m, const(half * half)), tirx.floormod(m, const(half * half))
        i, j = tirx.floordiv(rest, const(half)), tirx.floormod(rest, const(half))
        at = (
            (image * const(h) + i * const(2) + const(down)) * const(h) + j * const(2) + const(right)
        )
        return store(dx, at * const(c) + column, total, lanes)

    return Contraction(
        batch=1,
        rows=n * half * half,
        columns=c,
        reduction=(1 + down, 1 + right, o),
        left=Left(
            buffer=dy,
            base=base,
            offset=lambda k: k[2] - (k[0] * const(line) + k[1]) * const(o),
        ),
        right=Right(value=value, direct=False, along_reduction=True),
        store=finish,
        row_period=half,
    )


def test_strided_input_gradient_in_one_kernel(tmp_path: Path) -> None:
    """Four phases, each a contraction with its own taps, behind each other over one range."""
    n, h, c, o = size = (2, 8, 20, 18)
    operands = [operand("dy", n * 25 * o), operand("w", 9 * c * o), operand("dx", n * h * h * c)]
    works = [phase(operands, size, *divmod(number, 2)) for number in range(4)]
    parts = [(work, work.geometry(HOST)) for work in works]
    nests = [
        (geometry.extent, lambda b, e, w=work, g=geometry: contraction(w, g, b, e))
        for work, geometry in parts
    ]
    call = built(kernel(operands, lambda b, e: ranges(nests, b, e)), tmp_path)
    dy, weight, dx = normal(n, o, 4, 4), normal(o, c, 3, 3), np.zeros((n, h, h, c), np.float32)
    padded = np.pad(dy.transpose(0, 2, 3, 1), ((0, 0), (0, 1), (0, 1), (0, 0)))
    total = sum(geometry.extent for _, geometry in parts)
    for begin in range(total):
        call(begin, begin + 1, padded, stored_weight(weight), dx)
    expected = torch.nn.grad.conv2d_input(
        (n, c, h, h), torch.from_numpy(weight), torch.from_numpy(dy), 2, 1
    )
    np.testing.assert_allclose(dx, expected.permute(0, 2, 3, 1), rtol=1e-4, atol=5e-5)


@pytest.mark.parametrize("tiles", [HOST, SMALL], ids=["host", "chunks"])
def test_weight_gradient_over_images_and_lines(tmp_path: Path, tiles: TileParameters) -> None:
    """The reduction runs over (N, OH, OW) of a padded image, cut anywhere."""
    n, h, c, o = 3, 9, 20, 24
    hp = h + 2
    x, dy, dw = (
        operand("x", n * hp * hp * c),
        operand("dy", n * h * h * o),
        operand("dw", 9 * c * o),
    )

    def base(_: Expr, m: Expr) -> Expr:
        tap, channel = tirx.floordiv(m, const(c)), tirx.floormod(m, const(c))
        r, s = tirx.floordiv(tap, const(3)), tirx.floormod(tap, const(3))
        return (r * const(hp) + s) * const(c) + channel

    work = Contraction(
        batch=1,
        rows=9 * c,
        columns=o,
        reduction=(n, h, h),
        left=Left(
            buffer=x,
            base=base,
            offset=lambda k: ((k[0] * const(hp) + k[1]) * const(hp) + k[2]) * const(c),
        ),
        right=Right(
            value=lambda _, k, at, lanes: load(
                dy, ((k[0] * const(h) + k[1]) * const(h) + k[2]) * const(o) + at, lanes
            )
        ),
        store=lambda _, m, at, lanes, total: store(dw, m * const(o) + at, total, lanes),
        row_period=c,
    )
    geometry = work.geometry(tiles)
    image, gradient, out = normal(n, c, h, h), normal(n, o, h, h), np.zeros((3, 3, c, o), "f4")
    padded = np.pad(image.transpose(0, 2, 3, 1), ((0, 0), (1, 1), (1, 1), (0, 0)))
    call = built(kernel([x, dy, dw], lambda b, e: contraction(work, geometry, b, e)), tmp_path)
    lines = np.ascontiguousarray(gradient.transpose(0, 2, 3, 1))
    call(0, geometry.extent, padded, lines, out)
    expected = torch.nn.grad.conv2d_weight(
        torch.from_numpy(image), (o, c, 3, 3), torch.from_numpy(gradient), 1, 1
    )
    np.testing.assert_allclose(out, expected.permute(2, 3, 1, 0), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("mtriple", ["thumbv7em-none-eabihf", "aarch64-linux-gnu", "wasm32-wasi"])
def test_other_processors(mtriple: str) -> None:
    """The emitter's code compiles for scalar, NEON and wasm tiles."""
    features = {"mattr": ["+simd128"]} if mtriple.startswith("wasm") else {}
    target = {"kind": "llvm", "mtriple": mtriple, **features}
    tiles = dataclasses.replace(tile_parameters(target), scratch_bytes=1024)
    for kind in KINDS:
        work, operands = matmul(13, 300, 11, kind)
        geometry = work.geometry(tiles)
        func = kernel(operands, lambda b, e, w=work, g=geometry: contraction(w, g, b, e))
        assert compile_function(func, target, "k")


def test_neon_left_elements_come_by_vectors() -> None:
    """On NEON vectors hold left elements, and a tile leaves registers for them."""
    tiles = tile_parameters({"mtriple": "aarch64-linux-gnu"})
    for packed in (False, True):
        work, _ = matmul(64, 64, 48, "copied")
        work = dataclasses.replace(
            work, left=dataclasses.replace(work.left, packed=packed, along_steps=True)
        )
        cut = work.geometry(tiles)
        assert (cut.left_lanes, cut.unrolled) == (4, 8)
        used = cut.row_tile * len(cut.panel) + len(cut.panel) + (0 if packed else cut.row_tile)
        assert used < tiles.vector_registers


@given(
    st.integers(1, 3000),
    st.integers(1, 3000),
    st.integers(1, 100_000),
    st.booleans(),
    st.booleans(),
)
def test_geometry_covers_everything_once(
    rows: int, columns: int, reduction: int, packed: bool, wide: bool
) -> None:
    """Tiles and panels add up to rows and columns, and a register tile fits the registers."""
    tiles = HOST if wide else tile_parameters({"mtriple": "aarch64-linux-gnu"})
    cut = contraction_geometry(
        tiles, batch=1, rows=rows, columns=columns, reduction=reduction, packed=packed
    )
    assert cut.row_tiles * cut.row_tile + cut.row_tail == rows
    assert cut.panels * sum(cut.panel) + sum(cut.tail) == columns
    assert (cut.row_blocks - 1) * cut.block_tiles < max(1, cut.row_tiles)
    assert cut.row_blocks * cut.block_tiles >= cut.row_tiles
    assert cut.groups * cut.group_panels >= cut.panels + bool(cut.tail)
    widest = max(len(cut.panel), len(cut.tail))
    assert (cut.row_tile + 1) * widest < tiles.vector_registers or cut.row_tile == 1


@pytest.mark.parametrize("mattr", [[], ["+simd128"], ["+neon"], ["+avx2"], ["+avx512f"]], ids=str)
def test_pieces_fit_the_stack(mattr: list[str]) -> None:
    """Rows, panels and sums take no more than the exported README and the linker script allow."""
    tiles = tile_parameters({"mattr": mattr})
    extents = itertools.product(
        *((48, 147, 384, 4608), (48, 100, 1536), (1, 16, 48, 65, 257, 512, 8192), (False, True))
    )
    for rows, columns, reduction, whole in extents:
        cut = contraction_geometry(
            tiles,
            batch=1,
            rows=rows,
            columns=columns,
            reduction=reduction,
            packed=True,
            blocked=True,
            whole_columns=whole,
        )
        steps = cut.chunk or reduction
        panels = cut.packed_panels * steps * cut.panel_columns
        sums = cut.group_panels * cut.block_rows * cut.panel_columns if cut.chunk else 0
        packed_rows = (steps + 2) * cut.block_rows
        added = 3 * cut.group_panels * cut.panel_columns if whole else 0
        used = 4 * (panels + sums + packed_rows + added)
        assert used <= 2 * tiles.left_bytes, (rows, columns, reduction, whole)


@pytest.mark.parametrize("kind", ["copied", "transposed"])
def test_the_next_group_is_asked_for(tmp_path: Path, kind: str) -> None:
    """While a unit multiplies, it asks for every cache line that the next one copies."""
    rows, steps, columns = 40, 130, 200
    work, operands = matmul(rows, steps, columns, kind)
    asked = operand("asked", steps * columns)

    def mark(_: Expr, k: Sequence[Expr], column: Expr) -> list[Stmt]:
        return [store(asked, k[0] * const(columns) + column, tirx.FloatImm("float32", 1.0))]

    work = dataclasses.replace(work, right=dataclasses.replace(work.right, prefetch=mark))
    cut = work.geometry(dataclasses.replace(HOST, scratch_bytes=1 << 15))
    group = cut.group_panels * cut.panel_columns
    assert cut.chunk == 0
    assert cut.groups > 2
    call = built(kernel([*operands, asked], lambda b, e: contraction(work, cut, b, e)), tmp_path)
    found, out = np.zeros((steps, columns), np.float32), np.zeros((rows, columns), np.float32)
    call(
        0, 1, normal(rows, steps), stored(normal(steps, columns), kind == "transposed"), out, found
    )
    due, (along, across) = np.zeros_like(found), (16, 1) if kind == "transposed" else (1, 16)
    due[::along, group : 2 * group : across] = 1
    assert (found >= due).all()
    assert found.sum() < 1.1 * due.sum()
