"""A fused group as a kernel of its own: its IR text is its identity, its operands its interface."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.fx import Graph, Node

from pockengine.errors import PlanError
from pockengine.ir.access import access, storage_order
from pockengine.ir.graph import (
    Outputs,
    calls,
    emit_typed,
    group_of,
    kind_of,
    micro_batches_of,
    name_of,
    op_name,
    outputs_of,
    placeholder,
    role_of,
    set_outputs,
    type_of,
)
from pockengine.ir.joined import parts_of
from pockengine.ir.ops import ALONE, Kind
from pockengine.ir.text import text
from pockengine.ir.types import Role
from pockengine.ir.verify import base_of


@dataclass(frozen=True, slots=True)
class Kernel:
    """One call of a kernel.

    Args:
        group: the group's number in the fused graph.
        text: the group as an IR graph of its own; equal texts are equal kernels.
        reads: stored values of the whole graph, in the order of the text's placeholders.
        shifts: how many elements into each of ``reads`` its pointer points, so that the time steps
            of a recurrent net, which read slices of one value, are one kernel.
        strides: how many elements further each of ``reads`` is read in the next round, which is of
            the next micro-batch.
        writes: stored values that the kernel makes, in the order of the text's outputs.
        updates: placeholders of the whole graph that the kernel overwrites, also in ``reads``.
    """

    group: int
    text: str
    reads: tuple[Node, ...]
    shifts: tuple[int, ...]
    strides: tuple[int, ...]
    writes: tuple[Node, ...]
    updates: tuple[Node, ...]

    @property
    def operands(self) -> tuple[Node, ...]:
        """The kernel's pointer parameters, in order: what it reads, then what it writes."""
        return (*self.reads, *self.writes)


def kernels(graph: Graph) -> list[Kernel]:
    """The kernels of a fused graph, in its order; what is joined in place needs none."""
    members: dict[int, list[Node]] = {}
    for node in calls(graph):
        group = group_of(node)
        if group is not None and not parts_of(node):
            members.setdefault(group, []).append(node)
    yielded = {base_of(node) for node in outputs_of(graph).nodes}
    return [_extract(number, nodes, yielded) for number, nodes in members.items()]


def _extract(number: int, nodes: Sequence[Node], yielded: set[Node]) -> Kernel:
    new = Graph()
    inside = set(nodes)
    place: dict[Node, Node] = {}
    reads = _bases(nodes, inside)
    targets = {base_of(node.args[0]) for node in nodes if kind_of(node) is Kind.UPDATE}
    shifts = {base: _shift(base, nodes) for base in reads if base not in targets}
    for index, base in enumerate(reads):
        role = role_of(base) if base in targets else Role.INPUT
        assert role is not None
        place[base] = placeholder(new, f"p{index}", type_of(base), role)

    def put(node: Node) -> Node:
        if node not in place:
            args: Any = torch.fx.map_arg(node.args, put)
            if op_name(node) == "slice" and shifts.get(base_of(node)) and not _is_sliced(args[0]):
                _, axis, start, stop, *step = args
                args = (args[0], axis, 0, stop - start, *step)
            kwargs: Any = torch.fx.map_arg(dict(node.kwargs), put)
            place[node] = emit_typed(new, op_name(node), args, kwargs, type_of(node))
        return place[node]

    for node in nodes:
        put(node)
    updates = tuple(node for node in nodes if kind_of(node) is Kind.UPDATE)
    writes = tuple(n for n in nodes if n not in updates and _is_stored(n, inside, yielded))
    set_outputs(
        new,
        Outputs(
            outputs=tuple(place[node] for node in writes),
            updates=tuple(place[node] for node in updates),
        ),
    )
    written = tuple(base_of(node.args[0]) for node in updates)
    places = tuple(shifts.get(base, 0) for base in reads)
    strides = tuple(_stride(base, nodes) for base in reads)
    return Kernel(number, text(new), tuple(reads), places, strides, writes, written)


def _is_sliced(view: Node) -> bool:
    """Whether a view is, or shows, a slice."""
    while kind_of(view) is Kind.VIEW:
        if op_name(view) == "slice":
            return True
        view = view.all_input_nodes[0]
    return False


