"""Building graphs: types, roles, bounds, rebuilding."""

from __future__ import annotations

import pytest
from torch.fx import Graph, Node

from pockengine.ir.graph import (
    Bounds,
    Outputs,
    ancestors,
    bounds_of,
    calls,
    emit,
    is_op,
    kind_of,
    name_of,
    op_name,
    outputs_of,
    placeholder,
    placeholders,
    rebuild,
    role_of,
    scope_of,
    set_bounds,
    set_outputs,
    type_of,
)
from pockengine.ir.ops import Kind
from pockengine.ir.text import parse, text
from pockengine.ir.types import DType, Role, TensorType

_SOURCE = """%w: f32[3] = param('block.0.weight')
%x: f32[2x3] = input('x')
%double: f32[2x3] = mul(%x, 2)
%y: f32[2x3] = mul(%double, %w)
%dead: f32[2x3] = exp(%y)
%loss: f32[] = sum(%y, (0, 1))
return loss=%loss, outputs=(%y,), gradients={'block.0.weight': %w}, updates=()
"""


def test_placeholders_have_canonical_names() -> None:
    """PyTorch's name is kept beside an identifier; roles select."""
    graph = Graph()
    weight = placeholder(graph, "0.weight", TensorType((2,)), Role.PARAM)
    mean = placeholder(graph, "mean", TensorType((2,)), Role.CONST)
    assert (weight.name, name_of(weight), role_of(weight)) == ("_0_weight", "0.weight", Role.PARAM)
    assert list(placeholders(graph)) == [weight, mean]
    assert list(placeholders(graph, Role.CONST)) == [mean]


def test_emit_infers() -> None:
    """A call's type follows from its arguments; lists become tuples; literals keep their kind."""
    graph = Graph()
    x = placeholder(graph, "x", TensorType((2, 3), DType.I64), Role.INPUT)
    flat = emit(graph, "reshape", x, [6], scope="head")
    assert (type_of(flat), flat.args[1]) == (TensorType((6,), DType.I64), (6,))
    assert (op_name(flat), kind_of(flat), scope_of(flat)) == ("reshape", Kind.VIEW, "head")
    assert is_op(flat, "permute", "reshape")
    assert not is_op(x, "reshape")
    assert kind_of(x) is None
    assert type_of(emit(graph, "add", x, 1)).dtype is DType.I64
    assert type_of(emit(graph, "add", x, 1.0)).dtype is DType.F32
    with pytest.raises(RuntimeError):
        emit(graph, "reshape", x, (7,))


def test_bounds_narrow() -> None:
    """Two statements about an input's integers hold together; the ignored label is remembered."""
    graph = Graph()
    ids = placeholder(graph, "ids", TensorType((2,), DType.I64), Role.INPUT)
    set_bounds(ids, Bounds(0, 10, -100))
    set_bounds(ids, Bounds(2, 20))
    assert bounds_of(ids) == Bounds(2, 10, -100)


def test_outputs_round() -> None:
    """Outputs are what was set, in order, and map node by node."""
    graph = parse(_SOURCE)
    found = outputs_of(graph)
    assert [node.name for node in found.nodes] == ["loss", "y", "w"]
    assert found.mapped(lambda node: node) == found
    empty = Graph()
    set_outputs(empty, Outputs())
    assert outputs_of(empty) == Outputs()


def test_rebuild_copies() -> None:
    """Without a visit only dead calls go; the old graph stays as it is."""
    graph = parse(_SOURCE)
    again = rebuild(graph)
    assert text(graph) == _SOURCE
    assert text(again) == "".join(s for s in _SOURCE.splitlines(keepends=True) if "dead" not in s)
    assert not set(again.nodes) & set(graph.nodes)


def test_rebuild_visits() -> None:
    """A visit stands one value for another; what only the old one read goes; outputs are chosen."""
    graph = parse(_SOURCE)

    def visit(new: Graph, node: Node, moved: object) -> Node | None:
        del new
        return moved(node.args[0]) if node.name == "double" else None  # type: ignore[operator]

    again = rebuild(graph, visit, lambda found: Outputs(outputs=found.outputs))
    assert [op_name(node) for node in calls(again)] == ["mul"]
    assert [node.name for node in next(calls(again)).all_input_nodes] == ["x", "w"]
    assert len(list(placeholders(again))) == 2


def test_ancestors() -> None:
    """A value and all that it is computed from, nothing else."""
    graph = parse(_SOURCE)
    y = next(node for node in graph.nodes if node.name == "y")
    assert {node.name for node in ancestors((y,))} == {"y", "double", "w", "x"}
