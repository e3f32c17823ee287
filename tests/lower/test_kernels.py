"""Kernels of fused graphs compute what the interpreter computes, special values included."""

from __future__ import annotations

from math import prod
from pathlib import Path

import pytest
import torch

from pockengine.ir.graph import calls, set_group
from pockengine.ir.ops import OPS, Kind
from pockengine.ir.text import parse
from pockengine.ir.verify import verify
from pockengine.passes.choose_layout import choose_layout
from pockengine.passes.fuse import fuse
from pockengine.passes.pad_convolutions import pad_convolutions
from tests.lower.kernel_oracle import check_kernels, random_values

UNARY = (
    "neg exp expm1 log log1p sqrt rsqrt tanh sigmoid erf sin cos atan abs sign floor round".split()
)
BINARY = "add sub mul div fmod maximum minimum pow".split()
COMPARE = "eq ne lt le gt ge".split()
SPECIAL = [0.0, -0.0, 1.0, -1.5, 2.5, 6.0, 30.0, -30.0, float("inf"), float("-inf"), float("nan")]


@pytest.mark.parametrize("name", UNARY)
def test_special_values_of_unary_ops(name: str, tmp_path: Path) -> None:
    """NaN, infinities and signed zeros come out as in PyTorch."""
    size = len(SPECIAL)
    graph = parse(
        f"%x: f32[{size}] = input('x')\n%y: f32[{size}] = {name}(%x)\n"
        "return loss=None, outputs=(%y,), gradients={}, updates=()"
    )
    check_kernels(fuse(graph), {"x": torch.tensor(SPECIAL)}, tmp_path)


@pytest.mark.parametrize("name", BINARY + COMPARE)
def test_special_values_of_binary_ops(name: str, tmp_path: Path) -> None:
    """Every pair of special values comes out as in PyTorch; comparisons with NaN too."""
    pairs = torch.cartesian_prod(torch.tensor(SPECIAL), torch.tensor(SPECIAL))
    kind = "bool" if name in COMPARE else "f32"
    size = len(pairs)
    graph = parse(
        f"%x: f32[{size}] = input('x')\n%y: f32[{size}] = input('y')\n"
        f"%z: {kind}[{size}] = {name}(%x, %y)\n"
        "return loss=None, outputs=(%z,), gradients={}, updates=()"
    )
    check_kernels(
        fuse(graph), {"x": pairs[:, 0].contiguous(), "y": pairs[:, 1].contiguous()}, tmp_path
    )


@pytest.mark.parametrize("name", BINARY + COMPARE)
def test_special_values_of_one_operand_twice(name: str, tmp_path: Path) -> None:
    """NaN is not equal to itself, infinity less infinity is NaN: nothing cancels."""
    size = len(SPECIAL)
    kind = "bool" if name in COMPARE else "f32"
    graph = parse(
        f"%x: f32[{size}] = input('x')\n%y: {kind}[{size}] = {name}(%x, %x)\n"
        "return loss=None, outputs=(%y,), gradients={}, updates=()"
    )
    check_kernels(fuse(graph), {"x": torch.tensor(SPECIAL)}, tmp_path)


def test_comparisons_together(tmp_path: Path) -> None:
    """One of ``x < y`` and ``x >= y`` does not follow from the other, for NaN is neither."""
    pairs = torch.cartesian_prod(torch.tensor(SPECIAL), torch.tensor(SPECIAL))
    size = len(pairs)
    for one, other in (("lt", "ge"), ("gt", "le"), ("lt", "gt"), ("eq", "ne")):
        graph = parse(
            f"%x: f32[{size}] = input('x')\n%y: f32[{size}] = input('y')\n"
            f"%a: bool[{size}] = {one}(%x, %y)\n%b: bool[{size}] = {other}(%x, %y)\n"
            f"%some: bool[{size}] = logical_or(%a, %b)\n"
            f"%both: bool[{size}] = logical_and(%a, %b)\n"
            f"%rest: f32[{size}] = where(%b, 2.0, 3.0)\n"
            f"%which: f32[{size}] = where(%a, 1.0, %rest)\n"
            "return loss=None, outputs=(%some, %both, %which), gradients={}, updates=()"
        )
        check_kernels(
            fuse(graph), {"x": pairs[:, 0].contiguous(), "y": pairs[:, 1].contiguous()}, tmp_path
        )


def test_every_elementwise_float_op_is_tried() -> None:
    """A new elementwise op has to be added to one of the lists above."""
    whole_numbers = set("quotient bitand bitor bitxor".split())
    other = set("logical_not logical_and logical_or where cast copy full iota uniform".split())
    other |= whole_numbers
    whole = {n for n in OPS if n.startswith("batch_norm")}  # decomposed before the lowering
    maps = {name for name, op in OPS.items() if op.kind is Kind.MAP}
    assert maps - set(UNARY + BINARY + COMPARE) == (other | whole) & maps


