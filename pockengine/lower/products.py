"""Matmul and dense convolutions as plain sums of products: extents and strides, without TVM.

Every contraction of the vocabulary and each phase of a strided input gradient is a ``Product``:

    out[b, m, n] = sum over k of left(b, m, k) * right(b, k, n)

with the places of b, m, k and n in each operand's own axes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import gcd, prod
from typing import Any, TypeAlias

from torch.fx import Graph, Node

from pockengine.ir.access import Access, access
from pockengine.ir.graph import calls, kind_of, op_name, type_of
from pockengine.ir.ops import Kind
from pockengine.ir.verify import base_of
from pockengine.lower.kernel import find

Place: TypeAlias = tuple[Any, ...]  # an index expression for each axis of an operand
Split: TypeAlias = Callable[[Any, Sequence[int]], Place]  # flat index -> index a axis


@dataclass(frozen=True, slots=True, kw_only=True)
class Product:
    """One contraction loop nest.

    Args:
        left, right: operands of the anchor op, ``left`` the one read one element a row.
        batch, rows, columns: extents; rows and batch may stand for several axes.
        reduction: extents of the reduction loops, outer to inner.
        left_row: (split, b, m) -> element offset in left's base of row m.
        left_step: k -> element offset of a reduction step.
        right_place: (split, b, k, n) -> place in ``right``.
        out_place: (split, b, m, n) -> place in the anchor's result.
        right_axis: the axis of ``right`` that columns run along.
        step_axis: the axis of ``right`` that the innermost reduction loop runs along.
        out_axis: the axis of the result that columns run along.
        row_period: rows with one stride in ``left``; 0: all.
        adds_columns: the kernel adds up each column, so that one unit of work has all of its rows.
    """

    left: Node
    right: Node
    batch: int
    rows: int
    columns: int
    reduction: tuple[int, ...]
    left_row: Callable[[Split, Any, Any], Any]
    left_step: Callable[[Sequence[Any]], Any]
    right_place: Callable[[Split, Any, Sequence[Any], Any], Place]
    out_place: Callable[[Split, Any, Any, Any], Place]
    right_axis: int
    step_axis: int
    out_axis: int
    row_period: int = 0
    adds_columns: bool = False

    @property
    def empty(self) -> bool:
        """Whether there is nothing to add up (a phase that no tap reaches): the result is zero."""
        return prod(self.reduction) == 0


def summed_of(graph: Graph) -> Node:
    """What a kernel's products add up to: its contraction, or the sum of its two matmuls."""
    anchors = _anchors(graph)
    if len(anchors) == 1:
        return anchors[0]
    return find(graph, lambda node: set(node.all_input_nodes) == set(anchors))


def _anchors(graph: Graph) -> list[Node]:
    return [node for node in calls(graph) if kind_of(node) is Kind.CONTRACT]


def products(graph: Graph) -> list[tuple[Product, ...]]:
    """The loop nests of a kernel, each with the products that it adds up."""
    anchors = _anchors(graph)
    if len(anchors) > 1:
        return [tuple(map(_matmul, anchors))]
    adds = any(kind_of(node) is Kind.REDUCE for node in calls(graph))
    return [(replace(product, adds_columns=adds),) for product in _phases(anchors[0])]


def _phases(anchor: Node) -> list[Product]:
    if op_name(anchor) == "matmul":
        return [_matmul(anchor)]
    if op_name(anchor) == "conv2d":
        return [_conv2d(anchor)]
    if op_name(anchor) == "conv2d_weight_grad":
        return [_weight_grad(anchor)]
    return _input_grad(anchor)


def present(summed: Sequence[Product]) -> Sequence[Product]:
    """The products of a sum that add something; where none does, the first."""
    return [term for term in summed if not term.empty] or summed[:1]


def _operands(anchor: Node) -> tuple[Node, Node, Access, Access]:
    a, b = anchor.args[:2]
    assert isinstance(a, Node)
    assert isinstance(b, Node)
    left, right = access(a), access(b)
    assert left is not None
    assert right is not None
    return a, b, left, right


