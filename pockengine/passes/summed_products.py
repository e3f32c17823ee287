"""Which matmuls are summed up together with another one, in its kernel."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from torch.fx import Graph, Node

from pockengine.ir.graph import calls, is_op, role_of, type_of
from pockengine.ir.types import Role
from pockengine.ir.verify import base_of


def first_terms(
    graph: Graph, readers: Mapping[Node, Sequence[Node]], forward: Collection[Node]
) -> dict[Node, Node]:
    """Matmuls, and the later one that each is summed up with, where that takes less memory.

    The first's operands have to stay until the second is made, but its result is never stored.

    Args:
        graph: what is fused.
        readers: the computing nodes that read each stored value.
        forward: the values of the forward pass.
    """
    found: dict[Node, Node] = {}
    seen: set[Node] = set()
    for node in calls(graph):
        seen.add(node)
        partner = _partner(node, readers, forward)
        if partner is not None and partner not in seen and _is_smaller(node):
            found[node] = partner
    return found


def _partner(
    node: Node, readers: Mapping[Node, Sequence[Node]], forward: Collection[Node]
) -> Node | None:
    """The other matmul of a sum that alone reads both."""
    if not is_op(node, "matmul") or len(readers[node]) != 1 or not is_op(readers[node][0], "add"):
        return None
    total = readers[node][0]
    others = [term for term in total.all_input_nodes if term is not node]
    if len(others) != 1 or not is_op(others[0], "matmul"):
        return None
    other = others[0]
    sides = {each in forward for each in (node, other, total)}
    alike = type_of(other) == type_of(node) and len(sides) == 1
    return other if alike and readers[other] == readers[node] else None


def _is_smaller(node: Node) -> bool:
    """Whether a matmul's operands are transient and take less memory than its result."""
    bases = {base_of(operand) for operand in node.all_input_nodes}
    transient = all(role_of(base) in (None, Role.INPUT, Role.TARGET) for base in bases)
    return transient and sum(type_of(base).nbytes for base in bases) < type_of(node).nbytes
