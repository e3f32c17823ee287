"""How much work an op is: floating-point operations, and bytes to and from memory.

A multiply-add counts as two operations; an elementary function as one, as does a comparison, a
selection or a conversion: these ops are bound by memory or by their own latency, and their share of
the peak is a share of bandwidth.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

from torch.fx import Graph, Node

from pockengine.ir.graph import calls, is_op, op_name, outputs_of, placeholders, type_of
from pockengine.ir.windows import Window, taps

_PHILOX = 60  # ten rounds of two products and four exclusive ors, the number of a draw


def _each(node: Node) -> int:
    """One operation an element of the result."""
    return type_of(node).size


def _each_read(node: Node) -> int:
    """One operation an element of the first operand."""
    return type_of(_operand(node, 0)).size


def _none(node: Node) -> int:
    """Only moves bytes, or nothing at all."""
    del node
    return 0


def _matmul(node: Node) -> int:
    return 2 * type_of(node).size * type_of(_operand(node, 0)).shape[-1]


def _conv2d(node: Node) -> int:
    """Each output element sums over the channels of its group and the window."""
    return 2 * type_of(node).size * prod(type_of(_operand(node, 1)).shape[1:])


def _conv2d_input_grad(node: Node) -> int:
    """The same products as forward: each element of the output's gradient meets its window.

    Zeros around that gradient (``passes.pad_convolutions``) do not count; where the kernel is given
    them ready-made, there are at most as many lines as the stride leaves of the input's.
    """
    grad = _operand(node, 0)
    geometry: Any = node.args
    size, stride = geometry[2:4]
    if is_op(grad, "pad"):
        grad = _operand(grad, 0)
    batch, channels, *found = type_of(grad).shape
    most = [-(-extent // step) for extent, step in zip(size, stride, strict=True)]
    lines: list[int] = [min(pair) for pair in zip(found, most, strict=True)]
    window = prod(type_of(_operand(node, 1)).shape[1:])
    return 2 * batch * channels * prod(lines) * window


def _conv2d_weight_grad(node: Node) -> int:
    return 2 * type_of(_operand(node, 1)).size * prod(type_of(node).shape[1:])


def _taps(rows: Window, columns: Window, image: tuple[int, ...]) -> int:
    """Elements that the windows of an image read."""
    along = zip((rows, columns), image[2:], strict=True)
    return prod(sum(map(len, taps(window, extent))) for window, extent in along)


def _pool(node: Node) -> int:
    """An operation for each element of each window."""
    image = type_of(_operand(node, 0)).shape
    geometry: Any = node.args
    return prod(image[:2]) * _taps(geometry[1], geometry[2], image)


def _pool_input_grad(node: Node) -> int:
    image = type_of(node).shape
    geometry: Any = node.args
    first = 3 if is_op(node, "max_pool2d_input_grad") else 2
    return prod(image[:2]) * _taps(geometry[first], geometry[first + 1], image)


def _times(count: int) -> Callable[[Node], int]:
    return lambda node: count * type_of(node).size


def _sort_places(node: Node) -> int:
    """Comparisons of a sorting network: n log2(n) (log2(n) + 1) / 4 of n elements."""
    axis: Any = node.args[1]
    levels: int = max(0, type_of(node).shape[axis] - 1).bit_length()
    return type_of(node).size * levels * (levels + 1) // 4


def _batch_norm_weight_grad(node: Node) -> int:
    return 4 * _each_read(node)


def _operand(node: Node, index: int) -> Node:
    operand: Any = node.args[index]
    assert isinstance(operand, Node)
    return operand


FLOPS: dict[str, Callable[[Node], int]] = {
    **dict.fromkeys(
        "neg exp expm1 log log1p sqrt rsqrt tanh sigmoid erf sin cos atan".split(), _each
    ),
    **dict.fromkeys("abs sign floor round logical_not".split(), _each),
    **dict.fromkeys("add sub mul div pow fmod quotient maximum minimum".split(), _each),
    **dict.fromkeys("bitand bitor bitxor".split(), _each),
    **dict.fromkeys("eq ne lt le gt ge logical_and logical_or where cast".split(), _each),
    **dict.fromkeys("copy full iota".split(), _none),
    **dict.fromkeys("reshape permute expand slice pad cat".split(), _none),
    **dict.fromkeys("sum amax amin prod cumsum cumprod".split(), _each_read),
    "matmul": _matmul,
    "conv2d": _conv2d,
    "conv2d_input_grad": _conv2d_input_grad,
    "conv2d_weight_grad": _conv2d_weight_grad,
    "batch_norm": _times(4),
    "batch_norm_input_grad": _times(1),
    "batch_norm_weight_grad": _batch_norm_weight_grad,
    "take_rows": _none,
    "invert_index": _none,
    **dict.fromkeys(("sum_rows", "max_rows"), _each_read),
    **dict.fromkeys("max_pool2d max_pool2d_index avg_pool2d".split(), _pool),
    **dict.fromkeys("max_pool2d_input_grad avg_pool2d_input_grad".split(), _pool_input_grad),
    "uniform": _times(_PHILOX),
    "last_places": _none,
    "sort_places": _sort_places,
    "pack_bits": _none,
    "unpack_bits": _none,
    "update": _none,
}
"""Operations of a call, by op."""


def node_flops(node: Node) -> int:
    """Floating-point operations of a value; none of a placeholder."""
    return FLOPS[op_name(node)](node) if node.op == "call_function" else 0


def kernel_flops(graph: Graph) -> int:
    """Floating-point operations of a kernel's own graph (``lower.kernel.Kernel.text``)."""
    return sum(node_flops(node) for node in calls(graph))


def kernel_bytes(graph: Graph) -> int:
    """Bytes that a kernel has to move at least: what it reads once, and what it writes once.

    Of a value that is read through slices or by index only the part that is read counts; an update
    writes as much as its new value.
    """
    found = outputs_of(graph)
    read = sum(_read_bytes(node) for node in placeholders(graph))
    return read + sum(type_of(node).nbytes for node in (*found.outputs, *found.updates))


def _read_bytes(node: Node) -> int:
    """Bytes of a kernel's operand that its calls read."""
    parts = [_part(user, node) for user in node.users if user.op == "call_function"]
    return min(type_of(node).nbytes, sum(parts)) if parts else 0


def _part(user: Node, operand: Node) -> int:
    name = op_name(user)
    if name == "update" and user.args[0] is operand:
        return 0  # only written
    if name == "slice":
        return sum(_part(reader, user) for reader in user.users if reader.op == "call_function")
    if name == "take_rows" and user.args[0] is operand:
        return type_of(user).nbytes
    return type_of(operand).nbytes


def node_bytes(node: Node) -> int:
    """Bytes of a value and of all that it is computed from, each once."""
    return sum(type_of(each).nbytes for each in (node, *node.all_input_nodes))