def _matmul(anchor: Node) -> Product:
    a, b, left, right = _operands(anchor)
    *batch, rows, steps = type_of(a).shape
    columns = type_of(b).shape[-1]
    strides = type_of(anchor).strides
    exchange = columns > 1 and strides[-1] != 1 and strides[-2] == 1
    computed = base_of(b).op != "placeholder"
    if exchange and not computed:
        # rows lie next to each other in the result: compute its transpose
        a, b, left, right, rows, columns = b, a, right, left, columns, rows
    else:
        exchange = False
    row_axis, step_axis = (-1, -2) if exchange else (-2, -1)
    lead = left.strides[:-2]

    def left_row(split: Split, index: Any, row: Any) -> Any:
        places = split(index, batch)
        total = left.offset + row * left.strides[row_axis]
        for place, stride in zip(places, lead, strict=True):
            total = total + place * stride
        return total

    rank = len(batch)
    return Product(
        left=a,
        right=b,
        batch=prod(batch),
        rows=rows,
        columns=columns,
        reduction=(steps,),
        left_row=left_row,
        left_step=lambda k: k[0] * left.strides[step_axis],
        right_place=lambda split, i, k, n: (
            *split(i, batch),
            *((n, k[0]) if exchange else (k[0], n)),
        ),
        out_place=lambda split, i, m, n: (*split(i, batch), *((n, m) if exchange else (m, n))),
        right_axis=rank if exchange else rank + 1,
        step_axis=rank + 1 if exchange else rank,
        out_axis=rank if exchange else rank + 1,
    )


def _flat(strides: Sequence[int], extents: Sequence[int]) -> bool:
    """Whether axes (outer to inner) follow each other at one stride."""
    pairs = zip(strides, strides[1:], extents[1:], strict=False)
    return all(outer == inner * extent for outer, inner, extent in pairs)


def _conv2d(anchor: Node) -> Product:
    x, w, left, _ = _operands(anchor)
    stride, _, dilation, groups = _geometry_of(anchor)
    batch, outs, height, width = type_of(anchor).shape
    channels, rows, columns = type_of(w).shape[1:]
    sn, sc, sh, sw = left.strides
    per_group = outs // groups
    steps = (stride[0] * sh, stride[1] * sw)
    flat = _flat((sn, *steps), (batch, height, width))

    def left_row(split: Split, group: Any, m: Any) -> Any:
        start = left.offset + group * (channels * sc)
        if flat:
            return start + m * steps[1]
        n, p, q = split(m, (batch, height, width))
        return start + n * sn + p * steps[0] + q * steps[1]

    def out_place(split: Split, group: Any, m: Any, n: Any) -> Place:
        image, p, q = split(m, (batch, height, width))
        return image, group * per_group + n, p, q

    return Product(
        left=x,
        right=w,
        batch=groups,
        rows=batch * height * width,
        columns=per_group,
        reduction=(rows, columns, channels),
        left_row=left_row,
        left_step=lambda k: k[0] * (dilation[0] * sh) + k[1] * (dilation[1] * sw) + k[2] * sc,
        right_place=lambda _, group, k, n: (group * per_group + n, k[2], k[0], k[1]),
        out_place=out_place,
        right_axis=0,
        step_axis=1,
        out_axis=1,
        row_period=0 if flat else width,
    )


def _weight_grad(anchor: Node) -> Product:
    x, grad, left, _ = _operands(anchor)
    stride, _, dilation, groups = _geometry_of(anchor)
    outs, channels, rows, columns = type_of(anchor).shape
    batch, _, height, width = type_of(grad).shape
    sn, sc, sh, sw = left.strides
    steps = (sn, stride[0] * sh, stride[1] * sw)
    per_group = outs // groups
    flat = _flat(steps, (batch, height, width))
    extents = (batch, height, width)

    def left_row(split: Split, group: Any, m: Any) -> Any:
        r, s, c = split(m, (rows, columns, channels))
        start = left.offset + group * (channels * sc)
        return start + r * (dilation[0] * sh) + s * (dilation[1] * sw) + c * sc

    def left_step(k: Sequence[Any]) -> Any:
        return k[0] * steps[2] if flat else sum(i * s for i, s in zip(k, steps, strict=True))

    def right_place(split: Split, group: Any, k: Sequence[Any], n: Any) -> Place:
        image, p, q = split(k[0], extents) if flat else k
        return image, group * per_group + n, p, q

    def out_place(split: Split, group: Any, m: Any, n: Any) -> Place:
        r, s, c = split(m, (rows, columns, channels))
        return group * per_group + n, c, r, s

    return Product(
        left=x,
        right=grad,
        batch=groups,
        rows=rows * columns * channels,
        columns=per_group,
        reduction=(prod(extents),) if flat else extents,
        left_row=left_row,
        left_step=left_step,
        right_place=right_place,
        out_place=out_place,
        right_axis=1,
        step_axis=3,
        out_axis=0,
        row_period=channels if rows * columns > 1 else 0,
    )


