"""The closed vocabulary: every op of the IR, with its reference implementation in PyTorch.

An op is a plain function on tensors. Its type rule is the function itself, run on meta tensors. All
ops are pure; shapes are canonical (PyTorch's): activations (N, C, H, W), convolution weights
(O, I, R, S). How a value is stored is a property of its type, not of the ops that touch it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import TypeAlias

import torch
import torch.nn.functional as F  # noqa: N812 - the name everybody knows
from torch import Tensor
from torch.nn.grad import conv2d_input, conv2d_weight

Number: TypeAlias = float | int | bool
Operand: TypeAlias = Tensor | Number
Pair: TypeAlias = tuple[int, int]
Padding: TypeAlias = tuple[int, int, int, int]


class Kind(Enum):
    """How an op moves data; the fusion rules and the lowering go by it."""

    MAP = "map"  # one output element from the elements at the same (broadcast) place
    VIEW = "view"  # no work: another way to index the same bytes
    MOVE = "move"  # one output element from one input element elsewhere
    REDUCE = "reduce"  # sums or extrema over axes
    CONTRACT = "contract"  # sums of products: matmul and dense convolutions
    STENCIL = "stencil"  # windows per channel: depthwise convolutions and pooling
    INDEX = "index"  # places read from data
    UPDATE = "update"  # writes a parameter or state


ALONE = frozenset("invert_index last_places sort_places cumsum cumprod pack_bits cat".split())
"""Ops whose kernels hold nothing else."""


@dataclass(frozen=True, slots=True)
class Op:
    """A row of the vocabulary."""

    name: str
    kind: Kind
    reference: Callable[..., Tensor]


OPS: dict[str, Op] = {}
_BY_REFERENCE: dict[object, Op] = {}


def _op(kind: Kind) -> Callable[[Callable[..., Tensor]], Callable[..., Tensor]]:
    def register(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
        name = function.__name__.rstrip("_")
        function.__name__ = name
        OPS[name] = _BY_REFERENCE[function] = Op(name, kind, function)
        return function

    return register


def op_of(target: object) -> Op:
    """The row of a node's target; KeyError if the target is not of the vocabulary."""
    return _BY_REFERENCE[target]


# --- elementwise --------------------------------------------------------------------------------


def _unary(name: str, function: Callable[[Tensor], Tensor]) -> Callable[..., Tensor]:
    def reference(x: Tensor) -> Tensor:
        return function(x)

    reference.__name__ = reference.__qualname__ = name
    reference.__doc__ = f"{name} of each element; shape and dtype of x."
    return _op(Kind.MAP)(reference)


