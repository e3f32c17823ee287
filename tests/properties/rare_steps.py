"""Steps of random graphs by the rarer ops: curves, integers, bits, scans, order, pooling, updates.

A value that rounding may have moved never decides anything: what compares, sorts or rounds takes
values that are exact.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import TYPE_CHECKING

from torch.fx import Node

from pockengine.ir.draws import SEED, STEP
from pockengine.ir.graph import emit, placeholder, type_of
from pockengine.ir.types import DType, Role, TensorType
from pockengine.ir.windows import adaptive

if TYPE_CHECKING:
    from tests.properties.graphs import Builder


def _above(to: Builder, x: Node) -> Node:
    """Numbers of at least a half."""
    return emit(to.graph, "add", emit(to.graph, "abs", x), 0.5)


def _curve(to: Builder, x: Node) -> None:
    name = to.one_of(("exp", "expm1", "log", "log1p", "sqrt", "rsqrt", "erf", "atan", "copy"))
    if name in ("exp", "expm1"):
        x = emit(to.graph, "minimum", x, 2.0)
    elif name in ("log", "log1p", "sqrt", "rsqrt"):
        x = _above(to, x)
    to.add(name, x)


def _quotient(to: Builder, x: Node) -> None:
    other = _above(to, to.input(type_of(x).shape[-1:]))
    if to.draw_bool():
        to.add("div", x, other)
    else:
        to.add("pow", emit(to.graph, "tanh", x), to.one_of((2.0, 3.0)))


def _rest(to: Builder, x: Node) -> None:
    if x in to.exact:
        to.add("fmod", x, to.one_of((0.75, -2.0)))


def _mask(to: Builder, x: Node) -> Node:
    """Booleans of x's shape, out of new numbers."""
    fresh = to.input(type_of(x).shape)
    mask = emit(to.graph, to.one_of(("lt", "ge", "ne")), fresh, 0.25)
    other = emit(to.graph, "gt", fresh, to.input(type_of(x).shape[-1:]))
    how = to.one_of(("logical_not", "logical_and", "logical_or"))
    return emit(to.graph, how, *((mask,) if how == "logical_not" else (mask, other)))


def _logic(to: Builder, x: Node) -> None:
    mask = _mask(to, x)
    if to.draw_bool():
        to.add("where", mask, x, 0.0)
    else:
        to.add("cast", mask, "f32", exact=True)


def _bits(to: Builder, x: Node) -> None:
    shape = type_of(x).shape
    if shape:
        axis = to.place(len(shape))
        packed = emit(to.graph, "pack_bits", _mask(to, x), axis)
        to.add("where", emit(to.graph, "unpack_bits", packed, axis, shape[axis]), x, 0.5)


def _whole(to: Builder, x: Node) -> None:
    shape = type_of(x).shape
    a = to.input(shape[-1:], DType.I64)
    if shape and to.draw_bool():
        a = emit(to.graph, "add", a, emit(to.graph, "iota", shape, to.place(len(shape))))
    name = to.one_of(("quotient", "bitand", "bitor", "bitxor"))
    a = emit(to.graph, name, a, to.one_of((2, 3, emit(to.graph, "full", shape, 5, "i64"))))
    to.add("mul", x, emit(to.graph, "cast", a, "f32"))
    to.pool.append(to.add("tanh", to.pool.pop()))


def _product(to: Builder, x: Node) -> None:
    shape = type_of(x).shape
    if shape:
        to.add("prod", emit(to.graph, "tanh", x), (to.place(len(shape)),), to.draw_bool())


def _scan(to: Builder, x: Node) -> None:
    shape = type_of(x).shape
    if shape:
        name = to.one_of(("cumsum", "cumprod"))
        to.add(name, emit(to.graph, "tanh", x), to.place(len(shape)))


def _order(to: Builder, x: Node) -> None:
    shape = type_of(x).shape
    if shape and x in to.exact:
        places = emit(to.graph, "sort_places", x, to.place(len(shape)), to.draw_bool())
        to.add("cast", places, "f32", exact=True)


def _last(to: Builder, x: Node) -> None:
    del x
    index = to.input(to.shape(1, 2), DType.I64)
    to.add("cast", emit(to.graph, "last_places", index, 4), "f32", exact=True)