def _shift(base: Node, nodes: Sequence[Node]) -> int:
    """Where all of a group's views of a value begin, in elements; 0 where they differ."""
    found: set[int] = set()
    for node in nodes:
        for operand in node.all_input_nodes:
            if base_of(operand) is base:
                found.add(_first_start(operand))
    return found.pop() if len(found) == 1 else 0


def _stride(base: Node, nodes: Sequence[Node]) -> int:
    """How far apart the parts of a value lie that a group reads round by round, in elements.

    Raises:
        PlanError: it reads such a part and all of the value besides.
    """
    count = micro_batches_of(base)
    if count == 1:
        return 0
    reads = {
        _is_part(operand, count)
        for node in nodes
        for operand in node.all_input_nodes
        if base_of(operand) is base
    }
    if len(reads) > 1:
        raise PlanError(
            where=f"kernel of {nodes[-1].name}",
            found=f"it reads a part of {name_of(base)} and all of it",
            needed="a kernel for each",
            remedy="Compile without micro_batches, and report this fault of the compiler",
        )
    return type_of(base).size // count if reads == {True} else 0


def _is_part(view: Node, count: int) -> bool:
    """Whether a view is of the first of so many parts of a value along its first axis."""
    while kind_of(view) is Kind.VIEW:
        source = view.all_input_nodes[0]
        if kind_of(source) is not Kind.VIEW and op_name(view) == "slice":
            return view.args[1:] == (0, 0, type_of(source).shape[0] // count)
        view = source
    return False


def _first_start(view: Node) -> int:
    """How far into its value a view's first slice begins, in elements; 0 if that is not known."""
    first: Node | None = None
    while kind_of(view) is Kind.VIEW:
        first = view if op_name(view) == "slice" else first
        view = view.all_input_nodes[0]
    shown = None if first is None else access(first.all_input_nodes[0])
    if first is None or shown is None:
        return 0
    axis, start = first.args[1:3]
    assert isinstance(axis, int)
    assert isinstance(start, int)
    return start * shown.strides[axis]


def _bases(nodes: Sequence[Node], inside: set[Node]) -> list[Node]:
    found: list[Node] = []
    for node in nodes:
        for operand in node.all_input_nodes:
            base = base_of(operand)
            if base not in inside and base not in found:
                found.append(base)
    return found


def _is_stored(node: Node, inside: set[Node], yielded: set[Node]) -> bool:
    if node in yielded:
        return True
    stack = list(node.users)
    while stack:
        user = stack.pop()
        if kind_of(user) is Kind.VIEW:
            stack.extend(user.users)
        elif user not in inside:
            return True
    return False


def form_of(graph: Graph) -> str:
    """The loops of a kernel: contract, stencil, pool, rows, reduce, map, or a lone op."""
    form = "map"
    for node in calls(graph):
        kind = kind_of(node)
        if kind is Kind.CONTRACT:
            dense = op_name(node) == "matmul" or not is_depthwise(node)
            return "contract" if dense else "stencil"
        if kind is Kind.STENCIL:
            return "pool"
        if op_name(node) in ALONE:
            return op_name(node)
        if kind is Kind.REDUCE:
            form = "rows" if is_row_reduction(node) else "reduce"
    return form


def is_depthwise(node: Node) -> bool:
    """Whether a convolution has one input channel a group."""
    if not op_name(node).startswith("conv2d") or node.args[-1] == 1:
        return False
    channels = node.args[1] if op_name(node) != "conv2d_weight_grad" else node
    assert isinstance(channels, Node)
    shape = type_of(channels).shape
    return shape[1] == 1 and shape[0] == node.args[-1]


def is_row_reduction(node: Node) -> bool:
    """Whether a reduction runs over the innermost axes of a row-major value, and leaves some."""
    source: Any = node.args[0]
    axes: Any = node.args[1]
    rank = len(type_of(source).shape)
    trailing = tuple(range(rank - len(axes), rank))
    return len(axes) < rank and axes == trailing and storage_order(source) == tuple(range(rank))


def find(graph: Graph, test: Callable[[Node], bool]) -> Node:
    """The first call of a graph for which a test holds."""
    return next(node for node in calls(graph) if test(node))


def stored_outputs(graph: Graph) -> tuple[Node, ...]:
    """What a kernel's graph writes: stored values and updates."""
    found = outputs_of(graph)
    return (*found.outputs, *found.updates)
