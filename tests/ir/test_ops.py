"""The vocabulary: every op's type, and the values of those that are ours."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - the name everybody knows

from pockengine.ir.graph import calls, infer, op_name, type_of
from pockengine.ir.interpret import interpret
from pockengine.ir.ops import OPS, op_of
from pockengine.ir.text import parse
from pockengine.ir.types import DType, TensorType

_HEAD = """%x: f32[2x3] = input('x')
%i: i64[2x3] = input('i')
%m: bool[2x3] = input('m')
%v: f32[3] = input('v')
%image: f32[2x4x5x6] = input('image')
%kernel: f32[8x2x3x3] = input('kernel')
%grad: f32[2x8x3x3] = input('grad')
%c: f32[4] = input('c')
%p: f32[2x3] = param('p')
"""
_GEOMETRY = "(2, 2), (1, 1, 1, 0), (1, 1), 2"
_WINDOWS = "(3, 2, 2, 0, 1), (3, 0, 0, 0, 0)"
_POOLED = f"(5, 6), {_WINDOWS}"
_FLOAT = (
    "neg exp expm1 log log1p sqrt rsqrt tanh sigmoid erf sin cos atan abs sign floor round".split()
)
_CALLS = {
    **{op: f"f32[2x3] = {op}(%x)" for op in _FLOAT},
    "logical_not": "bool[2x3] = logical_not(%m)",
    **{op: f"f32[2x3] = {op}(%x, %v)" for op in "add sub mul div pow fmod maximum minimum".split()},
    **{op: f"i64[2x3] = {op}(%i, 3)" for op in "quotient bitand bitor bitxor".split()},
    **{op: f"bool[2x3] = {op}(%i, 1)" for op in "eq ne lt le gt ge".split()},
    **{op: f"bool[2x3] = {op}(%m, True)" for op in ("logical_and", "logical_or")},
    "where": "f32[2x3] = where(%m, %v, 0.0)",
    "cast": "i8[2x3] = cast(%x, 'i8')",
    "copy": "f32[2x3] = copy(%x)",
    "full": "i32[4x1] = full((4, 1), 7, 'i32')",
    "iota": "i64[4x2] = iota((4, 2), 1)",
    "reshape": "f32[3x2] = reshape(%x, (3, 2))",
    "permute": "f32[3x2] = permute(%x, (1, 0))",
    "expand": "f32[5x2x3] = expand(%x, (5, 2, 3))",
    "slice": "f32[2x2] = slice(%x, 1, 0, 3, 2)",
    "pad": "f32[5x6] = pad(%x, (1, 0), (2, 3), 1.5)",
    "cat": "f32[4x3] = cat((%x, %p), 0)",
    "sum": "f32[2x1] = sum(%x, (1,), True)",
    "prod": "f32[3] = prod(%x, (0,))",
    "amax": "f32[3] = amax(%x, (0,))",
    "amin": "f32[] = amin(%x, (0, 1))",
    "matmul": "f32[2x2x4x4] = matmul(%square, %square)",
    "conv2d": f"f32[2x8x3x3] = conv2d(%image, %kernel, {_GEOMETRY})",
    "conv2d_input_grad": f"f32[2x4x5x6] = conv2d_input_grad(%grad, %kernel, (5, 6), {_GEOMETRY})",
    "conv2d_weight_grad": f"f32[8x2x3x3] = conv2d_weight_grad(%image, %grad, (3, 3), {_GEOMETRY})",
    "batch_norm": "f32[2x4x5x6] = batch_norm(%image, %c, %c, %c, %c, 1e-05)",
    "batch_norm_input_grad": "f32[2x4x5x6] = batch_norm_input_grad(%image, %c, %c, 1e-05)",
    "batch_norm_weight_grad": "f32[4] = batch_norm_weight_grad(%image, %image, %c, %c, 1e-05)",
    "uniform": "f32[2x3] = uniform(%scalar, %scalar, (2, 3), 1)",
    "max_pool2d": f"f32[2x4x3x3] = max_pool2d(%image, {_WINDOWS})",
    "max_pool2d_index": f"u8[2x4x3x3] = max_pool2d_index(%image, {_WINDOWS})",
    "max_pool2d_input_grad": f"f32[2x8x5x6] = max_pool2d_input_grad(%grad, %taps, {_POOLED})",
    "avg_pool2d": f"f32[2x4x3x3] = avg_pool2d(%image, {_WINDOWS}, True, 0)",
    "avg_pool2d_input_grad": f"f32[2x8x5x6] = avg_pool2d_input_grad(%grad, {_POOLED}, False, 2)",
    "take_rows": "f32[2x3x3] = take_rows(%x, %few)",
    "invert_index": "i32[16] = invert_index(%few, 9)",
    "sum_rows": "f32[9x4] = sum_rows(%rows, %inverse)",
    "max_rows": "f32[9x4] = max_rows(%rows, %inverse)",
    "last_places": "i64[9] = last_places(%few, 9)",
    "sort_places": "i64[2x3] = sort_places(%x, 1, True)",
    "cumsum": "f32[2x3] = cumsum(%x, 0)",
    "cumprod": "f32[2x3] = cumprod(%x, 1)",
    "pack_bits": "u8[1x3] = pack_bits(%m, 0)",
    "unpack_bits": "bool[2x20] = unpack_bits(%bits, 1, 20)",
    "update": "f32[2x3] = update(%p, %x)",
}
_MORE = """%square: f32[2x2x4x4] = input('square')
%few: i64[2x3] = input('few')
%rows: f32[2x3x4] = input('rows')
%bits: u8[2x3] = input('bits')
%scalar: i64[] = input('scalar')
%taps: u8[2x8x3x3] = input('taps')
%inverse: i32[16] = input('inverse')
"""


def _inputs() -> dict[str, torch.Tensor]:
    graph = parse(_HEAD + _MORE + "return loss=None, outputs=(), gradients={}, updates=()")
    found = {}
    for node in graph.find_nodes(op="placeholder"):
        wanted = type_of(node)
        random = (
            torch.rand(wanted.shape) + 0.5
            if wanted.dtype.is_float
            else torch.randint(0, 2, wanted.shape)
        )
        found[node.name] = random.to(wanted.dtype.torch)
    found["inverse"] = OPS["invert_index"].reference(found["few"], 9)
    return found


@pytest.mark.parametrize("op", _CALLS)
def test_type(op: str) -> None:
    """The type that is inferred is that of the tensor that the op computes; meta and real agree."""
    source = f"{_HEAD}{_MORE}%r: {_CALLS[op]}\n"
    graph = parse(source + "return loss=None, outputs=(%r,), gradients={}, updates=()")
    (node,) = calls(graph)
    (value,) = interpret(graph, _inputs()).outputs
    assert op_name(node) == op
    assert type_of(node) == TensorType(tuple(value.shape), DType.of(value.dtype))


def test_every_op_has_a_type_test() -> None:
    """The table above holds the vocabulary; only the reference itself is an op's target."""
    assert _CALLS.keys() == OPS.keys()
    assert op_of(OPS["neg"].reference) is OPS["neg"]
    with pytest.raises(KeyError):
        op_of(torch.neg)


