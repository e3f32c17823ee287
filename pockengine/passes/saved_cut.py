"""Which forward values a step keeps: a minimum cut, over arrays, for a byte of rising worth."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from torch.fx import Node

from pockengine.ir.graph import kind_of, op_name, role_of, type_of
from pockengine.ir.ops import Kind
from pockengine.ir.types import Role
from pockengine.passes.minimum_cut import FlowNetwork

Flags = NDArray[np.bool_]
Numbers = NDArray[np.float64]
Places = NDArray[np.intp]

FREE = (Role.PARAM, Role.CONST, Role.STATE, Role.HYPER)
FOREVER = 2**30  # a capacity that no cut pays
NEVER_NS = 1e9  # work that is told as this is not to be repeated
_MOST_WORTH = 1000.0  # times the least worth of a byte
_ENOUGH = 0.9  # of what may be spent
_EXACT = 1e-6  # of a cut's cost: capacities are whole numbers
_EARLY = 0.3
"""How much dearer keeping the first forward value is told than keeping the last, as a share: values
of equal worth (the layers of a transformer) would all fall at one price, and earlier ones are kept
for longer."""


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
    work = np.array(
        [costs.recompute_ns(n) if n.op == "call_function" else 0.0 for n in nodes], np.float64
    )
    is_free = np.array([role_of(node) in FREE for node in nodes], np.bool_)
    is_placeholder = np.array([node.op == "placeholder" for node in nodes], np.bool_)
    is_bits = np.array([op_name(node) == "pack_bits" for node in nodes], np.bool_)
    is_extra = np.array([node not in needed for node in nodes], np.bool_)
    nbytes = np.array([type_of(node).nbytes for node in nodes], np.float64)
    again = np.where(is_bits, 1.0, np.clip(work, 1.0, FOREVER / 2))
    return Values(
        nbytes=np.where(is_free, 0.0, nbytes),
        made_ns=np.where(is_extra & ~is_placeholder, work, 0.0),
        again_ns=np.where(is_placeholder, FOREVER, again),
        work_ns=np.where(work < NEVER_NS, work, 0.0),
        is_view=np.array([kind_of(node) is Kind.VIEW for node in nodes], np.bool_),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Cut:
    """A minimum cut; what it costs at another worth of a byte is a line over it.

    Args:
        worth: of a byte, in nanoseconds, where the cut is least.
        again: what is computed again, of the values inside.
        spent_ns: what that takes.
        kept_bytes: the line's slope.
        made_ns: what the cut costs where bytes are worth nothing.
    """

    worth: float
    again: Flags
    spent_ns: float
    kept_bytes: float
    made_ns: float

    def cost_ns(self, worth: float) -> float:
        """What the cut costs where a byte is worth so much."""
        return self.made_ns + self.kept_bytes * worth


@dataclass(frozen=True, kw_only=True)
class SavedCut:
    """One step's forward values, those that the backward pass reads, and what they are made from.

    The cheapest choice is a minimum cut. Each forward value is an edge whose capacity is what
    keeping it costs, behind an edge from the source whose capacity is what computing it again
    costs; values that the backward pass reads lead to the sink.

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
        """What is computed again, for each share of the step's time that may go into that.

        Args:
            costs: what the values were made with.
            step_ns: what all of the step costs once.
        """
        tried: dict[float, _Cut] = {}
        found = [
            self._dearest(costs.ns_per_byte, share * step_ns, tried)
            for share in costs.recompute_shares
        ]
        return [
            Again(places=frozenset(self.inside[cut.again].tolist()), ns=step_ns + cut.spent_ns)
            for cut in found
        ]

    def _dearest(self, least: float, most_ns: float, tried: dict[float, _Cut]) -> _Cut:
        """The cut of the highest worth of a byte at which no more is spent on computing again.

        What a cut costs is a line over that worth. Of two cuts, the worth at which both cost the
        same is tried next; where nothing costs less there, no cut lies between them (Eisner and
        Severance 1976).

        Args:
            least: worth of a byte, in nanoseconds.
            most_ns: that may be spent.
            tried: cuts by worth, for all searches of this scheme.
        """
        if not most_ns:
            return self._cut(least, 0.0)

        def at(worth: float) -> _Cut:
            if worth not in tried:
                tried[worth] = self._cut(worth, _EARLY)
            return tried[worth]

        low, high = at(least), at(least * _MOST_WORTH)
        if low.spent_ns > most_ns:
            return self._cut(least, 0.0)
        if high.spent_ns <= most_ns:
            return high
        while low.spent_ns < _ENOUGH * most_ns and low.kept_bytes > high.kept_bytes:
            worth = (high.made_ns - low.made_ns) / (low.kept_bytes - high.kept_bytes)
            if not low.worth < worth < high.worth:
                break
            middle = at(worth)
            if middle.cost_ns(worth) >= low.cost_ns(worth) * (1 - _EXACT):
                break
            low, high = (middle, high) if middle.spent_ns <= most_ns else (low, middle)
        return low

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

    def _cut(self, worth: float, early: float) -> _Cut:
        """What to keep where a kept byte is worth so many nanoseconds."""
        fixed = np.full(len(self.source) + len(self.read), FOREVER)
        capacities = np.concatenate([self._keep(worth, early), self._recompute, fixed])
        reached = self._network.source_side(capacities.astype(np.int32))
        again, paid = ~reached[:-2:2], reached[:-2:2] & ~reached[1:-2:2]
        values, at = self.values, self.inside[paid]
        tilted = self.scale[at] * (1 + early * (0.5 - self.rank[paid]))
        return _Cut(
            worth=worth,
            again=again,
            spent_ns=self._work_ns(again),
            kept_bytes=float((values.nbytes[at] * tilted).sum()),
            made_ns=float((values.made_ns[at] * tilted).sum() + self._recompute[again].sum()),
        )

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