def _geometry_of(anchor: Node) -> tuple[Any, Any, Any, Any]:
    stride, padding, dilation, groups = anchor.args[-4:]
    return stride, padding, dilation, groups


@dataclass(frozen=True, slots=True)
class _Taps:
    """Positions ``phase + stride * i`` of one axis and the taps that reach them.

    Tap j has kernel index ``first - j * step`` and reads the gradient at ``i + shift + j * back``:
    the gradient is read forwards.
    """

    phase: int
    positions: int
    first: int
    step: int
    count: int
    shift: int
    back: int


def _taps(size: int, kernel: int, stride: int, low: int, dilation: int) -> list[_Taps]:
    found = []
    for phase in range(min(stride, size)):
        hits = [r for r in range(kernel) if (phase + low - r * dilation) % stride == 0]
        step = stride // gcd(stride, dilation)
        first = hits[-1] if hits else 0
        found.append(
            _Taps(
                phase=phase,
                positions=-(-(size - phase) // stride),
                first=first,
                step=step,
                count=len(hits),
                shift=(phase + low - first * dilation) // stride,
                back=step * dilation // stride,
            )
        )
    return found


def _input_grad(anchor: Node) -> list[Product]:
    weight: Any = anchor.args[1]
    stride, padding, dilation, _ = _geometry_of(anchor)
    size, kernel = type_of(anchor).shape[2:], type_of(weight).shape[2:]
    by_axis = [
        _taps(size[axis], kernel[axis], stride[axis], padding[2 * axis], dilation[axis])
        for axis in range(2)
    ]
    return [_phase(anchor, down, right) for down in by_axis[0] for right in by_axis[1]]


def _phase(anchor: Node, down: _Taps, across: _Taps) -> Product:
    grad, w, left, _ = _operands(anchor)
    stride, _, _, groups = _geometry_of(anchor)
    batch, total, *_ = type_of(anchor).shape
    channels = total // groups
    outs = type_of(w).shape[0] // groups
    sn, sc, sh, sw = left.strides
    extents = (batch, down.positions, across.positions)
    flat = _flat((sn, sh, sw), extents)
    start = left.offset + down.shift * sh + across.shift * sw

    def left_row(split: Split, group: Any, m: Any) -> Any:
        first = start + group * (outs * sc)
        if flat:
            return first + m * sw
        n, i, j = split(m, extents)
        return first + n * sn + i * sh + j * sw

    def out_place(split: Split, group: Any, m: Any, n: Any) -> Place:
        image, i, j = split(m, extents)
        return (
            image,
            group * channels + n,
            i * stride[0] + down.phase,
            j * stride[1] + across.phase,
        )

    return Product(
        left=grad,
        right=w,
        batch=groups,
        rows=prod(extents),
        columns=channels,
        reduction=(down.count, across.count, outs),
        left_row=left_row,
        left_step=lambda k: k[2] * sc + k[0] * (down.back * sh) + k[1] * (across.back * sw),
        right_place=lambda _, group, k, n: (
            group * outs + k[2],
            n,
            down.first - k[0] * down.step,
            across.first - k[1] * across.step,
        ),
        out_place=out_place,
        right_axis=1,
        step_axis=0,
        out_axis=1,
        row_period=0 if flat else across.positions,
    )