def _binary(name: str, function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def reference(a: Operand, b: Operand) -> Tensor:
        return function(a, b)

    reference.__name__ = reference.__qualname__ = name
    reference.__doc__ = f"{name} of broadcast operands; a number may stand for either."
    return _op(Kind.MAP)(reference)


def _comparison(
    name: str, function: Callable[..., Tensor], mirrored: Callable[..., Tensor]
) -> Callable[..., Tensor]:
    """A comparison, and the one that says the same with its operands exchanged."""

    def call(a: Operand, b: Operand) -> Tensor:
        return function(a, b) if isinstance(a, Tensor) else mirrored(b, a)

    return _binary(name, call)


def _as_tensors(function: Callable[[Tensor, Tensor], Tensor]) -> Callable[..., Tensor]:
    """Let numbers stand for tensors in functions that take only tensors."""

    def call(a: Operand, b: Operand) -> Tensor:
        like = a if isinstance(a, Tensor) else b
        if not isinstance(like, Tensor):
            raise TypeError("at least one operand is a tensor")
        full = [
            x if isinstance(x, Tensor) else torch.full((), x, dtype=like.dtype, device=like.device)
            for x in (a, b)
        ]
        return function(full[0], full[1])

    return call


def _whole_quotient(a: Operand, b: Operand) -> Tensor:
    """Integers divided, rounded to zero; a divisor of zero counts as one, as in the kernels."""
    divisor = torch.where(b == 0, 1, b) if isinstance(b, Tensor) else (b or 1)
    return torch.div(a, divisor, rounding_mode="trunc")


neg = _unary("neg", torch.neg)
exp = _unary("exp", torch.exp)
expm1 = _unary("expm1", torch.expm1)
log = _unary("log", torch.log)
log1p = _unary("log1p", torch.log1p)
sqrt = _unary("sqrt", torch.sqrt)
rsqrt = _unary("rsqrt", torch.rsqrt)
tanh = _unary("tanh", torch.tanh)
sigmoid = _unary("sigmoid", torch.sigmoid)
erf = _unary("erf", torch.erf)
sin = _unary("sin", torch.sin)
cos = _unary("cos", torch.cos)
atan = _unary("atan", torch.atan)
abs_ = _unary("abs", torch.abs)
sign = _unary("sign", torch.sign)
floor = _unary("floor", torch.floor)
round_ = _unary("round", torch.round)
logical_not = _unary("logical_not", torch.logical_not)

add = _binary("add", torch.add)
sub = _binary("sub", torch.sub)
mul = _binary("mul", torch.mul)
div = _binary("div", torch.div)
pow_ = _binary("pow", torch.pow)
fmod = _binary("fmod", torch.fmod)
quotient = _binary("quotient", _whole_quotient)
bitand = _binary("bitand", torch.bitwise_and)
bitor = _binary("bitor", torch.bitwise_or)
bitxor = _binary("bitxor", torch.bitwise_xor)
maximum = _binary("maximum", _as_tensors(torch.maximum))
minimum = _binary("minimum", _as_tensors(torch.minimum))
eq = _comparison("eq", torch.eq, torch.eq)
ne = _comparison("ne", torch.ne, torch.ne)
lt = _comparison("lt", torch.lt, torch.gt)
le = _comparison("le", torch.le, torch.ge)
gt = _comparison("gt", torch.gt, torch.lt)
ge = _comparison("ge", torch.ge, torch.le)
logical_and = _binary("logical_and", _as_tensors(torch.logical_and))
logical_or = _binary("logical_or", _as_tensors(torch.logical_or))


@_op(Kind.MAP)
def where(condition: Tensor, a: Operand, b: Operand) -> Tensor:
    """Choose a where the condition holds, else b; broadcast."""
    return torch.where(condition, a, b)


@_op(Kind.MAP)
def cast(x: Tensor, dtype: str) -> Tensor:
    """Convert elements to the dtype of that name (``f32``, ``i64``, ``bool``, ...)."""
    wanted = _DTYPES[dtype]
    if wanted.is_floating_point and x.dtype == torch.float64:
        return x  # a float64 oracle stays in float64
    return x.to(wanted)


_DTYPES = {
    "f64": torch.float64,  # of oracles alone
    "f32": torch.float32,
    "bf16": torch.bfloat16,
    "f16": torch.float16,
    "i8": torch.int8,
    "i32": torch.int32,
    "i64": torch.int64,
    "u8": torch.uint8,
    "bool": torch.bool,
}


@_op(Kind.MAP)
def copy(x: Tensor) -> Tensor:
    """The same elements, stored anew."""
    return x.clone()


@_op(Kind.MAP)
def full(shape: tuple[int, ...], value: Number, dtype: str) -> Tensor:
    """A constant of a shape and dtype."""
    return torch.full((), value, dtype=_DTYPES[dtype]).expand(shape)


@_op(Kind.MAP)
def iota(shape: tuple[int, ...], axis: int) -> Tensor:
    """i64 index along an axis, of the whole shape."""
    column = [1] * len(shape)
    column[axis] = shape[axis]
    return torch.arange(shape[axis]).reshape(column).expand(shape)


# --- views and moves ----------------------------------------------------------------------------


@_op(Kind.VIEW)
def reshape(x: Tensor, shape: tuple[int, ...]) -> Tensor:
    """The same elements in row-major order under another shape."""
    return x.reshape(shape)


@_op(Kind.VIEW)
def permute(x: Tensor, order: tuple[int, ...]) -> Tensor:
    """Axis i of the result is axis order[i] of x."""
    return x.permute(order)


@_op(Kind.VIEW)
def expand(x: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Broadcast x to a shape."""
    return x.expand(shape)


@_op(Kind.VIEW)
def slice_(x: Tensor, axis: int, start: int, stop: int, step: int = 1) -> Tensor:
    """x[start:stop:step] along an axis, 0 <= start <= stop <= extent."""
    index = [slice(None)] * x.dim()
    index[axis] = slice(start, stop, step)
    return x[tuple(index)]


@_op(Kind.MOVE)
def pad(x: Tensor, low: tuple[int, ...], high: tuple[int, ...], value: Number) -> Tensor:
    """Surround x with a value; low and high count elements ahead of and behind each axis."""
    widths = [w for pair in zip(reversed(low), reversed(high), strict=True) for w in pair]
    return F.pad(x, widths, value=value)


@_op(Kind.MOVE)
def cat(xs: Sequence[Tensor], axis: int) -> Tensor:
    """Join tensors along an axis."""
    return torch.cat(list(xs), dim=axis)


# --- reductions ---------------------------------------------------------------------------------


@_op(Kind.REDUCE)
def sum_(x: Tensor, axes: tuple[int, ...], keepdims: bool = False) -> Tensor:
    """Sum over axes."""
    return torch.sum(x, dim=axes, keepdim=keepdims) if axes else x


@_op(Kind.REDUCE)
def amax(x: Tensor, axes: tuple[int, ...], keepdims: bool = False) -> Tensor:
    """Largest element over axes; NaN if any is."""
    return torch.amax(x, dim=axes, keepdim=keepdims)


@_op(Kind.REDUCE)
def amin(x: Tensor, axes: tuple[int, ...], keepdims: bool = False) -> Tensor:
    """Smallest element over axes; NaN if any is."""
    return torch.amin(x, dim=axes, keepdim=keepdims)


@_op(Kind.REDUCE)
def prod(x: Tensor, axes: tuple[int, ...], keepdims: bool = False) -> Tensor:
    """Product over axes."""
    for axis in axes:
        x = torch.prod(x, axis, keepdim=True)
    return x if keepdims else x.squeeze(axes)


# --- contractions -------------------------------------------------------------------------------


@_op(Kind.CONTRACT)
def matmul(a: Tensor, b: Tensor) -> Tensor:
    """(..., M, K) x (..., K, N) -> (..., M, N); both have the same leading extents."""
    return torch.matmul(*_alike(a, b))


def _alike(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Both in the wider dtype: constants of a float64 oracle are float32."""
    wide = torch.promote_types(a.dtype, b.dtype)
    return a.to(wide), b.to(wide)


def _convolve(
    x: Tensor, weight: Tensor, stride: Pair, padding: Padding, dilation: Pair, groups: int
) -> Tensor:
    x, weight = _alike(x, weight)
    top, bottom, left, right = padding
    if top == bottom and left == right:
        return F.conv2d(x, weight, None, stride, (top, left), dilation, groups)
    return F.conv2d(F.pad(x, (left, right, top, bottom)), weight, None, stride, 0, dilation, groups)


@_op(Kind.CONTRACT)
def conv2d(
    x: Tensor, weight: Tensor, stride: Pair, padding: Padding, dilation: Pair, groups: int
) -> Tensor:
    """Cross-correlation: (N, C, H, W) with (O, C / groups, R, S) -> (N, O, P, Q).

    padding counts zeros at (top, bottom, left, right).
    """
    return _convolve(x, weight, stride, padding, dilation, groups)


@_op(Kind.CONTRACT)
def conv2d_input_grad(
    grad: Tensor,
    weight: Tensor,
    input_size: Pair,
    stride: Pair,
    padding: Padding,
    dilation: Pair,
    groups: int,
) -> Tensor:
    """Gradient of conv2d by x: (N, O, P, Q) with (O, C / groups, R, S) -> (N, C, *input_size)."""
    grad, weight = _alike(grad, weight)
    top, bottom, left, right = padding
    height, width = input_size
    shape = (
        grad.shape[0],
        weight.shape[1] * groups,
        height + top + bottom,
        width + left + right,
    )
    padded: Tensor = conv2d_input(  # type: ignore[no-untyped-call]
        shape, weight, grad, stride, 0, dilation, groups
    )
    return padded[:, :, top : top + height, left : left + width]


@_op(Kind.CONTRACT)
def conv2d_weight_grad(
    x: Tensor,
    grad: Tensor,
    kernel_size: Pair,
    stride: Pair,
    padding: Padding,
    dilation: Pair,
    groups: int,
) -> Tensor:
    """Gradient of conv2d by weight: (N, C, H, W), (N, O, P, Q) -> (O, C / groups, *kernel_size)."""
    x, grad = _alike(x, grad)
    top, bottom, left, right = padding
    padded = F.pad(x, (left, right, top, bottom))
    shape = (grad.shape[1], x.shape[1] // groups, *kernel_size)
    found: Tensor = conv2d_weight(  # type: ignore[no-untyped-call]
        padded, shape, grad, stride, 0, dilation, groups
    )
    return found


# --- normalization, kept whole until fold_batch_norm has seen it --------------------------------


def _per_channel(values: Tensor, rank: int) -> Tensor:
    return values.reshape(1, -1, *([1] * (rank - 2)))


@_op(Kind.MAP)
def batch_norm(
    x: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, var: Tensor, eps: float
) -> Tensor:
    """Eval-mode batch normalization of (N, C, ...) by running statistics."""
    scale = weight * torch.rsqrt(var + eps)
    return (x - _per_channel(mean, x.dim())) * _per_channel(scale, x.dim()) + _per_channel(
        bias, x.dim()
    )


@_op(Kind.MAP)
def batch_norm_input_grad(grad: Tensor, weight: Tensor, var: Tensor, eps: float) -> Tensor:
    """Gradient of eval-mode batch_norm by x."""
    return grad * _per_channel(weight * torch.rsqrt(var + eps), grad.dim())


@_op(Kind.REDUCE)
def batch_norm_weight_grad(
    grad: Tensor, x: Tensor, mean: Tensor, var: Tensor, eps: float
) -> Tensor:
    """Gradient of eval-mode batch_norm by its weight: (C,)."""
    axes = [axis for axis in range(x.dim()) if axis != 1]
    centred = (x - _per_channel(mean, x.dim())) * _per_channel(torch.rsqrt(var + eps), x.dim())
    return torch.sum(grad * centred, dim=axes)


# --- indexing -----------------------------------------------------------------------------------


@_op(Kind.INDEX)
def take_rows(table: Tensor, index: Tensor) -> Tensor:
    """Rows of a (V, D) table at integer places: index.shape + (D,)."""
    return F.embedding(index, table)


@_op(Kind.INDEX)
def invert_index(index: Tensor, count: int) -> Tensor:
    """Where each of the values 0 .. count occurs in an index of N values: (count + 1 + N,), int32.

    The first ``count`` + 1 numbers say where a value's places begin among the N that follow, which
    are the index's flat positions, grouped by value and in order (a matrix in CSR form).
    """
    flat = index.reshape(-1)
    starts = torch.zeros(count + 1, dtype=torch.int64, device=index.device)
    starts = starts.index_add(0, flat.to(torch.int64) + 1, torch.ones_like(flat, dtype=torch.int64))
    places = torch.argsort(flat, stable=True)
    return torch.cat((starts.cumsum(0), places)).to(torch.int32)


@_op(Kind.INDEX)
def sum_rows(rows: Tensor, inverse: Tensor) -> Tensor:
    """Sum rows (index.shape + (D,)) into a table (count, D) by the index's inverse.

    Rows of one place add in the index's order, from zero; a place that is not in the index is zero.
    """
    flat = rows.reshape(rows.shape[:-1].numel(), rows.shape[-1])
    count = inverse.shape[0] - 1 - flat.shape[0]
    index = _index_of(inverse, flat.shape[0])
    table = torch.zeros((count, rows.shape[-1]), dtype=rows.dtype, device=rows.device)
    return table.index_add(0, index, flat[inverse[count + 1 :].to(torch.int64)])


@_op(Kind.INDEX)
def max_rows(rows: Tensor, inverse: Tensor) -> Tensor:
    """The largest of rows (index.shape + (D,)) for each place of a table (count, D), NaN if any is.

    By the index's inverse; a place that is not in the index has the least value there is.
    """
    flat = rows.reshape(rows.shape[:-1].numel(), rows.shape[-1])
    index = _index_of(inverse, flat.shape[0])
    count = inverse.shape[0] - 1 - flat.shape[0]
    least = -math.inf if rows.dtype.is_floating_point else torch.iinfo(rows.dtype).min
    table = torch.full((count, rows.shape[-1]), least, dtype=rows.dtype, device=rows.device)
    sorted_rows = flat[inverse[count + 1 :].to(torch.int64)]
    return table.scatter_reduce(0, index[:, None].expand(flat.shape), sorted_rows, "amax")


def _index_of(inverse: Tensor, places: int) -> Tensor:
    """The sorted index of so many places that an inverse is of."""
    count = inverse.shape[0] - 1 - places
    numbers = torch.arange(places, dtype=torch.int32, device=inverse.device)
    return torch.searchsorted(inverse[1 : count + 1].contiguous(), numbers, right=True)


@_op(Kind.INDEX)
def last_places(index: Tensor, count: int) -> Tensor:
    """For each of ``count`` numbers, the last place in ``index`` (flat) that holds it, else -1."""
    places = torch.arange(index.numel(), device=index.device)
    found = torch.full((count,), -1, dtype=torch.int64, device=index.device)
    return found.scatter_reduce(0, index.reshape(-1).to(torch.int64), places, "amax")


@_op(Kind.INDEX)
def sort_places(x: Tensor, axis: int, descending: bool) -> Tensor:
    """The places of the elements along an axis in their order, equal ones as they stand: i64."""
    return torch.sort(x, dim=axis, descending=descending, stable=True).indices


@_op(Kind.INDEX)
def cumsum(x: Tensor, axis: int) -> Tensor:
    """Sums of the elements up to each along an axis."""
    return torch.cumsum(x, axis, dtype=x.dtype)


@_op(Kind.INDEX)
def cumprod(x: Tensor, axis: int) -> Tensor:
    """Products of the elements up to each along an axis."""
    return torch.cumprod(x, axis, dtype=x.dtype)


# --- bits and updates ---------------------------------------------------------------------------


@_op(Kind.MOVE)
def pack_bits(mask: Tensor, axis: int) -> Tensor:
    """Eight booleans a byte along an axis, lowest bit first; the last byte pads with zeros."""
    extent = mask.shape[axis]
    moved = mask.movedim(axis, -1)
    moved = F.pad(moved.to(torch.uint8), (0, -extent % 8))
    weights = torch.tensor([1, 2, 4, 8, 16, 32, 64, 128], dtype=torch.int32, device="cpu")
    octets = moved.reshape(*moved.shape[:-1], moved.shape[-1] // 8, 8).to(torch.int32)
    packed = (octets * weights.to(mask.device)).sum(-1).to(torch.uint8)
    return packed.movedim(-1, axis)


@_op(Kind.MOVE)
def unpack_bits(packed: Tensor, axis: int, extent: int) -> Tensor:
    """Inverse of pack_bits: ``extent`` booleans along the axis."""
    moved = packed.movedim(axis, -1).to(torch.int32)
    shifts = torch.arange(8, dtype=torch.int32, device=packed.device)
    bits = (moved.unsqueeze(-1) >> shifts) & 1
    flat = bits.flatten(-2)[..., :extent]
    return flat.to(torch.bool).movedim(-1, axis)


@_op(Kind.UPDATE)
def update(target: Tensor, value: Tensor) -> Tensor:
    """New contents of a parameter or state (``target``, or a leading slice of it)."""
    del target
    return value.clone()
