"""Building and reading IR graphs. Only this package touches ``node.meta``.

A graph is placeholders (each with a role and a canonical name), calls of the vocabulary's ops and
one output that holds an ``Outputs`` as a dict. Every value has a ``TensorType``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, TypeAlias, cast

import torch
from torch.fx import Graph, Node

from pockengine.ir.ops import OPS, Kind, Op, op_of
from pockengine.ir.types import DType, Role, TensorType

Argument: TypeAlias = Any  # a node, a number, a string or a tuple of these


@dataclass(frozen=True, slots=True)
class Outputs:
    """What a graph yields.

    Args:
        loss: the scalar loss, if the graph computes one.
        outputs: the model's outputs, flattened.
        gradients: gradient by canonical parameter name.
        updates: ``update`` nodes, which write parameters and state.
    """

    loss: Node | None = None
    outputs: tuple[Node, ...] = ()
    gradients: Mapping[str, Node] = field(default_factory=dict)
    updates: tuple[Node, ...] = ()

    @property
    def nodes(self) -> tuple[Node, ...]:
        """All yielded nodes, loss first."""
        loss = () if self.loss is None else (self.loss,)
        return (*loss, *self.outputs, *self.gradients.values(), *self.updates)

    def mapped(self, place: Callable[[Node], Node]) -> Outputs:
        """The same outputs with every node replaced."""
        return Outputs(
            loss=None if self.loss is None else place(self.loss),
            outputs=tuple(place(node) for node in self.outputs),
            gradients={name: place(node) for name, node in self.gradients.items()},
            updates=tuple(place(node) for node in self.updates),
        )


def type_of(node: Node) -> TensorType:
    """The type of a value."""
    found: TensorType = node.meta["type"]
    return found


def set_type(node: Node, value_type: TensorType) -> None:
    """Change the type of a value (its storage order; shape and dtype follow from the op)."""
    node.meta["type"] = value_type


def role_of(node: Node) -> Role | None:
    """The role of a placeholder; None for other nodes."""
    return cast("Role | None", node.meta.get("role"))


def set_role(node: Node, role: Role) -> None:
    """Change the role of a placeholder (a parameter that a scheme froze becomes a constant)."""
    node.meta["role"] = role


def name_of(node: Node) -> str:
    """The canonical name of a placeholder: PyTorch's name of a parameter, or an input's."""
    return cast("str", node.meta.get("name", node.name))


def set_name(node: Node, name: str) -> None:
    """Change the canonical name of a placeholder (of a constant that another has already)."""
    node.meta["name"] = name


def scope_of(node: Node) -> str:
    """The module path a node came from; empty where it is not known."""
    return cast("str", node.meta.get("scope", ""))


@dataclass(frozen=True, slots=True)
class Bounds:
    """Integers an input may hold: low <= value < high, or ``ignore``, a label not counted."""

    low: int
    high: int
    ignore: int | None = None


def bounds_of(node: Node) -> Bounds | None:
    """The permitted integers of a placeholder, where the graph indexes by it."""
    return cast("Bounds | None", node.meta.get("bounds"))


def set_bounds(node: Node, bounds: Bounds) -> None:
    """State the permitted integers of a placeholder; two statements narrow each other."""
    old = bounds_of(node)
    if old is not None:
        low, high = max(old.low, bounds.low), min(old.high, bounds.high)
        bounds = Bounds(low, high, old.ignore if bounds.ignore is None else bounds.ignore)
    node.meta["bounds"] = bounds


def micro_batches_of(node: Node) -> int:
    """How many parts of a placeholder there are, of which each round of the graph reads one."""
    return cast("int", node.meta.get("micro_batches", 1))


def set_micro_batches(node: Node, count: int) -> None:
    """Let each round of the graph read the next part of a placeholder, along its first axis.

    The first part stands in the graph: a slice [0, extent / count) of the placeholder.
    """
    node.meta["micro_batches"] = count


def rounds_of(graph: Graph) -> int:
    """How often a graph runs for one call of its entry point: once for each micro-batch."""
    return max(map(micro_batches_of, placeholders(graph)), default=1)


def group_of(node: Node) -> int | None:
    """The kernel group of a node once ``fuse`` has run; None for placeholders and views."""
    return cast("int | None", node.meta.get("group"))


def set_group(node: Node, group: int) -> None:
    """Put a node into a kernel group."""
    node.meta["group"] = group


def kind_of(node: Node) -> Kind | None:
    """How a node moves data; None for placeholders and the output."""
    return op_of(node.target).kind if node.op == "call_function" else None


def op_name(node: Node) -> str:
    """The vocabulary's name of a node's op; empty for placeholders and the output."""
    return op_of(node.target).name if node.op == "call_function" else ""


def is_op(node: object, *names: str) -> bool:
    """Whether a value is a call of one of the named ops."""
    return isinstance(node, Node) and node.op == "call_function" and op_name(node) in names


def placeholder(graph: Graph, name: str, value_type: TensorType, role: Role) -> Node:
    """Append a placeholder with a canonical name."""
    node = graph.placeholder(_identifier(name))
    node.meta.update(type=value_type, role=role, name=name)
    return node


def emit(graph: Graph, op: str, *args: Argument, scope: str = "", **kwargs: Argument) -> Node:
    """Append a call of an op; its type follows from its arguments' types."""
    arguments = tuple(_frozen(argument) for argument in args)
    keywords = {key: _frozen(argument) for key, argument in kwargs.items()}
    node = emit_typed(graph, op, arguments, keywords, infer(OPS[op], arguments, keywords))
    if scope:
        node.meta["scope"] = scope
    return node


