"""Evaluate once what every step would compute from constants."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from hashlib import sha256

import torch
from torch import Tensor
from torch.fx import Graph, Node

from pockengine.ir.graph import (
    Argument,
    ancestors,
    calls,
    kind_of,
    micro_batches_of,
    name_of,
    op_name,
    placeholder,
    placeholders,
    rebuild,
    role_of,
    type_of,
)
from pockengine.ir.interpret import are_double, run
from pockengine.ir.ops import Kind
from pockengine.ir.types import Role

_GROWTH = 2  # a constant may take this many times the bytes it is computed from
_SMALL = 4096  # elements of a constant computed from no other constant
_HEAVY_KINDS = (Kind.REDUCE, Kind.CONTRACT, Kind.STENCIL, Kind.INDEX)
_HEAVY_OPS = frozenset("exp expm1 log log1p sqrt rsqrt tanh sigmoid erf sin cos pow".split())


def fold_constants(graph: Graph, tensors: Mapping[str, Tensor]) -> tuple[Graph, dict[str, Tensor]]:
    """Replace the largest expressions of constants by constants, evaluated in the tensors' dtype.

    A constant is named by a hash of its expression, so graphs that share an expression (step,
    predict, evaluate) share the constant. Views stay views, of a constant that several of them may
    share. What would grow stays an expression: results of more than twice the bytes of their
    operands, and expressions of ``full`` and ``iota`` alone, unless they are small and expensive.

    before::

        %w: f32[4x3] = const('w')
        %s: f32[4x1] = const('s')
        %x: f32[2x3] = input('x')
        %ws: f32[4x3] = mul(%w, %s)
        %wt: f32[3x4] = permute(%ws, (1, 0))
        %y: f32[2x4] = matmul(%x, %wt)
        return loss=None, outputs=(%y,), gradients={}, updates=()

    after::

        %x: f32[2x3] = input('x')
        %folded_5eeecae616864d80: f32[4x3] = const('folded.5eeecae616864d80')
        %wt: f32[3x4] = permute(%folded_5eeecae616864d80, (1, 0))
        %y: f32[2x4] = matmul(%x, %wt)
        return loss=None, outputs=(%y,), gradients={}, updates=()

    Args:
        graph: any graph.
        tensors: contents of its constants, parameters and state, by canonical name.

    Returns:
        The graph without the constants that nothing reads, and the contents of what is left.
    """
    folded = _to_fold(graph)
    names = _names(graph)
    evaluated = _evaluate(graph, folded, tensors)
    contents = dict(tensors)
    made: dict[str, Node] = {}

    def visit(new: Graph, node: Node, moved: Callable[[Argument], Argument]) -> Node | None:
        del moved
        if node not in folded:
            return None
        name = names[node]
        if name not in made:
            contents[name] = evaluated[node]
            made[name] = placeholder(new, name, type_of(node), Role.CONST)
        return made[name]

    result = rebuild(graph, visit)
    _tidy(result, made)
    left = {name_of(node) for node in placeholders(result)}
    return result, {name: tensor for name, tensor in contents.items() if name in left}


def folded_from(graph: Graph) -> dict[str, str]:
    """The first tensor that each constant of ``fold_constants`` stems from, by name.

    Args:
        graph: as it is given to ``fold_constants``.
    """
    sources, names = _sources(graph), _names(graph)
    order = {node: index for index, node in enumerate(graph.nodes)}
    return {
        names[node]: name_of(min(sources[node], key=order.__getitem__))
        for node in _to_fold(graph)
        if sources[node]
    }


def _sources(graph: Graph) -> dict[Node, frozenset[Node]]:
    """The constants that each constant value is computed from; other values are left out."""
    sources: dict[Node, frozenset[Node]] = {}
    for node in graph.nodes:
        if role_of(node) is Role.CONST and micro_batches_of(node) == 1:
            sources[node] = frozenset([node])
        elif node.op == "call_function" and kind_of(node) is not Kind.UPDATE:
            operands = node.all_input_nodes
            if all(operand in sources for operand in operands):
                sources[node] = frozenset().union(*(sources[operand] for operand in operands))
    return sources


def _to_fold(graph: Graph) -> set[Node]:
    """The calls that become constants: whoever reads them is not folded itself."""
    sources = _sources(graph)
    folded: set[Node] = set()
    hidden: set[Node] = set()  # read by folded calls only
    for node in reversed(graph.nodes):
        if node not in sources or node.op == "placeholder":
            continue
        if node.users and all(user in folded or user in hidden for user in node.users):
            hidden.add(node)
        elif kind_of(node) is not Kind.VIEW and _pays(node, sources[node]):
            folded.add(node)
    return folded


def _pays(node: Node, sources: frozenset[Node]) -> bool:
    if sources:
        return type_of(node).nbytes <= _GROWTH * sum(type_of(s).nbytes for s in sources)
    heavy = any(_is_heavy(operand) for operand in ancestors((node,)))
    return heavy and type_of(node).size <= _SMALL


def _is_heavy(node: Node) -> bool:
    return kind_of(node) in _HEAVY_KINDS or op_name(node) in _HEAVY_OPS


def _names(graph: Graph) -> dict[Node, str]:
    """A name for each call by what it computes; equal expressions have equal names."""
    names: dict[Node, str] = {}
    for node in graph.nodes:
        if node.op == "placeholder":
            names[node] = f"{name_of(node)}: {type_of(node)}"
        elif node.op == "call_function":
            args, kwargs = torch.fx.map_arg((node.args, dict(node.kwargs)), names.__getitem__)
            expression = f"{type_of(node)} = {op_name(node)}({args!r}, {kwargs!r})"
            names[node] = f"folded.{sha256(expression.encode()).hexdigest()[:16]}"
    return names


def _evaluate(graph: Graph, wanted: set[Node], tensors: Mapping[str, Tensor]) -> dict[Node, Tensor]:
    """Contents of some values; others are computed where needed, dropped after their last use."""
    needed = ancestors(tuple(wanted))
    double = are_double(tensors.values())
    places: dict[Node, Tensor] = {}
    readers = {node: sum(user in needed for user in node.users) for node in needed}
    with torch.no_grad():
        for node in graph.nodes:
            if node not in needed:
                continue
            if node.op == "placeholder":
                places[node] = _full_precision(tensors[name_of(node)])
                continue
            places[node] = run(node, places, double=double)
            for operand in node.all_input_nodes:
                readers[operand] -= 1
                if not readers[operand] and operand not in wanted:
                    del places[operand]
    return {node: places[node].contiguous() for node in wanted}


def _full_precision(tensor: Tensor) -> Tensor:
    """Values that a file holds in half precision are float32 in a graph."""
    half = tensor.dtype in (torch.float16, torch.bfloat16)
    return tensor.float() if half else tensor


def _tidy(graph: Graph, made: Mapping[str, Node]) -> None:
    """New constants move ahead of the calls, unread ones away (of a graph just built)."""
    first = next(calls(graph), graph.output_node())
    for node in made.values():
        first.prepend(node)
    for node in list(placeholders(graph, Role.CONST)):
        if not node.users:
            graph.erase_node(node)
