"""The search for a packing within a capacity: depth first over corners, with restarts.

No solver package is imported: on instances of hundreds of buffers at 100 % occupancy, a search
over corners finds a packing in milliseconds to seconds, where a mixed-integer program takes hours.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from pockengine.plan.skyline import Corner, Skyline, Span

_CLOCK_EVERY = 256
_WASTE = -1
_COMPLETE_EVERY = 16
_EXPONENTS = (0.0, 0.0, 0.0, 0.3, 1.0)
_LIFTS = (0.1, 0.3, 0.6, 1.0, 0.2)  # by restart, see Skyline
_PATIENCE = (2, 2, 2, 2, 2, 8)  # nodes per span, by restart

# A window of sections with the height of the choice stack it was opened at, and the ones behind it.
Agenda = tuple[int, int, int, "Agenda | None"]


class Outcome(NamedTuple):
    """Offsets per span, or None; ``proved`` says that no packing exists; nodes visited."""

    offsets: list[int] | None
    proved: bool
    nodes: int


@dataclass(slots=True)
class _Choice:
    """A corner and what is yet to be tried in it, last one first.

    ``touched`` are the sections that the present alternative changes, ``blame`` those that decide
    why the ones before it failed; both as bits.
    """

    mark: int
    agenda: Agenda
    corner: Corner
    untried: list[int]
    touched: int = 0
    blame: int = 0


class _ExhaustedError(Exception):
    """The node or time limit of one descent is reached."""


def search(
    spans: Sequence[Span],
    length: int,
    capacity: int,
    *,
    first_restart: int = 0,
    restarts: int,
    nodes: int,
    deadline: float = math.inf,
) -> Outcome:
    """Packs ``spans`` below ``capacity``, or gives up after ``restarts`` or ``nodes``.

    Restart k reverses time when odd and changes the order in which spans are tried in a corner, how
    readily gaps are left and how many nodes are allowed; now and then one is complete. The result
    is a function of the arguments unless the ``deadline`` (of time.monotonic) cuts it short.
    """
    used = 0
    for restart in range(first_restart, first_restart + restarts):
        patience = _PATIENCE[restart % len(_PATIENCE)]
        allowed = min(nodes - used, patience * len(spans) + 50)
        if allowed <= 0 or time.monotonic() >= deadline:
            break
        mirrored = restart % 2 == 1
        turned = [(length - end, length - start, size) for start, end, size in spans]
        view = turned if mirrored else list(spans)
        leap = restart % _COMPLETE_EVERY != 3
        lift = _LIFTS[restart % len(_LIFTS)]
        skyline = Skyline(view, length, capacity, _priority(view, restart), leap=leap, lift=lift)
        if skyline.overfull():
            return Outcome(None, True, used)
        descent = _Descent(skyline, length, allowed, deadline)
        try:
            solved = descent.run()
        except _ExhaustedError:
            used += descent.nodes
            continue
        used += descent.nodes
        if solved:
            return Outcome(skyline.offsets, False, used)
        if not leap:
            return Outcome(None, True, used)
    return Outcome(None, False, used)


def _priority(spans: Sequence[Span], restart: int) -> list[float]:
    """What to try first: large, then of large area, then long, then mixtures with noise."""
    if restart < 2:
        return [float(size) for _, _, size in spans]
    if restart < 4:
        return [float(size * (end - start)) for start, end, size in spans]
    if restart < 6:
        return [float(end - start) for start, end, _ in spans]
    rng = random.Random(restart)  # noqa: S311 - reproducible search, not secrecy
    power = rng.choice(_EXPONENTS)
    return [size * (end - start) ** power * rng.uniform(0.5, 1.5) for start, end, size in spans]


class _Descent:
    """One depth-first search with backjumping inside independent windows of time.

    A dead end blames the sections around it; choices that touched none of them are dropped without
    a look at their alternatives (conflict-directed backjumping; Prosser, 1993).

    Where no unplaced span crosses a boundary, the two sides no longer touch: each becomes a window
    of its own, and once a window is packed its remaining alternatives are dropped.
    """

    def __init__(self, skyline: Skyline, length: int, allowed: int, deadline: float) -> None:
        self.nodes = 0
        self._skyline = skyline
        self._allowed = allowed
        self._deadline = deadline
        self._choices: list[_Choice] = []
        idle = [k for k in range(1, length) if not skyline.crossing[k]]
        self._agenda = self._split((0, length, 0, None), idle)

    def run(self) -> bool:
        """True when all spans are placed, False when the alternatives are used up.

        Raises:
            _ExhaustedError: the limit of nodes or time is reached first.
        """
        while True:
            self._count()
            first, last, _, behind = self._agenda
            corner = self._skyline.best_corner(first, last)
            if corner is None:
                if behind is None:
                    return True
                self._agenda = behind
                del self._choices[behind[2] :]
                continue
            if corner.candidates or corner.may_waste:
                self._choices.append(self._choice(corner))
            else:
                self._blame(corner.scope)
            if not self._advance():
                return False

    def _count(self) -> None:
        self.nodes += 1
        if self.nodes > self._allowed:
            raise _ExhaustedError
        if self.nodes % _CLOCK_EVERY == 0 and time.monotonic() >= self._deadline:
            raise _ExhaustedError

    def _choice(self, corner: Corner) -> _Choice:
        """The alternatives of a corner; spans alike in all are tried once, exact ones first."""
        spans = self._skyline.spans
        distinct = {spans[index]: index for index in reversed(corner.candidates)}
        kept = set(distinct.values())
        untried = [index for index in reversed(corner.candidates) if index in kept]
        untried.sort(key=lambda index: spans[index][:2] == (corner.start, corner.end))
        if corner.may_waste:
            exact = untried and spans[untried[-1]][:2] == (corner.start, corner.end)
            untried.insert(len(untried) if corner.may_lift and not exact else 0, _WASTE)
        return _Choice(self._skyline.mark(), self._agenda, corner, untried)

    def _blame(self, sections: int) -> None:
        """Drops the choices that have no part in a failure of ``sections``, and tells the next."""
        choices = self._choices
        while choices and not choices[-1].touched & sections:
            choices.pop()
        if choices:
            choices[-1].blame |= sections

    def _advance(self) -> bool:
        """Takes the next untried alternative, backing up where there is none left."""
        skyline, choices = self._skyline, self._choices
        while choices:
            choice = choices[-1]
            skyline.undo(choice.mark)
            if not choice.untried:
                choices.pop()
                self._blame(choice.blame | choice.corner.scope)
                continue
            index = choice.untried.pop()
            if index != _WASTE:
                self._agenda = self._split(choice.agenda, skyline.place(index))
            elif skyline.waste(choice.corner):
                self._agenda = choice.agenda
            else:
                continue
            choice.touched = skyline.touched(choice.mark)
            return True
        return False

    def _split(self, agenda: Agenda, boundaries: Sequence[int]) -> Agenda:
        """The front window of an agenda cut at ``boundaries``."""
        if not boundaries:
            return agenda
        first, last, _, behind = agenda
        opened = len(self._choices)
        edges = [first, *boundaries, last]
        for index in range(len(edges) - 2, -1, -1):
            behind = (edges[index], edges[index + 1], opened, behind)
        assert behind is not None
        return behind