def _random(to: Builder, x: Node) -> None:
    if to.generator is None:
        first, second = (
            placeholder(to.graph, name, TensorType((), DType.I64), Role.STATE)
            for name in (SEED, STEP)
        )
        to.generator = first, second
    draw = emit(to.graph, "uniform", *to.generator, type_of(x).shape, to.place(5))
    to.add("mul", x, draw)


def _norm(to: Builder, x: Node) -> None:
    shape = type_of(x).shape
    if len(shape) < 2:
        return
    weight, bias, mean = (to.input(shape[1:2]) for _ in range(3))
    var = _above(to, to.input(shape[1:2]))
    how = to.one_of(("batch_norm", "batch_norm_input_grad", "batch_norm_weight_grad"))
    args = {
        "batch_norm": (x, weight, bias, mean, var, 0.1),
        "batch_norm_input_grad": (x, weight, var, 0.1),
        "batch_norm_weight_grad": (x, to.input(shape), mean, var, 0.1),
    }
    to.add(how, *args[how])


def _conv_grad(to: Builder, x: Node) -> None:
    shape = type_of(x).shape
    if len(shape) != 4 or min(shape) < 1:
        return
    batch, channels, height, width = shape
    size = (to.one_of((1, 2)), to.one_of((1, 3)))
    geometry = ((1, 1), (0, 0, 0, 0), (1, 1), 1)
    if to.draw_bool():
        weight = to.input((channels, 2, *size))
        whole = (height + size[0] - 1, width + size[1] - 1)
        y = emit(to.graph, "conv2d_input_grad", x, weight, whole, *geometry)
    elif height >= size[0] and width >= size[1]:
        grad = to.input((batch, 2, height - size[0] + 1, width - size[1] + 1))
        y = emit(to.graph, "conv2d_weight_grad", x, grad, size, *geometry)
    else:
        return
    to.add("mul", y, 0.25)


def _pool(to: Builder, x: Node) -> None:
    shape = type_of(x).shape
    if len(shape) != 4 or min(shape) < 1 or prod(shape) > 600:
        return
    rows, columns = (_window(to, extent) for extent in shape[2:])
    if to.draw_bool():
        how = (False, to.one_of((0, 5))) if to.draw_bool() else (True, 0)
        y = to.add("avg_pool2d", x, rows, columns, *how)
        to.add("avg_pool2d_input_grad", y, shape[2:], rows, columns, *how)
    else:
        y = to.add("max_pool2d", x, rows, columns, exact=True)
        fresh = to.input(shape)
        index = emit(to.graph, "max_pool2d_index", fresh, rows, columns)
        to.add("max_pool2d_input_grad", y, index, shape[2:], rows, columns)


def _window(to: Builder, extent: int) -> tuple[int, int, int, int, int]:
    """Windows along an axis, each of which reads something."""
    if to.draw_bool():
        return adaptive(to.one_of((1, 2, extent)))
    kernel, stride = min(to.one_of((1, 2, 3)), extent), to.one_of((1, 2))
    padding = to.one_of((0, kernel // 2))
    outputs = (extent + 2 * padding - kernel) // stride + 1
    return (outputs, kernel, stride, padding, 1)


def _update(to: Builder, x: Node) -> None:
    kind = type_of(x)
    state = placeholder(to.graph, f"s{to.inputs}", kind, Role.STATE)
    to.inputs += 1
    value = emit(to.graph, "add", emit(to.graph, "mul", state, 0.5), x)
    to.updates.append(emit(to.graph, "update", state, value))


RARE_STEPS: dict[str, Callable[[Builder, Node], None]] = {
    "curve": _curve,
    "quotient": _quotient,
    "rest": _rest,
    "logic": _logic,
    "bits": _bits,
    "whole": _whole,
    "product": _product,
    "scan": _scan,
    "order": _order,
    "last": _last,
    "random": _random,
    "norm": _norm,
    "conv_grad": _conv_grad,
    "pool": _pool,
    "update": _update,
}
"""By name; like ``graphs.STEPS``, into which they go."""
