"""The cost table of a captured model: what choices cost, from one capture."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from torch import nn
from torch.fx import Graph

from pockengine.contribution.choice import RATIOS, Choice
from pockengine.contribution.costs import Amounts, Bias, CostTable, Part, Piece, Place, Shared
from pockengine.contribution.layers import Layer
from pockengine.optimizer import Optimizer
from pockengine.plan.costs import saving_costs
from pockengine.plan.scheme_costs import SchemeCosts
from pockengine.plan.scheme_memory import Lives, SchemeMemory
from pockengine.targets import Target

_Spans = dict[int, tuple[int, int, int]]
"""First point, end and bytes of each transient value."""
_Found = list[tuple[int, int, Piece]]
"""Part, value and when it is live because of it."""


class ChoiceCosts:
    """Costs of the choices of one captured model: seconds to set up, milliseconds a choice.

    Args:
        graph: the joint graph of all parameters, as captured.
        model: the module that was captured.
        layers: of the model, in the order of the forward pass.
        head: canonical names of the head's parameters.
        optimizer: decides the state.
        target: decides alignment, what is worth keeping, and whether constants lie in flash.
    """

    def __init__(
        self,
        graph: Graph,
        model: nn.Module,
        *,
        layers: Sequence[Layer],
        head: Sequence[str],
        optimizer: Optimizer,
        target: Target,
    ) -> None:
        self.layers, self.head = tuple(layers), tuple(head)
        self._counts_const = target.flash_bytes is None
        saving = saving_costs(target)
        costs = SchemeCosts(
            graph,
            model,
            optimizer=optimizer,
            costs=saving,
            alignment_bytes=target.alignment_bytes,
        )
        self._memory = SchemeMemory(costs, alignment_bytes=target.alignment_bytes)

    @property
    def points(self) -> int:
        """Of the schedule."""
        return self._memory.points

    def memory_bytes(self, choice: Choice) -> int:
        """Working memory that a choice needs, of its own scheme and not by a table."""
        lives = self._lives(choice)
        return self.kept_bytes(lives) + lives.peak_bytes

    def table(self, ratios: Sequence[float] = RATIOS) -> CostTable:
        """The costs of all choices: of places, of parts of weights, of biases.

        A step computes again what it did not keep as long as that takes little of its time, which a
        part cannot tell by itself. So a table is told of steps that compute nothing again but what
        is cheaper than keeping it: the more a choice updates, the less else there is time for.
        """
        return _Builder(self, ratios).table()

    def _lives(self, choice: Choice) -> Lives:
        return self._memory.lives(choice.scheme(self.layers, self.head))

    def alike(self, choice: Choice) -> Lives:
        """A choice's values where all choices keep the same: what the table is made of."""
        return self.alike_by_names(choice.scheme(self.layers, self.head))

    def alike_by_names(self, scheme: Mapping[str, float]) -> Lives:
        """As ``alike``, of a scheme."""
        return self._memory.lives_at_least(scheme)

    def kept_bytes(self, lives: Lives) -> int:
        """Parameters and state, and constants where they are in working memory."""
        cost = lives.walk.cost
        const = cost.const_bytes if self._counts_const else 0
        return cost.param_bytes + cost.state_bytes + const


@dataclass(frozen=True, slots=True)
class _Sketch:
    """A place or a part before points are gathered."""

    layer: int
    ratio: float | None
    spans: _Spans
    amounts: np.ndarray[tuple[int], np.dtype[np.float64]]
    kept_bytes: int