def emit_typed(
    graph: Graph,
    op: str,
    args: tuple[Argument, ...],
    kwargs: Mapping[str, Argument],
    value_type: TensorType,
) -> Node:
    """Append a call of an op whose type is known already, storage order and all."""
    node = _append(graph, "call_function", OPS[op].reference, args, kwargs, op)
    node.meta["type"] = value_type
    return node


def _append(
    graph: Graph,
    kind: str,
    target: Any,
    args: tuple[Argument, ...],
    kwargs: Mapping[str, Argument],
    name: str,
) -> Node:
    """Append a node.

    Its arguments are set afterwards: given at once, torch searches them for symbols, which takes
    longer than all the rest. They are set past ``Node.__setattr__``, which files the node anew in
    case that it was the op that changed.
    """
    node = graph.create_node(kind, target, name=name)
    object.__setattr__(node, "args", args)
    if kwargs:
        object.__setattr__(node, "kwargs", dict(kwargs))
    return node


def copy_node(graph: Graph, node: Node, place: Callable[[Node], Argument]) -> Node:
    """Append a copy of a node of another graph."""
    args = torch.fx.map_arg(node.args, place)
    kwargs = torch.fx.map_arg(node.kwargs, place) if node.kwargs else {}
    copied = _append(graph, node.op, node.target, args, kwargs, node.name)
    copied.meta.update(node.meta)
    return copied


def infer(row: Op, args: tuple[Argument, ...], kwargs: Mapping[str, Argument]) -> TensorType:
    """The type of an op's result from its arguments: the reference run on meta tensors."""
    typed = cast("tuple[Argument, ...]", _typed(args))
    keywords = tuple(sorted((key, _typed(value)) for key, value in kwargs.items()))
    return _infer(row.name, typed, keywords)


@lru_cache(maxsize=65536)
def _infer(
    name: str, args: tuple[Argument, ...], kwargs: tuple[tuple[str, Argument], ...]
) -> TensorType:
    result = OPS[name].reference(*_meta(args), **{key: _meta(value) for key, value in kwargs})
    return TensorType(tuple(result.shape), DType.of(result.dtype))


def _frozen(argument: Argument) -> Argument:
    """Lists become tuples, so that arguments can be hashed and compared."""
    if isinstance(argument, (list, tuple)):
        return tuple(_frozen(item) for item in argument)
    return argument


def _typed(argument: Argument) -> Argument:
    if isinstance(argument, (list, tuple)):
        return tuple(_typed(item) for item in argument)
    if isinstance(argument, Node):
        found = type_of(argument)
        stored = found.order or found.quantization is not None
        return TensorType(found.shape, found.dtype) if stored else found
    return _Literal((argument, type(argument)))


class _Literal(tuple[Any, type]):
    """A value and its type: 1, 1.0 and True are equal keys but not equal dtypes."""

    __slots__ = ()


