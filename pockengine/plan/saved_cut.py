"""The choice of ``passes.choose_saved`` over arrays, for costing schemes by the dozen.

The same minimum cut with the same capacities, its edges laid out once a scheme; the tests hold the
two against each other.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from torch.fx import Node

from pockengine.ir.graph import kind_of, op_name, role_of, type_of
from pockengine.ir.ops import Kind
from pockengine.passes.choose_saved import (
    FOREVER,
    FREE,
    NEVER_NS,
    SavingCosts,
    highest_rank,
)
from pockengine.passes.minimum_cut import FlowNetwork

Flags = NDArray[np.bool_]
Numbers = NDArray[np.float64]
Places = NDArray[np.intp]


@dataclass(frozen=True, slots=True, kw_only=True)
class Again:
    """What a step computes again.

    Args:
        places: in the graph.
        ns: of all the step with it.
    """

    places: frozenset[int]
    ns: float


@dataclass(frozen=True, kw_only=True)
class Values:
    """The nodes of a graph as a cut sees them, one element each.

    Args:
        nbytes: what keeping one takes; 0 of parameters and the like, which are kept anyway.
        made_ns: what making one costs that only the backward pass reads.
        again_ns: what computing one again costs.
        work_ns: what computing one costs, 0 where it is never repeated.
        is_view: whether what it shows has to be kept instead.
    """

    nbytes: Numbers
    made_ns: Numbers
    again_ns: Numbers
    work_ns: Numbers
    is_view: Flags

    @cached_property
    def is_free(self) -> Flags:
        """What is kept at no cost: no cut asks for it."""
        found: Flags = (self.nbytes == 0) & (self.made_ns == 0)
        return found


def values_of(nodes: list[Node], needed: set[Node], costs: SavingCosts) -> Values:
    """The nodes as a cut sees them; ``needed`` is what the loss needs."""
    work = np.array([costs.recompute_ns(n) if n.op == "call_function" else 0.0 for n in nodes])
    is_free = np.array([role_of(node) in FREE for node in nodes])
    is_placeholder = np.array([node.op == "placeholder" for node in nodes])
    is_bits = np.array([op_name(node) == "pack_bits" for node in nodes])
    is_extra = np.array([node not in needed for node in nodes])
    nbytes = np.array([type_of(node).nbytes for node in nodes], np.float64)
    again = np.where(is_bits, 1.0, np.clip(work, 1.0, FOREVER / 2))
    return Values(
        nbytes=np.where(is_free, 0.0, nbytes),
        made_ns=np.where(is_extra & ~is_placeholder, work, 0.0),
        again_ns=np.where(is_placeholder, FOREVER, again),
        work_ns=np.where(work < NEVER_NS, work, 0.0),
        is_view=np.array([kind_of(node) is Kind.VIEW for node in nodes]),
    )


@dataclass(frozen=True, kw_only=True)
class SavedCut:
    """One scheme's forward values, those that the backward pass reads, and what they are made from.

    Args:
        values: of the whole graph.
        scale: how much of each is left.
        inside: the forward values that are not free, as places among them, in order.
        rank: where each lies among all forward values, from 0 to 1.
        source: for each operand of one of them, the operand, as a place in ``inside``.
        reader: and the reader likewise.
        read: those that the backward pass reads, likewise.
    """

    values: Values
    scale: Numbers
    inside: Places
    rank: Numbers
    source: Places
    reader: Places
    read: Places

    def again(self, costs: SavingCosts, step_ns: float) -> list[Again]:
        """What is computed again for each share of the step's time that may go into that.

        Args:
            costs: what the values were made with.
            step_ns: what all of the step costs once.
        """
        cuts: dict[int, Flags] = {}
        known: dict[int, float] = {}

        def spent(rank: int) -> float:
            if rank not in known:
                cuts[rank] = self._cut(*costs.price(rank))
                known[rank] = self._work_ns(cuts[rank])
            return known[rank]

        ranks = {
            highest_rank(spent, share * step_ns) if share else 0 for share in costs.recompute_shares
        }
        return [
            Again(ns=step_ns + spent(rank), places=frozenset(self.inside[cuts[rank]].tolist()))
            for rank in sorted(ranks)
        ]

    def _work_ns(self, again: Flags) -> float:
        """What the backward pass computes again of what may be."""
        needed = np.zeros(len(self.inside), np.bool_)
        needed[self.read] = again[self.read]
        edge = again[self.source] & again[self.reader]
        source, reader = self.source[edge][::-1], self.reader[edge][::-1]
        for above, below in zip(source.tolist(), reader.tolist(), strict=True):
            needed[above] |= needed[below]  # readers come later: their edges are seen first
        work = self.values.work_ns[self.inside] * self.scale[self.inside]
        return float(work[needed].sum())

    def _cut(self, worth: float, early: float) -> Flags:
        """Which values to compute again where a kept byte is worth so many nanoseconds."""
        fixed = np.full(len(self.source) + len(self.read), FOREVER)
        capacities = np.concatenate([self._keep(worth, early), self._recompute, fixed])
        kept = self._network.source_side(capacities.astype(np.int32))
        found: Flags = ~kept[:-2:2]
        return found

    @cached_property
    def _network(self) -> FlowNetwork:
        """Value ``i`` is the edge from ``2 * i`` to ``2 * i + 1``."""
        count, places = len(self.inside), np.arange(len(self.inside))
        source, sink = 2 * count, 2 * count + 1
        tails = (2 * places, np.full(count, source), 2 * self.source + 1, 2 * self.read + 1)
        heads = (2 * places + 1, 2 * places, 2 * self.reader, np.full(len(self.read), sink))
        return FlowNetwork(np.concatenate(tails), np.concatenate(heads), sink + 1)

    def _keep(self, worth: float, early: float) -> Numbers:
        """Capacities of keeping; those of earlier values count for more."""
        values, at = self.values, self.inside
        ns = (values.nbytes[at] * worth + values.made_ns[at]) * self.scale[at]
        paid = np.clip(ns, 1, FOREVER / 2)
        paid = np.where(paid < FOREVER / 2, paid * (1 + early * (0.5 - self.rank)), paid)
        result: Numbers = np.minimum(np.where(values.is_view[at], FOREVER, paid), FOREVER)
        return result

    @cached_property
    def _recompute(self) -> Numbers:
        """Capacities of computing again."""
        ns = self.values.again_ns[self.inside]
        return np.where(ns < FOREVER / 2, np.maximum(ns * self.scale[self.inside], 1), ns)