@pytest.mark.parametrize("name", ["sum", "prod", "amax", "amin"])
@pytest.mark.parametrize("axes", [(1,), (0,), (0, 1), (1, 2), (0, 2), (2,), (0, 1, 2)])
def test_reductions(name: str, axes: tuple[int, ...], tmp_path: Path) -> None:
    """Any axes, with and without keeping them, odd extents; one NaN reaches its result alone."""
    shape = (3, 5, 37)
    for keep in (False, True):
        kept = [1 if a in axes else e for a, e in enumerate(shape) if keep or a not in axes]
        dims = "x".join(map(str, kept))
        graph = parse(
            f"%x: f32[3x5x37] = input('x')\n%y: f32[{dims}] = {name}(%x, {axes}, {keep})\n"
            "return loss=None, outputs=(%y,), gradients={}, updates=()"
        )
        values = random_values(graph)
        values["x"][1, 2, 3] = float("nan")
        check_kernels(fuse(graph), values, tmp_path)


CONVOLUTIONS = [
    # x, weight, stride, padding, dilation, groups
    ((2, 3, 9, 8), (5, 3, 3, 3), (1, 1), (1, 1, 1, 1), (1, 1), 1),
    ((1, 4, 8, 8), (6, 4, 3, 3), (2, 2), (0, 1, 0, 1), (1, 1), 1),
    ((2, 8, 7, 7), (16, 8, 1, 1), (2, 2), (0, 0, 0, 0), (1, 1), 1),
    ((1, 4, 11, 9), (4, 4, 2, 3), (3, 1), (2, 0, 1, 2), (2, 2), 1),
    ((2, 6, 9, 9), (4, 3, 3, 3), (2, 1), (1, 1, 1, 1), (1, 1), 2),
    ((2, 19, 9, 9), (19, 1, 3, 3), (2, 2), (1, 1, 1, 1), (1, 1), 19),
    ((1, 16, 6, 10), (16, 1, 5, 3), (1, 1), (2, 2, 0, 1), (1, 2), 16),
]


@pytest.mark.parametrize("case", CONVOLUTIONS, ids=str)
def test_convolutions(case: tuple[tuple[int, ...], ...], tmp_path: Path) -> None:
    """All three directions of strided, dilated, padded, grouped convolutions."""
    x, w, stride, padding, dilation, groups = case
    form = f"{stride}, {padding}, {dilation}, {groups}"
    y = torch.nn.functional.conv2d(
        torch.nn.functional.pad(torch.empty(x), (padding[2], padding[3], padding[0], padding[1])),
        torch.empty(w),
        None,
        stride,
        0,
        dilation,
        groups,  # type: ignore[arg-type]
    ).shape
    names = {key: "x".join(map(str, shape)) for key, shape in (("x", x), ("w", w), ("y", y))}
    graph = parse(
        f"%x: f32[{names['x']}] = input('x')\n%w: f32[{names['w']}] = param('w')\n"
        f"%g: f32[{names['y']}] = input('g')\n"
        f"%y: f32[{names['y']}] = conv2d(%x, %w, {form})\n"
        f"%dx: f32[{names['x']}] = conv2d_input_grad(%g, %w, {x[2:]}, {form})\n"
        f"%dw: f32[{names['w']}] = conv2d_weight_grad(%x, %g, {w[2:]}, {form})\n"
        "return loss=None, outputs=(%y, %dx, %dw), gradients={}, updates=()"
    )
    fused = verify(fuse(choose_layout(pad_convolutions(graph))))
    assert check_kernels(fused, random_values(graph), tmp_path) >= len(("y", "dx", "dw"))


@pytest.mark.parametrize(
    "extents",
    [
        (7, 5, 3),
        (64, 33, 24),
        (1, 130, 10),
        (17, 1, 1),
        (50, 64, 100),
        (20, 140, 512),
        (512, 140, 50),
    ],
)
def test_matmul_in_all_orders(extents: tuple[int, int, int], tmp_path: Path) -> None:
    """Either operand and the result may be stored transposed; batches have strides of their own."""
    rows, steps, columns = extents
    for a, b, out in (
        ("", "", ""),
        ("@0.2.1", "", ""),
        ("", "@0.2.1", "@0.2.1"),
        ("@1.0.2", "", "@1.0.2"),
    ):
        graph = parse(
            f"%a: f32[3x{rows}x{steps}]{a} = input('a')\n"
            f"%b: f32[3x{steps}x{columns}]{b} = input('b')\n"
            f"%y: f32[3x{rows}x{columns}]{out} = matmul(%a, %b)\n"
            f"%z: f32[3x{rows}x{columns}]{out} = tanh(%y)\n"
            "return loss=None, outputs=(%z,), gradients={}, updates=()"
        )
        check_kernels(fuse(graph), random_values(graph), tmp_path)


