"""Random small graphs of the vocabulary, every call with valid shapes; and contents for them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from math import prod
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor
from torch.fx import Graph, Node

from pockengine.ir.graph import (
    Outputs,
    drop_dead,
    emit,
    name_of,
    placeholder,
    placeholders,
    set_outputs,
    type_of,
)
from pockengine.ir.types import DType, Role, TensorType
from pockengine.ir.verify import verify
from tests.properties.rare_steps import RARE_STEPS

Draw = Callable[[st.SearchStrategy[Any]], Any]

EXTENTS = (1, 2, 3, 5, 8, 17)
MOST_ELEMENTS = 2000
SMOOTH = "neg tanh sigmoid sin cos abs".split()
STEPPED = "sign floor round".split()  # of exact values only: rounding would decide them
BINARY = "add sub mul maximum minimum".split()
COMPARE = "eq ne lt le gt ge".split()


@dataclass
class Builder:
    """A graph under construction.

    Args:
        draw: hypothesis's.
        extents: of new axes.
    """

    draw: Draw
    extents: tuple[int, ...] = EXTENTS
    graph: Graph = field(default_factory=Graph)
    pool: list[Node] = field(default_factory=list)
    exact: set[Node] = field(default_factory=set)
    updates: list[Node] = field(default_factory=list)
    generator: tuple[Node, Node] | None = None
    inputs: int = 0

    def draw_bool(self) -> bool:
        """Yes or no."""
        return bool(self.draw(st.booleans()))

    def place(self, count: int) -> int:
        """A number below ``count``."""
        return int(self.draw(st.integers(0, count - 1)))

    def one_of(self, choices: Any) -> Any:
        """One of several things."""
        return self.draw(st.sampled_from(list(choices)))

    def input(self, shape: tuple[int, ...], dtype: DType = DType.F32) -> Node:
        """A new input; integers are places in up to as many rows as ``contents`` says."""
        role = self.one_of((Role.INPUT, Role.PARAM)) if dtype.is_float else Role.INPUT
        node = placeholder(self.graph, f"p{self.inputs}", TensorType(shape, dtype), role)
        self.inputs += 1
        self.exact.add(node)
        return node

    def shape(self, least: int = 1, most: int = 4) -> tuple[int, ...]:
        """A shape of few elements."""
        found: list[int] = []
        for _ in range(self.draw(st.integers(least, most))):
            fits = [e for e in self.extents if e * prod(found) <= MOST_ELEMENTS // 4] or [1]
            found.append(self.one_of(fits))
        return tuple(found)

    def add(self, op: str, *args: Any, exact: bool = False) -> Node:
        """A call whose result later calls may read."""
        node = emit(self.graph, op, *args)
        if exact and all(operand in self.exact for operand in node.all_input_nodes):
            self.exact.add(node)
        if type_of(node).dtype.is_float:
            self.pool.append(node)
        return node


def _unary(to: Builder, x: Node) -> None:
    to.add(to.one_of(SMOOTH), x)


def _stepped(to: Builder, x: Node) -> None:
    if x in to.exact:
        to.add(to.one_of(STEPPED), x, exact=True)


def _partner(to: Builder, x: Node) -> Node:
    """A value that broadcasts with x: one that is there, or a new input with axes of one."""
    shape = type_of(x).shape
    alike = [node for node in to.pool if type_of(node).shape == shape]
    if to.draw(st.booleans()):
        return to.one_of(alike)  # type: ignore[no-any-return]
    rank = to.draw(st.integers(0, len(shape)))
    thin = tuple(to.one_of((1, extent)) for extent in shape[len(shape) - rank :])
    return to.input(thin)


def _binary(to: Builder, x: Node) -> None:
    pair = [x, _partner(to, x)]
    to.add(to.one_of(BINARY), *(reversed(pair) if to.draw(st.booleans()) else pair))


def _scalar(to: Builder, x: Node) -> None:
    to.add(to.one_of(BINARY), x, to.one_of((0.5, -1.0, 2.0)))


def _choice(to: Builder, x: Node) -> None:
    judged = [node for node in to.exact if type_of(node).shape == type_of(x).shape]
    left = to.one_of(judged) if judged else to.input(type_of(x).shape)
    right = to.one_of((0.0, to.input(type_of(x).shape[-1:])))
    mask = emit(to.graph, to.one_of(COMPARE), left, right)
    other = to.one_of((0.0, _partner(to, x)))
    to.add("where", mask, *to.one_of(((x, other), (other, x))))


def _reshape(to: Builder, x: Node) -> None:
    shape = list(type_of(x).shape)
    place = to.draw(st.integers(0, max(len(shape) - 1, 0)))
    how = to.one_of(("flat", "merge", "one"))
    if how == "flat" or len(shape) < 2:
        shape = [prod(shape)]
    elif how == "merge":
        place = min(place, len(shape) - 2)
        shape[place : place + 2] = [shape[place] * shape[place + 1]]
    elif len(shape) < 4:
        shape.insert(place, 1)
    to.add("reshape", x, tuple(shape), exact=True)


def _permute(to: Builder, x: Node) -> None:
    axes = list(range(len(type_of(x).shape)))
    to.add("permute", x, tuple(to.draw(st.permutations(axes))), exact=True)


def _expand(to: Builder, x: Node) -> None:
    shape = type_of(x).shape
    wide = tuple(3 if e == 1 and to.draw(st.booleans()) else e for e in shape)
    if prod(wide) <= MOST_ELEMENTS:
        to.add("expand", x, wide, exact=True)


def _slice(to: Builder, x: Node) -> None:
    shape = type_of(x).shape
    if not shape:
        return
    axis = to.draw(st.integers(0, len(shape) - 1))
    start = to.draw(st.integers(0, max(shape[axis] - 1, 0)))
    stop = to.draw(st.integers(min(start + 1, shape[axis]), shape[axis]))
    to.add("slice", x, axis, start, stop, to.one_of((1, 1, 2)), exact=True)


def _pad(to: Builder, x: Node) -> None:
    rank = len(type_of(x).shape)
    low, high = (tuple(to.one_of((0, 0, 1)) for _ in range(rank)) for _ in range(2))
    to.add("pad", x, low, high, to.one_of((0.0, 0.5)), exact=True)


def _cat(to: Builder, x: Node) -> None:
    shape = type_of(x).shape
    if shape and prod(shape) * 3 <= MOST_ELEMENTS:
        parts = tuple(_alike(to, x) for _ in range(to.draw(st.integers(1, 2))))
        to.add("cat", (x, *parts), to.draw(st.integers(0, len(shape) - 1)), exact=True)


def _alike(to: Builder, x: Node) -> Node:
    alike = [node for node in to.pool if type_of(node).shape == type_of(x).shape]
    return to.one_of(alike)  # type: ignore[no-any-return]


def _reduce(to: Builder, x: Node) -> None:
    rank = len(type_of(x).shape)
    axes = tuple(axis for axis in range(rank) if to.draw(st.booleans()))
    op = to.one_of(("sum", "amax", "amin"))
    if axes and (op == "sum" or type_of(x).size):
        to.add(op, x, axes, to.draw(st.booleans()), exact=op != "sum")


def _matmul(to: Builder, x: Node) -> None:
    *batch, rows, inner = (1, 1, *type_of(x).shape)[-4:]
    if batch and batch[0] == 1:
        batch = batch[1:]
    x = (
        x
        if (*batch, rows, inner) == type_of(x).shape
        else to.add("reshape", x, (*batch, rows, inner), exact=True)
    )
    other = to.input((*batch, inner, to.one_of(to.extents)))
    y = to.add("matmul", x, other)
    to.pool.remove(y)
    to.add("mul", y, 0.25)  # products of products would grow without bound


def _conv(to: Builder, x: Node) -> None:
    shape = type_of(x).shape
    if len(shape) != 4 or min(shape[1:]) < 1:
        return
    groups = to.one_of({1, shape[1]})
    size = tuple(to.one_of(range(1, min(3, extent) + 1)) for extent in shape[2:])
    weight = to.input((groups * to.one_of((1, 2)), shape[1] // groups, *size))
    stride = (to.one_of((1, 2)), to.one_of((1, 2)))
    padding = tuple(to.one_of((0, 1)) for _ in range(4))
    y = to.add("conv2d", x, weight, stride, padding, (1, 1), groups)
    to.pool.remove(y)
    to.add("mul", y, 0.25)


def _rows(to: Builder, x: Node) -> None:
    shape = type_of(x).shape
    if len(shape) == 2 and shape[0]:
        index = to.input(to.shape(1, 2), DType.I64)
        if prod(type_of(index).shape) * shape[1] <= MOST_ELEMENTS:
            to.add("take_rows", x, index, exact=True)
    elif len(shape) == 3:
        inverse = emit(to.graph, "invert_index", to.input(shape[:2], DType.I64), 3)
        to.add(to.one_of(("sum_rows", "max_rows")), x, inverse)


STEPS: dict[str, Callable[[Builder, Node], None]] = {
    "unary": _unary,
    "stepped": _stepped,
    "binary": _binary,
    "scalar": _scalar,
    "choice": _choice,
    "reshape": _reshape,
    "permute": _permute,
    "expand": _expand,
    "slice": _slice,
    "pad": _pad,
    "cat": _cat,
    "reduce": _reduce,
    "matmul": _matmul,
    "conv": _conv,
    "rows": _rows,
    **RARE_STEPS,
}
"""How a graph may grow by a call or two from a value; each does nothing where it does not fit."""


@st.composite
def graphs(draw: Draw, most: int = 12, extents: tuple[int, ...] = EXTENTS) -> Graph:
    """A verified graph of up to about ``most`` calls, with outputs and gradients."""
    to = Builder(draw, extents)
    for _ in range(draw(st.integers(1, 2))):
        to.pool.append(to.input(to.shape()))
    for _ in range(draw(st.integers(1, most))):
        STEPS[to.one_of(STEPS)](to, to.one_of(to.pool[-6:]))
    made = [node for node in to.pool if node.op == "call_function"]
    if not made:
        made = [to.add("neg", to.pool[0])]
    last = made[-1]
    others = draw(st.lists(st.sampled_from(made), max_size=3, unique=True))
    half = draw(st.integers(0, len(others)))
    return finished(to, (last, *others[:half]), others[half:])


@st.composite
def every_step(draw: Draw) -> Graph:
    """A graph of every step once from each of a few inputs, without outputs."""
    to = Builder(draw)
    for shape in ((2, 3, 5, 4), (2, 3, 4), (5, 3)):
        x = to.input(shape)
        for step in STEPS.values():
            to.pool.append(x)
            step(to, x)
    return to.graph


def finished(to: Builder, outputs: tuple[Node, ...], gradients: list[Node]) -> Graph:
    """The graph with its outputs, placeholders first."""
    named = {f"p{place}": node for place, node in enumerate(gradients)}
    set_outputs(to.graph, Outputs(outputs=outputs, gradients=named, updates=tuple(to.updates)))
    drop_dead(to.graph)
    first = next(node for node in to.graph.nodes if node.op == "call_function")
    for node in list(to.graph.find_nodes(op="placeholder")):
        first.prepend(node)
    return verify(to.graph)


def contents(graph: Graph, special: tuple[float, ...] = ()) -> dict[str, Tensor]:
    """Contents of a graph's placeholders; every fifth number is one of the special ones.

    Places in rows are small enough for every table of the graph.
    """
    generator = torch.Generator().manual_seed(0)
    rows = [type_of(n.all_input_nodes[0]).shape[0] for n in _calls(graph, "take_rows")]
    most = min([3, *rows])
    found: dict[str, Tensor] = {}
    for node in placeholders(graph):
        shape = type_of(node).shape
        if not type_of(node).dtype.is_float:
            found[name_of(node)] = torch.randint(0, most, shape, generator=generator)
            continue
        x = torch.randn(shape, generator=generator)
        if special:
            chosen = torch.randint(0, len(special), shape, generator=generator)
            seldom = torch.rand(shape, generator=generator) < 0.2
            x = torch.where(seldom, torch.tensor(special)[chosen], x)
        found[name_of(node)] = x
    return found


def _calls(graph: Graph, name: str) -> list[Node]:
    return [n for n in graph.nodes if n.op == "call_function" and n.target.__name__ == name]  # type: ignore[union-attr]
