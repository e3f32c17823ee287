"""Which stored value a kernel may overwrite with which of its results.

A result may take the bytes of a value if the kernel needs each of that value's elements for the
last time where it computes the result's element at the same address, from it: then every load
comes before the store that overwrites what it read, on any split of the range.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch.fx import Node

from pockengine.ir.graph import kind_of, op_name, type_of
from pockengine.ir.ops import Kind
from pockengine.ir.types import DType, TensorType
from pockengine.ir.verify import base_of, is_only_reshaped
from pockengine.lower.kernel import Kernel, is_depthwise, is_row_reduction
from pockengine.lower.loops import passes_of

_ELEMENTWISE = (Kind.MAP, Kind.REDUCE)
_LOOK_UPS = ("take_rows", "sum_rows", "max_rows")  # each element of the walk, from elsewhere


def in_place_pairs(kernel: Kernel, nodes: Sequence[Node]) -> tuple[tuple[Node, Node], ...]:
    """Pairs (read, write) of a kernel of which the second may lie where the first does.

    Args:
        kernel: of a fused graph.
        nodes: the calls of its group.
    """
    walk = _walk(nodes)
    if kernel.updates or walk is None:
        return ()
    last = [write for write in kernel.writes if walk.is_last(write)]
    return tuple(
        (read, write)
        for read in kernel.reads
        if last and walk.reads_in_step(read)
        for write in last
        if _same_addresses(type_of(read), type_of(write)) and walk.depends(write, read)
    )


class _Walk:
    """The part of a kernel that goes over a domain element by element.

    Args:
        nodes: the calls of the kernel.
        domain: the number of elements of the domain.
        upstream: calls that run elsewhere: what a contraction reads.
    """

    def __init__(self, nodes: Sequence[Node], domain: int, upstream: frozenset[Node]) -> None:
        self.nodes = [node for node in nodes if node not in upstream]
        self.upstream = upstream
        self.domain = domain
        self._users: dict[Node, list[Node]] = {}
        for node in (*self.nodes, *upstream):
            for base in dict.fromkeys(map(base_of, node.all_input_nodes)):
                self._users.setdefault(base, []).append(node)
        self.passes = passes_of(self.nodes)
        self.last_pass = max(
            number - 1 if kind_of(node) is Kind.REDUCE else number
            for node, number in self.passes.items()
        )

    def reads_in_step(self, read: Node) -> bool:
        """Whether every use of a value is at the walk's own element."""
        if type_of(read).dtype is DType.BOOL:
            return False  # loaded where it is used, not ahead of the stores
        users = self._users.get(read, [])
        return not any(user in self.upstream for user in users) and all(
            self._in_step(user, read) for user in users
        )

    def _in_step(self, user: Node, read: Node) -> bool:
        if kind_of(user) is Kind.VIEW:
            return op_name(user) == "reshape"
        views = [o for o in user.all_input_nodes if base_of(o) is read]
        return (
            kind_of(user) in _ELEMENTWISE
            and all(map(is_only_reshaped, views))
            and (kind_of(user) is Kind.REDUCE or type_of(user).size == self.domain)
        )

    def is_last(self, write: Node) -> bool:
        """Whether a result is stored in the walk's last pass, an element at a time."""
        return type_of(write).size == self.domain and self.passes.get(write) == self.last_pass

    def depends(self, write: Node, read: Node) -> bool:
        """Whether a result's elements are computed from the value's own."""
        stack, seen = [write], {write}
        while stack:
            for operand in stack.pop().all_input_nodes:
                if base_of(operand) is read:
                    return True
                if operand in self.passes and operand not in seen:
                    seen.add(operand)
                    if kind_of(operand) is not Kind.REDUCE:
                        stack.append(operand)
        return False


def _walk(nodes: Sequence[Node]) -> _Walk | None:
    """The element-by-element part of a kernel; None if there is none, or not in one order."""
    inside = set(nodes)
    if any(kind_of(node) is Kind.STENCIL for node in nodes):
        return None
    anchors = [node for node in nodes if kind_of(node) is Kind.CONTRACT]
    upstream = _ancestors(anchors, inside)
    rest = [node for node in nodes if node not in upstream]
    reductions = [node for node in rest if kind_of(node) is Kind.REDUCE]
    if len(anchors) > 1 or any(is_depthwise(node) for node in anchors):
        return None
    if (anchors and reductions) or not all(is_row_reduction(node) for node in reductions):
        return None
    domain = type_of(anchors[0]).size if anchors else max(type_of(n).size for n in nodes)
    walk = _Walk(nodes, domain, upstream)
    return walk if all(_keeps_numbers(node, inside, domain, anchors) for node in rest) else None


def _ancestors(anchors: Sequence[Node], inside: set[Node]) -> frozenset[Node]:
    found: set[Node] = set()
    stack = [o for anchor in anchors for o in anchor.all_input_nodes]
    while stack:
        node = stack.pop()
        if node in inside and node not in found:
            found.add(node)
            stack.extend(node.all_input_nodes)
    return frozenset(found)


def _keeps_numbers(node: Node, inside: set[Node], domain: int, anchors: Sequence[Node]) -> bool:
    """Whether the row-major number of an element stays the same from what is computed to it."""
    if node in anchors or kind_of(node) in _ELEMENTWISE or op_name(node) in _LOOK_UPS:
        return True
    computed = base_of(node) in inside and type_of(base_of(node)).size == domain
    return kind_of(node) is Kind.VIEW and (op_name(node) == "reshape" or not computed)


def _same_addresses(read: TensorType, write: TensorType) -> bool:
    """Whether elements of the same row-major number lie at the same address."""
    if read == write:
        return True
    plain = not read.order and not write.order
    return plain and read.dtype is write.dtype and read.size == write.size