class _Builder:
    """Sketches of all places and parts, and the table of them."""

    def __init__(self, costs: ChoiceCosts, ratios: Sequence[float]) -> None:
        self._costs, self._count = costs, len(costs.layers)
        self._ratios = [
            tuple(r for r in ratios if r == 1 or layer.sliceable) for layer in costs.layers
        ]
        self._points = costs.points
        self._ends: dict[int, Lives] = {}
        count = self._count
        for biases in range(count + 1):
            self._ends[count - biases] = self._costs.alike(Choice(biases))
        self._biases = [self._bias(layer) for layer in range(count)]
        self._parts = [self._part(layer, r) for layer in range(count) for r in self._ratios[layer]]

    def table(self) -> CostTable:
        """The table, its points gathered into stretches in which no part begins or ends."""
        places = self._places()
        own, shared = self._divided(places)
        pieces = [piece for _, _, piece in (*own, *((0, 0, x.piece) for x in shared))]
        cuts = sorted({0, *(x.first for x in pieces), *(x.end for x in pieces)} - {self._points})
        rank = {cut: index for index, cut in enumerate([*cuts, self._points])}

        def ranked(piece: Piece) -> Piece:
            return Piece(first=rank[piece.first], end=rank[piece.end], nbytes=piece.nbytes)

        of_part: list[list[Piece]] = [[] for _ in self._parts]
        for index, _, piece in own:
            of_part[index].append(ranked(piece))
        return CostTable(
            layers=self._count,
            places=tuple(
                Place(
                    layer=place.layer,
                    ratio=place.ratio,
                    live_bytes=tuple(
                        np.maximum.reduceat(_live(place.spans, self._points), cuts).tolist()
                    ),
                    amounts=_plain(place.amounts),
                )
                for place in places
            ),
            parts=tuple(
                Part(
                    layer=part.layer,
                    ratio=part.ratio or 0.0,
                    kept_bytes=part.kept_bytes,
                    pieces=tuple(found),
                    amounts=_plain(part.amounts),
                )
                for part, found in zip(self._parts, of_part, strict=True)
            ),
            biases=tuple(self._biases),
            shared=tuple(
                Shared(piece=ranked(x.piece), parts=x.parts, places=x.places) for x in shared
            ),
            kept_bytes=self._costs.kept_bytes(self._ends[self._count]),
        )

    def _bias(self, layer: int) -> Bias:
        """Bytes by what one layer more adds; work by what is left without this one's biases."""
        one, other = self._ends[layer], self._ends[layer + 1]
        names = self._costs.layers[layer].biases
        amounts = np.zeros_like(one.amounts)
        deepest = self._ends[0]
        if names and any(x.biases for x in self._costs.layers[:layer]):
            full = dict(Choice(self._count).scheme(self._costs.layers, self._costs.head))
            rest = {name: part for name, part in full.items() if name not in names}
            amounts = deepest.amounts - self._costs.alike_by_names(rest).amounts
        return Bias(
            kept_bytes=self._costs.kept_bytes(one) - self._costs.kept_bytes(other),
            amounts=_plain(amounts),
        )

    def _places(self) -> list[_Sketch]:
        """The head, and of each layer its biases alone and with each part of its weight."""
        found = []
        for layer in range(self._count, -1, -1):
            biases = sum((np.array(x.amounts) for x in self._biases[layer:]), np.zeros(1))
            end = self._ends[layer]
            found.append(_Sketch(layer, None, _spans(end), end.amounts - biases, 0))
            for ratio in self._ratios[layer] if layer < self._count else ():
                choice = Choice(self._count - layer, {layer: ratio})
                lives = self._costs.alike(choice)
                found.append(_Sketch(layer, ratio, _spans(lives), lives.amounts - biases, 0))
        return found

    def _part(self, layer: int, ratio: float) -> _Sketch:
        """What a part adds to the latest place that is further back."""
        behind = next((x for x in range(layer - 1, -1, -1) if self._costs.layers[x].biases), None)
        if behind is not None:
            without = self._ends[behind]
            choice = Choice(self._count - behind, {layer: ratio})
        else:
            under = {layer - 1: 1.0} if layer else {}
            biases = self._count - layer
            without = self._costs.alike(Choice(biases, under))
            choice = Choice(biases, {**under, layer: ratio})
        lives = self._costs.alike(choice)
        return _Sketch(
            layer,
            ratio,
            _added(_spans(lives), _spans(without)),
            lives.amounts - without.amounts,
            self._costs.kept_bytes(lives) - self._costs.kept_bytes(without),
        )

    def _divided(self, places: Sequence[_Sketch]) -> tuple[_Found, list[Shared]]:
        """Pieces of single layers, and those that several layers have of one value."""
        by_value: dict[int, _Found] = {}
        for index, part in enumerate(self._parts):
            for key, (first, end, nbytes) in part.spans.items():
                piece = Piece(first=first, end=end, nbytes=nbytes)
                by_value.setdefault(key >> 2, []).append((index, key >> 2, piece))
        own: _Found = []
        shared: list[Shared] = []
        for value, found in by_value.items():
            if len({self._parts[index].layer for index, _, _ in found}) == 1:
                own += found
            else:
                lost = [each for each in found if each[2].nbytes < 0]
                own += lost
                gained = [each for each in found if each[2].nbytes > 0]
                shared += _in_common(value, gained, places)
        return own, shared


def _in_common(value: int, found: _Found, places: Sequence[_Sketch]) -> list[Shared]:
    """A value of several parts, cut where one of them begins or ends to need it."""
    cuts = sorted({x for _, _, piece in found for x in (piece.first, piece.end)})
    result = []
    for first, end in pairwise(cuts):
        over = [(i, p) for i, _, p in found if p.first <= first and end <= p.end]
        held = [
            index
            for index, place in enumerate(places)
            if value in place.spans
            and place.spans[value][0] <= first
            and end <= place.spans[value][1]
        ]
        if over:
            nbytes = max(piece.nbytes for _, piece in over)
            piece = Piece(first=first, end=end, nbytes=nbytes)
            parts = tuple(sorted({index for index, _ in over}))
            result.append(Shared(piece=piece, parts=parts, places=tuple(held)))
    return result


def _spans(lives: Lives) -> _Spans:
    columns = (lives.value, lives.first, lives.last + 1, lives.nbytes)
    rows = zip(*(column.tolist() for column in columns), strict=True)
    return {value: (first, end, nbytes) for value, first, end, nbytes in rows}


def _added(new: _Spans, old: _Spans) -> _Spans:
    """What is live longer, or at all, and with negative bytes what no longer is.

    Keys are four times the value's, and which stretch of it.
    """
    found: _Spans = {}
    for value in new.keys() | old.keys():
        first, end, nbytes = new.get(value, (0, 0, 0))
        first_old, end_old, nbytes_old = old.get(value, (0, 0, 0))
        if (first, end, nbytes) == (first_old, end_old, nbytes_old):
            continue
        if (first, nbytes) == (first_old, nbytes_old):
            sign = 1 if end > end_old else -1
            found[4 * value] = (min(end, end_old), max(end, end_old), sign * nbytes)
            continue
        if nbytes and end > first:
            found[4 * value + 1] = (first, end, nbytes)
        if nbytes_old and end_old > first_old:
            found[4 * value + 2] = (first_old, end_old, -nbytes_old)
    return found


def _live(spans: _Spans, points: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    change = np.zeros(points + 1, np.int64)
    for first, end, nbytes in spans.values():
        change[first] += nbytes
        change[end] -= nbytes
    return np.cumsum(change)[:-1]


def _plain(amounts: Iterable[float]) -> Amounts:
    return tuple(float(x) for x in amounts)