def _meta(argument: Argument) -> Argument:
    if isinstance(argument, _Literal):
        return cast("Argument", argument[0])
    if isinstance(argument, tuple):
        return tuple(_meta(item) for item in argument)
    if isinstance(argument, TensorType):
        return torch.empty(argument.shape, dtype=argument.dtype.torch, device="meta")
    return argument


def _identifier(name: str) -> str:
    cleaned = "".join(c if c.isalnum() or c == "_" else "_" for c in name)
    return cleaned if cleaned and not cleaned[0].isdigit() else f"_{cleaned}"


def set_outputs(graph: Graph, outputs: Outputs) -> None:
    """Append the output node."""
    graph.output(
        {
            "loss": outputs.loss,
            "outputs": outputs.outputs,
            "gradients": dict(outputs.gradients),
            "updates": outputs.updates,
        }
    )


def outputs_of(graph: Graph) -> Outputs:
    """What a graph yields."""
    value = graph.output_node().args[0]
    assert isinstance(value, Mapping)
    return Outputs(
        loss=cast("Node | None", value["loss"]),
        outputs=tuple(cast("tuple[Node, ...]", value["outputs"])),
        gradients=dict(cast("Mapping[str, Node]", value["gradients"])),
        updates=tuple(cast("tuple[Node, ...]", value["updates"])),
    )


def placeholders(graph: Graph, *roles: Role) -> Iterator[Node]:
    """Placeholders in order; only those of some roles if any are given."""
    for node in graph.find_nodes(op="placeholder"):
        if not roles or role_of(node) in roles:
            yield node


def calls(graph: Graph, *ops: str) -> Iterator[Node]:
    """Calls in order; only those of some ops if any are given."""
    for node in graph.nodes:
        if node.op == "call_function" and (not ops or op_name(node) in ops):
            yield node


Visit: TypeAlias = Callable[[Graph, Node, Callable[[Argument], Argument]], "Node | None"]


def rebuild(
    graph: Graph,
    visit: Visit | None = None,
    outputs: Callable[[Outputs], Outputs] | None = None,
) -> Graph:
    """A new graph from an old one, call by call.

    Args:
        graph: the old graph, which stays as it is.
        visit: gets the new graph, an old call and a function from old arguments to new ones;
            returns the node that stands for the call, or None to copy it.
        outputs: chooses what the new graph yields, given the old outputs as new nodes.

    Calls that nothing uses are left out; placeholders all stay.
    """
    if visit is None and outputs is None:
        return subgraph(graph, outputs_of(graph))
    new = Graph()
    place: dict[Node, Node] = {}

    def moved(argument: Argument) -> Argument:
        return torch.fx.map_arg(argument, place.__getitem__)

    for node in graph.nodes:
        if node.op == "output":
            break
        made = visit(new, node, moved) if visit and node.op == "call_function" else None
        if made is None:
            made = copy_node(new, node, place.__getitem__)
        place[node] = made
    found = outputs_of(graph).mapped(place.__getitem__)
    set_outputs(new, outputs(found) if outputs else found)
    drop_dead(new)
    return new


def subgraph(graph: Graph, outputs: Outputs) -> Graph:
    """A new graph of a part of an old one: what some values are computed from.

    Args:
        graph: the old graph, which stays as it is.
        outputs: what the new graph yields, as nodes of the old one.

    Placeholders all stay.
    """
    wanted = ancestors(outputs.nodes)
    new = Graph()
    place: dict[Node, Node] = {}
    for node in graph.nodes:
        if node.op == "placeholder" or node in wanted:
            place[node] = copy_node(new, node, place.__getitem__)
    set_outputs(new, outputs.mapped(place.__getitem__))
    return new


def drop_dead(graph: Graph) -> None:
    """Erase calls that nothing uses, in place (for a graph still under construction)."""
    for node in reversed(list(graph.nodes)):
        if node.op == "call_function" and not node.users:
            graph.erase_node(node)


def ancestors(nodes: tuple[Node, ...], known: AbstractSet[Node] = frozenset()) -> set[Node]:
    """The nodes and all that they are computed from, back to what is known and without it."""
    seen: set[Node] = set()
    stack = list(nodes)
    while stack:
        node = stack.pop()
        if node not in seen and node not in known:
            seen.add(node)
            stack.extend(node.all_input_nodes)
    return seen