@pytest.mark.parametrize(("shape", "axis", "order"), [
    ((2, 35, 5, 5), 1, "@0.2.3.1"), ((4, 1029), 1, ""), ((4, 9), 1, ""), ((40, 9), 0, "@1.0"),
    ((43, 9), 0, ""),
])  # fmt: skip
def test_bits(shape: tuple[int, ...], axis: int, order: str, tmp_path: Path) -> None:
    """Masks packed along any axis come back as they were."""
    packed = [-(-e // 8) if a == axis else e for a, e in enumerate(shape)]
    dims, small = "x".join(map(str, shape)), "x".join(map(str, packed))
    graph = parse(
        f"%x: f32[{dims}]{order} = input('x')\n%m: bool[{dims}]{order} = le(%x, 0.0)\n"
        f"%p: u8[{small}]{order} = pack_bits(%m, {axis})\n"
        f"%u: bool[{dims}]{order} = unpack_bits(%p, {axis}, {shape[axis]})\n"
        f"%w: f32[{dims}]{order} = where(%u, 0.0, %x)\n"
        "return loss=None, outputs=(%w,), gradients={}, updates=()"
    )
    assert prod(shape) > 0
    check_kernels(fuse(graph), random_values(graph), tmp_path)


def test_rows_and_indices(tmp_path: Path) -> None:
    """Softmax and layer normalization, gathered and scattered rows (duplicates too), cat, pad."""
    graph = parse("""
%t: f32[5x24] = param('t')
%i: i64[3x4] = input('i')
%e: f32[3x4x24] = take_rows(%t, %i)
%c0: f32[3x1x24] = slice(%e, 1, 2, 3, 1)
%m: f32[3x4x1] = amax(%e, (2,), True)
%s: f32[3x4x24] = sub(%e, %m)
%x: f32[3x4x24] = exp(%s)
%n: f32[3x4x1] = sum(%x, (2,), True)
%p: f32[3x4x24] = div(%x, %n)
%q: f32[3x4x24] = mul(%p, %p)
%v: f32[3x4x1] = sum(%q, (2,), True)
%r: f32[3x4x1] = rsqrt(%v)
%o: f32[3x4x24] = mul(%p, %r)
%j: i32[18] = invert_index(%i, 5)
%b: f32[5x24] = sum_rows(%o, %j)
%c: f32[3x9x24] = cat((%o, %p, %c0), 1)
%d: f32[3x10x27] = pad(%c, (0, 1, 2), (0, 0, 1), 3.0)
return loss=None, outputs=(%b, %d), gradients={}, updates=()
""")
    check_kernels(fuse(graph), random_values(graph), tmp_path)


def test_rows_shorter_than_a_vector(tmp_path: Path) -> None:
    """A product whose tail splits its columns into odd heads falls back to narrower vectors."""
    graph = parse("""
%x: f32[6x20] = input('x')
%w: f32[20x20] = param('w')
%b: f32[6x4x5] = input('b')
%y: f32[6x20] = matmul(%x, %w)
%h: f32[6x4x5] = reshape(%y, (6, 4, 5))
%z: f32[6x4x5] = add(%h, %b)
return loss=None, outputs=(%z,), gradients={}, updates=()
""")
    for node in calls(graph, "matmul", "add"):
        set_group(node, 0)
    assert check_kernels(graph, random_values(graph), tmp_path) == 1


def test_rows_of_a_table_of_one_column(tmp_path: Path) -> None:
    """Neighbouring elements then come from different rows."""
    graph = parse("""
%t: f32[7x1] = const('t')
%i: i64[20] = input('i')
%y: f32[20x1] = take_rows(%t, %i)
%z: f32[20x1] = mul(%y, 2.0)
return loss=None, outputs=(%z,), gradients={}, updates=()
""")
    values = {"t": torch.randn(7, 1), "i": torch.arange(20) % 7}
    assert check_kernels(fuse(graph), values, tmp_path) == 1


@pytest.mark.parametrize("steps", [2048, 2400, 4096])
def test_weight_gradient_of_many_samples(tmp_path: Path, steps: int) -> None:
    """Rows that lie far apart are copied, but not where the reduction is cut into chunks."""
    graph = parse(f"""
%g: f32[{steps}x384] = input('g')
%x: f32[{steps}x96] = input('x')
%t: f32[384x{steps}] = permute(%g, (1, 0))
%y: f32[384x96] = matmul(%t, %x)
return loss=None, outputs=(%y,), gradients={{}}, updates=()
""")
    assert check_kernels(fuse(graph), random_values(graph), tmp_path) == 1


@pytest.mark.parametrize("steps", [(2, 7), (16, 300), (300, 16)])
@pytest.mark.parametrize("order", ["", "@1.0"])
def test_sum_of_products(steps: tuple[int, int], order: str, tmp_path: Path) -> None:
    """Two products of different depth are summed in one kernel, the tail behind both."""
    rows, columns = 93, 70
    lines = []
    for name, depth in zip("ab", steps, strict=True):
        wide = [f"%{name}0: f32[{depth}x{rows}] = input('{name}0')"]
        wide.append(f"%{name}1: f32[{depth}x{columns}] = input('{name}1')")
        lines += wide
    for name, depth in zip("ab", steps, strict=True):
        lines.append(f"%{name}t: f32[{rows}x{depth}] = permute(%{name}0, (1, 0))")
        lines.append(f"%{name}: f32[{rows}x{columns}]{order} = matmul(%{name}t, %{name}1)")
    lines.append(f"%s: f32[{rows}x{columns}]{order} = add(%a, %b)")
    lines.append(f"%y: f32[{rows}x{columns}]{order} = mul(%s, 0.5)")
    lines.append("return loss=None, outputs=(%y,), gradients={}, updates=()")
    graph = fuse(verify(parse("\n".join(lines))))
    joined = steps[0] * (rows + columns) < rows * columns
    assert check_kernels(graph, random_values(graph), tmp_path) == (1 if joined else 2)


def test_an_update_waits_for_later_passes(tmp_path: Path) -> None:
    """A row whose second pass reads a parameter again overwrites it in that pass."""
    graph = parse("""
%w: f32[3x37] = param('w')
%c: f32[3x1] = param('c')
%m: f32[3x1] = amax(%w, (1,), True)
%d: f32[3x37] = sub(%w, %m)
%e: f32[3x37] = mul(%d, %c)
%s: f32[3x1] = sum(%e, (1,), True)
%y: f32[3x37] = add(%e, %s)
%n: f32[3x37] = mul(%d, 0.5)
%k: f32[3x1] = mul(%m, 0.5)
%u: f32[3x37] = update(%w, %n)
%v: f32[3x1] = update(%c, %k)
return loss=None, outputs=(%y,), gradients={}, updates=(%u, %v)
""")
    for node in calls(graph):
        set_group(node, 0)
    assert check_kernels(graph, random_values(graph), tmp_path) == 1


@pytest.mark.parametrize("kind", ["bool", "u8", "i8", "i32"])
def test_binary_ops_of_whole_numbers(kind: str, tmp_path: Path) -> None:
    """Booleans, bytes and integers, zero and the smallest and largest among them."""
    limits = {"bool": (0, 1), "u8": (0, 1, 7, 255), "i8": (-128, -1, 0, 127)}.get(kind, (-5, 0, 9))
    dtype = {"bool": torch.bool, "u8": torch.uint8, "i8": torch.int8, "i32": torch.int32}[kind]
    pairs = torch.cartesian_prod(torch.tensor(limits), torch.tensor(limits)).to(dtype)
    size = len(pairs)
    lines = [f"%x: {kind}[{size}] = input('x')", f"%y: {kind}[{size}] = input('y')"]
    names = [*COMPARE, "maximum", "minimum", "bitand", "bitor", "bitxor"]
    results = {name: "bool" if name in COMPARE else kind for name in names}
    lines += [f"%{name}_: {made}[{size}] = {name}(%x, %y)" for name, made in results.items()]
    outputs = ", ".join(f"%{name}_" for name in names)
    graph = parse(
        "\n".join(lines) + f"\nreturn loss=None, outputs=({outputs}), gradients={{}}, updates=()"
    )
    check_kernels(fuse(graph), {"x": pairs[:, 0], "y": pairs[:, 1]}, tmp_path)


def test_nothing(tmp_path: Path) -> None:
    """Values without elements, along any axis, are written nowhere."""
    graph = parse("""
%x: f32[2x0x3] = input('x')
%w: f32[3x4] = input('w')
%a: f32[2x0x3] = exp(%x)
%b: f32[0x3] = reshape(%a, (0, 3))
%c: f32[0x4] = matmul(%b, %w)
%d: f32[2x0] = sum(%x, (2,), False)
return loss=None, outputs=(%a, %c, %d), gradients={}, updates=()
""")
    check_kernels(fuse(graph), random_values(graph), tmp_path)