def test_literals_differ_by_kind() -> None:
    """1, 1.0 and True are equal in Python, but give different types."""
    x = parse("%x: i64[2] = input('x')\nreturn loss=None, outputs=(), gradients={}, updates=()")
    (node,) = x.find_nodes(op="placeholder")
    types = [infer(OPS["mul"], (node, literal), {}).dtype for literal in (1, 1.0, True)]
    assert types == [DType.I64, DType.F32, DType.I64]


@pytest.mark.parametrize("padding", [(1, 1, 1, 1), (0, 1, 0, 1), (0, 0, 2, 2)])
@pytest.mark.parametrize(("groups", "dilation"), [(1, 1), (2, 2), (4, 1)])
def test_convolution_gradients(
    padding: tuple[int, int, int, int], groups: int, dilation: int
) -> None:
    """The gradients are autograd's for strides, uneven padding, dilation and groups."""
    x = torch.randn(2, 4, 9, 8, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(8, 4 // groups, 3, 3, dtype=torch.float64, requires_grad=True)
    geometry = ((2, 1), padding, (dilation, dilation), groups)
    y = OPS["conv2d"].reference(x, weight, *geometry)
    grad = torch.randn_like(y)
    y.backward(grad)
    dx = OPS["conv2d_input_grad"].reference(grad, weight.detach(), (9, 8), *geometry)
    dw = OPS["conv2d_weight_grad"].reference(x.detach(), grad, (3, 3), *geometry)
    torch.testing.assert_close(dx, x.grad)
    torch.testing.assert_close(dw, weight.grad)


@pytest.mark.parametrize("shape", [(5, 4), (5, 4, 3), (2, 4, 3, 2)])
def test_batch_norm(shape: tuple[int, ...]) -> None:
    """Normalization by running statistics, and its gradients, are PyTorch's in eval mode."""
    x, grad = torch.randn(2, *shape, dtype=torch.float64)
    gamma, beta, mean = torch.randn(3, 4, dtype=torch.float64)
    var = torch.rand(4, dtype=torch.float64) + 0.1
    x.requires_grad_()
    gamma.requires_grad_()
    y = F.batch_norm(x, mean, var, gamma, beta, training=False, eps=0.01)
    y.backward(grad)
    x, gamma, wanted = x.detach(), gamma.detach(), (x.grad, gamma.grad)
    found = (
        OPS["batch_norm_input_grad"].reference(grad, gamma, var, 0.01),
        OPS["batch_norm_weight_grad"].reference(grad, x, mean, var, 0.01),
    )
    torch.testing.assert_close(found, wanted)
    torch.testing.assert_close(
        OPS["batch_norm"].reference(x, gamma, beta, mean, var, 0.01), y.detach()
    )


def test_rows() -> None:
    """Rows are taken by index and scattered back with duplicates added."""
    table = torch.randn(5, 3, requires_grad=True)
    index = torch.tensor([[4, 0], [4, 2]])
    rows = OPS["take_rows"].reference(table, index)
    grad = torch.randn_like(rows)
    rows.backward(grad)
    inverse = OPS["invert_index"].reference(index, 5)
    assert inverse.tolist() == [0, 1, 1, 2, 2, 4, 1, 3, 0, 2]
    torch.testing.assert_close(OPS["sum_rows"].reference(grad, inverse), table.grad)


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("extent", [1, 8, 19])
def test_bits(axis: int, extent: int) -> None:
    """Packing is NumPy's, lowest bit first, along any axis; unpacking is its inverse."""
    shape = [3, 4, 5]
    shape[axis] = extent
    mask = torch.rand(shape) < 0.5
    packed = OPS["pack_bits"].reference(mask, axis)
    assert np.array_equal(packed.numpy(), np.packbits(mask.numpy(), axis, "little"))
    assert torch.equal(OPS["unpack_bits"].reference(packed, axis, extent), mask)


def test_casts_keep_doubles() -> None:
    """An oracle in float64 stays there through casts to floats, not through others."""
    x = torch.tensor([1.5, -2.5], dtype=torch.float64)
    assert OPS["cast"].reference(x, "f32").dtype == torch.float64
    assert OPS["cast"].reference(x, "i32").tolist() == [1, -2]
    assert OPS["cast"].reference(x.float(), "bf16").dtype == torch.bfloat16
