"""Choose which forward values the backward pass keeps and which it computes again."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import cast

import numpy as np
from numpy.typing import NDArray
from torch.fx import Graph, Node

from pockengine.ir.forward import forward_values
from pockengine.ir.graph import (
    ancestors,
    calls,
    copy_node,
    kind_of,
    op_name,
    outputs_of,
    rebuild,
    role_of,
    type_of,
)
from pockengine.ir.ops import Kind
from pockengine.ir.types import Role
from pockengine.passes.minimum_cut import FlowNetwork

FREE = (Role.PARAM, Role.CONST, Role.STATE, Role.HYPER)
FOREVER = 2**30  # a capacity that no cut pays
NEVER_NS = 1e9  # work that is told as this is not to be repeated
_MOST_WORTH = 1000.0  # times the least worth of a byte
_PRICES = 512  # between the two
EARLY = 0.3
"""How much dearer keeping the first forward value is told than keeping the last, as a share."""


@dataclass(frozen=True, slots=True)
class SavingCosts:
    """What keeping and recomputing cost.

    Args:
        recompute_ns: nanoseconds to compute a node once more, its operands given.
        ns_per_byte: what a byte kept through the step is worth; more means less memory, more work.
        recompute_shares: parts of the step's time that may go into computing again, rising; which
            of them pays is for the plans to say. The byte's worth rises above ``ns_per_byte`` until
            a part is spent. 0: it does not rise.
    """

    recompute_ns: Callable[[Node], float]
    ns_per_byte: float
    recompute_shares: tuple[float, ...] = (0.0,)

    def price(self, rank: int) -> tuple[float, float]:
        """What a kept byte is worth, and by what part that of the first value is above the mean.

        Values of equal worth (the layers of a transformer) would all fall at one price; earlier
        ones, which are kept for longer, are told as worth a little more to be rid of. Rank 0 is
        what a byte is worth by itself.
        """
        return self.ns_per_byte * _MOST_WORTH ** (rank / _PRICES), EARLY if rank else 0.0


def highest_rank(spent: Callable[[int], float], most: float) -> int:
    """The rank of the highest price at which no more than ``most`` is spent; 0 if there is none.

    Args:
        spent: by the rank of a price from 1 on, what computing again takes: more at higher prices.
        most: as above.
    """
    low, high = 0, _PRICES
    while low < high:
        middle = (low + high + 1) // 2
        if spent(middle) <= most:
            low = middle
        else:
            high = middle - 1
    return low


def choose_saved(graph: Graph, costs: SavingCosts, share: float | None = None) -> Graph:
    """Clone forward nodes into the backward pass where that is cheaper than keeping their results.

    Exact: the cheapest choice is a minimum cut. Each forward value v is an edge of capacity
    ``bytes(v) * ns_per_byte`` (keep it) behind an edge from the source of capacity
    ``recompute_ns(v)`` (compute it again); values that the backward pass reads lead to the sink.
    Parameters and constants are kept at no cost.

    before::

        %x: f32[64x64] = input('x')
        %w: f32[64x64] = param('w')
        %h: f32[64x64] = matmul(%x, %w)
        %y: f32[64x64] = exp(%h)
        %g: f32[64x64] = mul(%h, %y)
        return loss=None, outputs=(%y,), gradients={'w': %g}, updates=()

    after::

        %x: f32[64x64] = input('x')
        %w: f32[64x64] = param('w')
        %h: f32[64x64] = matmul(%x, %w)
        %y: f32[64x64] = exp(%h)
        %y_1: f32[64x64] = exp(%h)
        %g: f32[64x64] = mul(%h, %y_1)
        return loss=None, outputs=(%y,), gradients={'w': %g}, updates=()

    Not applied to graphs without a backward pass. Source: Chen et al. 2016 for the idea, PyTorch's
    recomputation partitioner for the cut; the recomputation costs in the same cut are ours.

    Args:
        graph: a joint graph.
        costs: what keeping and recomputing cost.
        share: part of the step's time that may go into computing again; None for the largest.
    """
    forward = forward_values(graph)
    read = [
        node
        for node in graph.nodes
        if node in forward and any(u.op != "output" and u not in forward for u in node.users)
    ]
    if not read:
        return graph
    network = _Network(graph, forward, read, costs)
    most = costs.recompute_shares[-1] if share is None else share
    rank = _affordable(graph, network, read, costs, most) if most else 0
    return _clone(graph, forward, network.cut(*costs.price(rank)))


def _affordable(
    graph: Graph, network: _Network, read: list[Node], costs: SavingCosts, share: float
) -> int:
    """The rank of the highest worth of a byte whose recomputation stays within the share."""
    work = {node: costs.recompute_ns(node) for node in calls(graph)}
    step_ns = sum(ns for ns in work.values() if ns < NEVER_NS)

    def spent(rank: int) -> float:
        again = _evaluated(network.cut(*costs.price(rank)), read)
        return sum(work[node] for node in again if node in work)

    return highest_rank(spent, share * step_ns)


def _evaluated(again: set[Node], read: list[Node]) -> set[Node]:
    """The nodes of ``again`` that the backward pass really needs."""
    found: set[Node] = set()
    stack = [node for node in read if node in again]
    while stack:
        node = stack.pop()
        if node not in found:
            found.add(node)
            stack += [operand for operand in node.all_input_nodes if operand in again]
    return found


class _Network:
    """The flow network of a graph's forward values; only the worth of a byte differs between cuts.

    Value ``i`` is the edge from ``2 * i`` to ``2 * i + 1``; source and sink come last.

    Args:
        graph: a joint graph.
        forward: what belongs to its forward pass.
        read: the forward values that the backward pass reads.
        costs: what keeping and recomputing cost.
    """

    def __init__(
        self, graph: Graph, forward: set[Node], read: list[Node], costs: SavingCosts
    ) -> None:
        self._nodes = [node for node in graph.nodes if node in forward]
        self._views = np.array([kind_of(node) is Kind.VIEW for node in self._nodes])
        self._nbytes = np.array([_kept_bytes(node) for node in self._nodes], dtype=np.float64)
        found = outputs_of(graph)
        needed = ancestors((*found.outputs, *(() if found.loss is None else (found.loss,))))
        self._made_ns = np.array([_made_ns(node, needed, costs) for node in self._nodes])
        place = {node: index for index, node in enumerate(self._nodes)}
        source, sink = 2 * len(place), 2 * len(place) + 1
        others: dict[tuple[int, int], int] = {}
        for node, index in place.items():
            others[source, 2 * index] = _again(node, costs)
            for operand in node.all_input_nodes:
                others[2 * place[operand] + 1, 2 * index] = FOREVER
        for node in read:
            others[2 * place[node] + 1, sink] = FOREVER
        values = [(2 * index, 2 * index + 1) for index in place.values()]
        tails, heads = np.array([*values, *others], np.intp).T
        self._flows = FlowNetwork(tails, heads, sink + 1)
        self._others = np.array(list(others.values()), dtype=np.int32)

    def cut(self, ns_per_byte: float, early: float) -> set[Node]:
        """The forward nodes to compute again.

        Args:
            ns_per_byte: what a byte kept is worth.
            early: how much more it is worth of the first value than of the last, as a share.
        """
        keep = _capacities(self._nbytes * ns_per_byte + self._made_ns)
        rank = np.arange(len(keep)) / len(keep)
        sooner = _capacities(keep * (1 + early * (0.5 - rank)))
        keep = np.where(keep < FOREVER / 2, sooner, keep)
        keep[self._views] = FOREVER  # keep what they show instead
        kept = self._flows.source_side(np.concatenate([keep.astype(np.int32), self._others]))
        return {node for index, node in enumerate(self._nodes) if not kept[2 * index]}


def _kept_bytes(node: Node) -> int:
    """The bytes that keeping a value takes; parameters and constants are there anyway."""
    return 0 if role_of(node) in FREE else type_of(node).nbytes


def _made_ns(node: Node, needed: set[Node], costs: SavingCosts) -> float:
    """What making a value costs that the forward pass itself does not need."""
    return 0 if node.op == "placeholder" or node in needed else costs.recompute_ns(node)


def _again(node: Node, costs: SavingCosts) -> int:
    if node.op == "placeholder":
        return FOREVER
    if op_name(node) == "pack_bits":
        return 1  # a recomputed mask is read as it is
    return int(min(max(costs.recompute_ns(node), 1), FOREVER / 2))


def _capacities(ns: NDArray[np.float64]) -> NDArray[np.float64]:
    """Nanoseconds as integers that the flow solver takes, at least one: ties keep less."""
    return np.trunc(np.clip(ns, 1, FOREVER / 2))


def _clone(graph: Graph, forward: set[Node], again: set[Node]) -> Graph:
    """Backward readers of a node in ``again`` read a clone that sits where it is first needed."""
    clones: dict[Node, Node] = {}

    def visit(new: Graph, node: Node, moved: Callable[[object], object]) -> Node | None:
        if node in forward:
            return None

        def read(operand: Node) -> Node:
            return clones.get(operand) or moved(operand)  # type: ignore[return-value]

        def copy(original: Node) -> Node:
            unpacked = _unpacked(original, again)
            return copy_node(new, original, read) if unpacked is None else read(unpacked)

        for each in _clones_first(node, again, clones):
            clones[each] = copy(each)
        return copy(node)

    return rebuild(graph, visit)


def _unpacked(node: Node, again: set[Node]) -> Node | None:
    """The mask behind bits that are packed again only to be unpacked."""
    packed = node.args[0] if op_name(node) == "unpack_bits" else None
    if not isinstance(packed, Node) or packed not in again:
        return None
    return cast("Node", packed.args[0])


def _clones_first(node: Node, again: set[Node], clones: Mapping[Node, Node]) -> Iterator[Node]:
    """What has to be cloned for a node, sources first; each has its clone when the next is asked.

    A sequence unrolled over time is deeper than Python's stack.
    """

    def missing(of: Node) -> list[Node]:
        unpacked = _unpacked(of, again)
        sources = of.all_input_nodes if unpacked is None else [unpacked]
        return [each for each in sources if each in again and each not in clones]

    stack = missing(node)[::-1]
    while stack:
        if stack[-1] in clones:
            stack.pop()
        elif deeper := missing(stack[-1]):
            stack += deeper[::-1]
        else:
            yield stack.pop()


def saved_values(graph: Graph) -> list[Node]:
    """The stored forward values that calls outside the forward pass read, in order."""
    forward = forward_values(graph)
    return [
        node
        for node in calls(graph)
        if node in forward and kind_of(node) is not Kind.VIEW and _outlives(node, forward)
    ]


def _outlives(node: Node, forward: set[Node]) -> bool:
    """Whether a backward call reads the value, itself or through forward views."""
    for user in node.users:
        if user.op == "output":
            continue
        if user not in forward or (kind_of(user) is Kind.VIEW and _outlives(user, forward)):
            return True
    return False
