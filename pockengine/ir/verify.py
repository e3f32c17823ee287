"""The rules that hold for every graph, after every pass."""

from __future__ import annotations

from torch.fx import Graph, Node

from pockengine.ir.graph import (
    infer,
    kind_of,
    name_of,
    op_name,
    outputs_of,
    role_of,
    type_of,
)
from pockengine.ir.ops import Kind, op_of
from pockengine.ir.types import Role


class InvalidGraphError(AssertionError):
    """A pass built a graph that breaks a rule: a defect of ours, never of the user's input."""


def verify(graph: Graph) -> Graph:
    """Check a graph and return it.

    The rules: every node is a placeholder with a role, a call of the vocabulary, or the one output;
    every value has the type its op infers; arguments precede their users; a storage order is a
    permutation of the axes; an update's target is a parameter or state, whole or a slice, its value
    has the target's shape and dtype, nothing but the output uses it, and no two updates share
    a target.

    Raises:
        InvalidGraphError: names the node and the rule.
    """
    seen: set[Node] = set()
    for node in graph.nodes:
        if any(argument not in seen for argument in node.all_input_nodes):
            raise InvalidGraphError(f"{node.name}: an argument comes after it")
        seen.add(node)
        if node.op == "placeholder":
            _verify_placeholder(node)
        elif node.op == "call_function":
            _verify_call(node)
        elif node.op != "output":
            raise InvalidGraphError(f"{node.name}: {node.op} is not of the vocabulary")
    targets = [base_of(node.args[0]) for node in outputs_of(graph).updates]
    if len(set(targets)) != len(targets):
        raise InvalidGraphError("two updates share a target")
    return graph


def _verify_placeholder(node: Node) -> None:
    if role_of(node) is None:
        raise InvalidGraphError(f"{node.name}: a placeholder without a role")
    _verify_order(node)


def _verify_call(node: Node) -> None:
    try:
        row = op_of(node.target)
    except KeyError:
        raise InvalidGraphError(f"{node.name}: {node.target} is not of the vocabulary") from None
    found, wanted = type_of(node), infer(row, node.args, node.kwargs)
    if (found.shape, found.dtype) != (wanted.shape, wanted.dtype):
        raise InvalidGraphError(f"{node.name}: has type {found}, {row.name} gives {wanted}")
    _verify_order(node)
    if row.kind is Kind.UPDATE:
        _verify_update(node)


def _verify_order(node: Node) -> None:
    found = type_of(node)
    if found.order and sorted(found.order) != list(range(len(found.shape))):
        raise InvalidGraphError(f"{node.name}: order {found.order} of shape {found.shape}")


def _verify_update(node: Node) -> None:
    target, value = node.args
    assert isinstance(target, Node)
    assert isinstance(value, Node)
    base = base_of(target)
    if role_of(base) not in (Role.PARAM, Role.STATE):
        raise InvalidGraphError(f"{node.name}: updates {name_of(base)}, which is {role_of(base)}")
    wanted, found = type_of(target), type_of(value)
    if (wanted.shape, wanted.dtype) != (found.shape, found.dtype):
        raise InvalidGraphError(f"{node.name}: writes {found} into {wanted}")
    if any(user.op != "output" for user in node.users):
        raise InvalidGraphError(f"{node.name}: {op_name(next(iter(node.users)))} reads an update")


def base_of(node: object) -> Node:
    """The value whose bytes a view shows; the node itself if it is not a view."""
    assert isinstance(node, Node)
    while kind_of(node) is Kind.VIEW:
        source = node.args[0]
        assert isinstance(source, Node)
        node = source
    return node


def is_only_reshaped(node: Node) -> bool:
    """Whether a value is seen as it is, or through reshapes: elements keep their numbers."""
    while kind_of(node) is Kind.VIEW:
        if op_name(node) != "reshape":
            return False
        node = node.all_input_nodes[0]
    return True
