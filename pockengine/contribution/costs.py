"""What choices cost, as plain data: memory over the schedule, work, and what persists.

The cost of a choice is that of where its backward pass ends, and what each further weight adds to
that. So a table of these parts stands for any number of choices, and can be searched without the
model.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from pockengine.contribution.choice import Choice
from pockengine.errors import InputError

Bytes = NDArray[np.int64]
Amounts = tuple[float, ...]
"""How much a step computes and moves, in the order of ``plan.amounts``; empty where not known."""

_FORMAT, _VERSION = "pockengine.costs", 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where the backward pass ends.

    Args:
        layer: the first that is updated; the number of layers where only the head is.
        ratio: the part of its weight that is updated; None where only its biases are.
        live_bytes: of transient values, by point of the schedule, with no other weight updated.
        amounts: of the whole step, with neither other weights nor biases updated.
    """

    layer: int
    ratio: float | None
    live_bytes: tuple[int, ...]
    amounts: Amounts


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """Bytes that are live from point ``first`` up to point ``end``, which is not among them."""

    first: int
    end: int
    nbytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """What a part of a weight adds where the backward pass goes further back than its layer.

    Args:
        layer: its index.
        ratio: the part.
        kept_bytes: of the parameter, its optimizer's state and constants; wherever the pass ends.
        pieces: of transient values.
        amounts: of work.
    """

    layer: int
    ratio: float
    kept_bytes: int
    pieces: tuple[Piece, ...]
    amounts: Amounts


@dataclass(frozen=True, slots=True, kw_only=True)
class Bias:
    """What a layer's biases add where the backward pass reaches the layer: as of ``Part``."""

    kept_bytes: int
    amounts: Amounts


@dataclass(frozen=True, slots=True, kw_only=True)
class Shared:
    """A value that several weights need: it is live if any of them is updated.

    Args:
        piece: when, and its bytes.
        parts: indices of those that need it, unless the backward pass ends with them.
        places: indices of those whose ``live_bytes`` have it already.
    """

    piece: Piece
    parts: tuple[int, ...]
    places: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class CostTable:
    """Costs of all choices of a model.

    Args:
        layers: how many, without the head.
        places: where the backward pass may end.
        parts: of weights.
        biases: by layer.
        shared: what several parts need.
        kept_bytes: parameters, state and constants with only the head updated.
    """

    layers: int
    places: tuple[Place, ...]
    parts: tuple[Part, ...]
    biases: tuple[Bias, ...]
    shared: tuple[Shared, ...] = ()
    kept_bytes: int = 0

    def memory_bytes(self, choice: Choice) -> int:
        """Persistent bytes and the most transient ones that are live at once."""
        kept = self.kept_bytes + sum(bias.kept_bytes for bias in self._biases(choice))
        kept += sum(self.parts[index].kept_bytes for index in self._chosen(choice))
        return kept + int(self.live_bytes(choice).max(initial=0))

    def live_bytes(self, choice: Choice) -> Bytes:
        """Transient bytes by point of the schedule."""
        place = self._place(choice)
        live = np.array(self.places[place].live_bytes, np.int64)
        parts = self._further(choice)
        shared = [x for x in self.shared if parts & set(x.parts) and place not in x.places]
        pieces = [piece for index in parts for piece in self.parts[index].pieces]
        for piece in (*pieces, *(x.piece for x in shared)):
            live[piece.first : piece.end] += piece.nbytes
        return live

    def amount(self, choice: Choice, rates: NDArray[np.float64]) -> float:
        """The work of a step at so much for each amount; InputError where that is not known."""
        biases = [bias.amounts for bias in self._biases(choice)]
        parts = [self.parts[index].amounts for index in self._further(choice)]
        place = self.places[self._place(choice)].amounts
        return sum(worth(amounts, rates) for amounts in (place, *biases, *parts))

    def to_json(self) -> str:
        """All of it as a JSON document; of a place's bytes, what differs from the place before."""
        document: dict[str, Any] = {"format": _FORMAT, "version": _VERSION, **asdict(self)}
        before: tuple[int, ...] = ()
        for place in document["places"]:
            live = place["live_bytes"]
            changes = [
                [point, nbytes]
                for point, nbytes in enumerate(live)
                if point >= len(before) or before[point] != nbytes
            ]
            place["live_bytes"], before = changes, live
        return json.dumps(document) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Self:
        """The table that ``to_json`` wrote.

        Raises:
            InputError: it is none, or one of another version.
        """
        document = _parsed(text)
        live: list[int] = []
        places = []
        for place in document["places"]:
            for point, nbytes in place["live_bytes"]:
                live[point : point + 1] = [nbytes]
            places.append(Place(**{**_tuples(place), "live_bytes": tuple(live)}))
        return cls(
            layers=document["layers"],
            places=tuple(places),
            parts=tuple(
                Part(**{**_tuples(x), "pieces": tuple(Piece(**y) for y in x["pieces"])})
                for x in document["parts"]
            ),
            biases=tuple(Bias(**_tuples(x)) for x in document["biases"]),
            shared=tuple(
                Shared(**{**_tuples(x), "piece": Piece(**x["piece"])}) for x in document["shared"]
            ),
            kept_bytes=document["kept_bytes"],
        )

    @cached_property
    def place_of(self) -> Mapping[tuple[int, float | None], int]:
        """Index of a place by layer and ratio."""
        return {(place.layer, place.ratio): index for index, place in enumerate(self.places)}

    @cached_property
    def part_of(self) -> Mapping[tuple[int, float], int]:
        """Index of a part by layer and ratio."""
        return {(part.layer, part.ratio): index for index, part in enumerate(self.parts)}

    def _biases(self, choice: Choice) -> Iterable[Bias]:
        return self.biases[self.layers - choice.biases :]

    def _chosen(self, choice: Choice) -> set[int]:
        unknown = [part for part in choice.weights.items() if part not in self.part_of]
        if unknown:
            raise InputError(
                where=f"choice of layer {unknown[0][0]} at ratio {unknown[0][1]}",
                found="no such part in the cost table",
                needed="a layer and a ratio that it has",
                remedy="Ask for one of those that were measured",
            )
        return {self.part_of[part] for part in choice.weights.items()}

    def _place(self, choice: Choice) -> int:
        layer = choice.first(self.layers)
        return self.place_of[layer, choice.weights.get(layer)]

    def _further(self, choice: Choice) -> set[int]:
        """The parts besides the one that the backward pass ends with."""
        first = choice.first(self.layers)
        return {index for index in self._chosen(choice) if self.parts[index].layer != first}


def worth(amounts: Amounts, rates: NDArray[np.float64]) -> float:
    """Amounts at so much each.

    Raises:
        InputError: the amounts are not known.
    """
    if not amounts:
        raise InputError(
            where="cost table",
            found="no amounts of work",
            needed="them, to limit time or energy",
            remedy="Limit the memory only, or take the table of a captured model",
        )
    return float(np.dot(amounts, rates))


def _tuples(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: tuple(x) if isinstance(x, list) else x for name, x in values.items()}


def _parsed(text: str) -> dict[str, Any]:
    try:
        document = json.loads(text)
    except ValueError:
        document = None
    if not isinstance(document, dict) or document.get("format") != _FORMAT:
        found = "no such document"
    elif document.get("version") != _VERSION:
        found = f"version {document.get('version')!r}"
    else:
        return document
    raise InputError(
        where="cost table JSON",
        found=found,
        needed=f"a {_FORMAT} document of version {_VERSION}",
        remedy="Write one with CostTable.to_json()",
    )
