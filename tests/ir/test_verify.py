"""Verify: each rule broken once."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch.fx import Graph, Node

from pockengine.ir.graph import emit, set_role, set_type
from pockengine.ir.text import parse
from pockengine.ir.types import Role, TensorType
from pockengine.ir.verify import InvalidGraphError, base_of, verify

_SOURCE = """%w: f32[4] = param('w')
%v: f32[4] = param('v')
%x: f32[4] = input('x')
%y: f32[4] = mul(%w, %x)
%head: f32[2] = slice(%w, 0, 0, 2)
%tail: f32[2] = slice(%y, 0, 2, 4)
%write: f32[2] = update(%head, %tail)
%other: f32[4] = update(%v, %y)
return loss=None, outputs=(%y,), gradients={}, updates=(%write, %other)
"""


def _swap(nodes: dict[str, Node]) -> None:
    nodes["tail"].append(nodes["y"])


def _foreign(nodes: dict[str, Node]) -> None:
    nodes["y"].target = torch.mul


def _same_name(nodes: dict[str, Node]) -> None:
    def mul(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return a * b

    nodes["y"].target = mul


def _attribute(nodes: dict[str, Node]) -> None:
    nodes["x"].op = "get_attr"


def _roleless(nodes: dict[str, Node]) -> None:
    nodes["x"].meta["role"] = None


def _wrong_type(nodes: dict[str, Node]) -> None:
    set_type(nodes["y"], TensorType((5,)))


def _wrong_order(nodes: dict[str, Node]) -> None:
    set_type(nodes["x"], TensorType((4,), order=(1,)))


def _of_an_input(nodes: dict[str, Node]) -> None:
    set_role(nodes["w"], Role.CONST)


def _wrong_shape(nodes: dict[str, Node]) -> None:
    nodes["other"].args = (nodes["v"], nodes["tail"])
    set_type(nodes["other"], TensorType((2,)))


def _read(nodes: dict[str, Node]) -> None:
    graph: Graph = nodes["y"].graph
    with graph.inserting_before(graph.output_node()):
        emit(graph, "neg", nodes["other"])


def _twice(nodes: dict[str, Node]) -> None:
    nodes["other"].args = (nodes["w"], nodes["y"])


_BROKEN: dict[str, tuple[Callable[[dict[str, Node]], None], str]] = {
    "order of calls": (_swap, "tail: an argument comes after it"),
    "foreign op": (_foreign, "y: .*mul.* is not of the vocabulary"),
    "an op's name is not enough": (_same_name, "y: .* is not of the vocabulary"),
    "another kind of node": (_attribute, "x: get_attr is not of the vocabulary"),
    "no role": (_roleless, "x: a placeholder without a role"),
    "type": (_wrong_type, r"y: has type f32\[5\], mul gives f32\[4\]"),
    "storage order": (_wrong_order, r"x: order \(1,\) of shape \(4,\)"),
    "update of a constant": (_of_an_input, "write: updates w, which is Role.CONST"),
    "update of another shape": (_wrong_shape, r"other: writes f32\[2\] into f32\[4\]"),
    "reading an update": (_read, "other: .*reads an update"),
    "two updates": (_twice, "two updates share a target"),
}


@pytest.mark.parametrize("rule", _BROKEN)
def test_rule(rule: str) -> None:
    """A graph that breaks a rule is refused with the node and the rule."""
    broken, message = _BROKEN[rule]
    graph = parse(_SOURCE)
    broken({node.name: node for node in graph.nodes})
    with pytest.raises(InvalidGraphError, match=message):
        verify(graph)


def test_whole_graph_passes() -> None:
    """A graph that keeps the rules comes back itself; a view's base is what it shows."""
    graph = parse(_SOURCE)
    assert verify(graph) is graph
    nodes = {node.name: node for node in graph.nodes}
    assert base_of(nodes["head"]) is nodes["w"]
    assert base_of(nodes["y"]) is nodes["y"]
