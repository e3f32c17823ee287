"""The search as a mixed-integer program: which choice gains most within the limits.

Variables, 0 or 1, of which b, y and x decide all others:

    b[k]  the biases of the last k layers are updated, exactly one of them;
    y[p]  the backward pass ends at place p, exactly one of them;
    x[i]  part i of a weight is updated, at most one of each layer's;
    z[i]  it is, and the backward pass goes further back: x[i] less y of the place that it makes;
    r[l]  the backward pass reaches layer l;
    a[l]  the biases of layer l are updated;
    g[j]  a part needs shared value j;
    h[j]  and no place has it live already;
    t     the gain, below what the amounts of b and x come to;
    M     the memory, in units of which places take up to a thousand.

Live bytes are linear in y, z and h. Of the points of the schedule only those enter that a solution
violated: few ever bind.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import Bounds, LinearConstraint, OptimizeResult, milp
from scipy.sparse import csr_array

from pockengine.contribution.aside import solver_output_aside
from pockengine.contribution.choice import Choice
from pockengine.contribution.costs import CostTable, worth
from pockengine.contribution.saturation import ADDITIVE, Saturation
from pockengine.errors import InputError

Numbers = NDArray[np.float64]
_Row = dict[int, float]

_LARGEST = 1000.0  # of the numbers in the program: the solver's tolerance is a millionth
_EXACT = 1e-9  # the gap at which a solution counts as optimal, and a limit as kept
_TOLERATED = 1e-5  # of a limit: the solver may exceed it by a little for each variable
_FREE = np.inf
_OUT_OF_TIME, _INFEASIBLE = 1, 2  # of the solver's statuses


@dataclass(frozen=True, slots=True, kw_only=True)
class Solution:
    """The best choice of a program, and what no choice within its limits exceeds."""

    choice: Choice
    bound: float


@dataclass(kw_only=True)
class Program:
    """The program of one cost table; limits and points come with each solve.

    Args:
        table: what choices cost.
        bias_amounts: what the biases of the last 0, 1, 2, ... layers add to what is gained.
        part_amounts: by index of the part; a part that is not among them is never chosen.
        rates: by name of a limit, what one of each amount takes.
        saturation: what these amounts gain together.
    """

    table: CostTable
    bias_amounts: Sequence[float]
    part_amounts: Mapping[int, float]
    rates: Mapping[str, Numbers]
    saturation: Saturation = ADDITIVE
    _rows: list[tuple[_Row, float, float]] = field(init=False, default_factory=list)
    _points: list[int] = field(init=False, default_factory=list)

    def __post_init__(self) -> None:
        """Number the variables and link them."""
        self._parts = sorted(self.part_amounts)
        wanted = set(self._parts)
        self._places = [
            index
            for index, place in enumerate(self.table.places)
            if place.ratio is None or self.table.part_of[place.layer, place.ratio] in wanted
        ]
        self._shared = [x for x in self.table.shared if wanted & set(x.parts)]
        most = max(max(place.live_bytes, default=0) for place in self.table.places)
        self._unit = max(most + self.table.kept_bytes, 1) / _LARGEST
        self._number()
        self._amounts = {name: {**self._amount_row(rates)} for name, rates in self.rates.items()}
        self._link()

    def _number(self) -> None:
        """Columns, in the order of the module's list."""
        start = self.table.layers + 1
        self._y = {place: start + rank for rank, place in enumerate(self._places)}
        start += len(self._y)
        self._x = {part: start + rank for rank, part in enumerate(self._parts)}
        self._decided = start + len(self._x)
        kinds = (self.table.layers, self.table.layers, len(self._shared), len(self._shared), 1, 1)
        ends = np.cumsum([self._decided, *kinds]).tolist()
        self._r, self._a, self._g, self._h, _, _ = map(range, ends, ends[1:])
        self._together, self._memory, self._width = ends[-3:]

    def _ends_with(self, part: int) -> int:
        """The place that the backward pass ends at if this part is the first that is updated."""
        made = self.table.parts[part]
        return self._y[self.table.place_of[made.layer, made.ratio]]

    def _link(self) -> None:
        """What makes the variables one choice."""
        table, rows = self.table, self._rows
        rows.append((dict.fromkeys(range(table.layers + 1), 1.0), 1, 1))
        rows.append((dict.fromkeys(self._y.values(), 1.0), 1, 1))
        self._link_layers()
        of_layer: dict[int, list[int]] = {}
        for part in self._parts:
            of_layer.setdefault(table.parts[part].layer, []).append(part)
        for layer, parts in of_layer.items():
            taken = {self._x[part]: 1.0 for part in parts}
            rows.append((taken, 0, 1))
            # the pass goes further back, or ends with the very part that is chosen
            ends = {self._ends_with(part): -1.0 for part in parts}
            behind = {self._r[layer - 1]: -1.0} if layer else {}
            rows.append(({**taken, **ends, **behind}, -_FREE, 0))
            rows.extend(({self._ends_with(p): 1.0, self._x[p]: -1.0}, -_FREE, 0) for p in parts)
        for needed, live, shared in zip(self._g, self._h, self._shared, strict=True):
            held = {self._y[place]: -1.0 for place in shared.places if place in self._y}
            rows.append(({needed: 1.0, live: -1.0, **held}, -_FREE, 0))
            by_layer: dict[int, _Row] = {}
            for part in set(shared.parts) & set(self._parts):
                row = by_layer.setdefault(table.parts[part].layer, {needed: -1.0})
                self._further(row, part, 1.0)
            rows.extend((row, -_FREE, 0) for row in by_layer.values())
        for slope, start in self.saturation.tangents:
            biases = {k: -slope * amount for k, amount in enumerate(self.bias_amounts)}
            added = {self._x[part]: -slope * self.part_amounts[part] for part in self._parts}
            rows.append(({self._together: 1.0, **biases, **added}, -_FREE, start))

    def _link_layers(self) -> None:
        """What is reached, and whose biases are updated, from layer to layer."""
        count = self.table.layers
        at: dict[int, list[int]] = {}
        for place in self._places:
            at.setdefault(self.table.places[place].layer, []).append(self._y[place])
        for layer in range(count):
            reached = {self._r[layer]: 1.0, **dict.fromkeys(at[layer], -1.0)}
            wide = {self._a[layer]: 1.0, count - layer: -1.0}
            if layer:
                reached[self._r[layer - 1]] = wide[self._a[layer - 1]] = -1.0
            alone = self._y[self.table.place_of[layer, None]]
            self._rows += [
                (reached, 0, 0),
                (wide, 0, 0),
                ({self._a[layer]: 1.0, self._r[layer]: -1.0}, -_FREE, 0),
                ({alone: 1.0, count - layer: -1.0}, -_FREE, 0),
            ]

    def _amount_row(self, rates: Numbers) -> _Row:
        """What each variable adds to an amount."""
        table = self.table
        row = {self._y[p]: worth(table.places[p].amounts, rates) for p in self._places}
        biases = [worth(bias.amounts, rates) for bias in table.biases]
        row |= {k: sum(biases[table.layers - k :]) for k in range(table.layers + 1)}
        for part in self._parts:
            self._further(row, part, worth(table.parts[part].amounts, rates))
        return row

    def _further(self, row: _Row, part: int, value: float) -> None:
        """Add a value times z to a row."""
        for column, sign in ((self._x[part], 1.0), (self._ends_with(part), -1.0)):
            row[column] = row.get(column, 0.0) + sign * value

    def _point_row(self, point: int) -> tuple[_Row, float, float]:
        """The memory is at least what persists and what is live at a point."""
        table = self.table
        row = {self._y[p]: table.places[p].live_bytes[point] / self._unit for p in self._places}
        kept = [bias.kept_bytes for bias in table.biases]
        row |= {k: sum(kept[table.layers - k :]) / self._unit for k in range(table.layers + 1)}
        for part in self._parts:
            made = table.parts[part]
            row[self._x[part]] = made.kept_bytes / self._unit
            live = sum(p.nbytes for p in made.pieces if p.first <= point < p.end)
            self._further(row, part, live / self._unit)
        for column, shared in zip(self._h, self._shared, strict=True):
            if shared.piece.first <= point < shared.piece.end:
                row[column] = shared.piece.nbytes / self._unit
        row[self._memory] = -1.0
        return row, -_FREE, -table.kept_bytes / self._unit

    def best(
        self, memory_bytes: float | None, limits: Mapping[str, float], seconds: float
    ) -> Solution | None:
        """The choice of most gain; None where there is none within the limits.

        Args:
            memory_bytes: the limit on it; None for none.
            limits: on amounts, by the names of ``rates``.
            seconds: after which the best so far is taken; its bound says how far off it may be.
        """
        objective = np.zeros(self._width)
        objective[self._together] = 1.0
        return self._solve(-objective, memory_bytes, limits, seconds)

    def least(
        self,
        wanted: str,
        gain: float,
        memory_bytes: float | None,
        limits: Mapping[str, float],
        seconds: float,
    ) -> Choice | None:
        """The choice of least memory (``"memory"``) or amount of at least a gain."""
        objective = np.zeros(self._width)
        aim = {self._memory: 1.0}
        if wanted != "memory":
            aim = self._amounts[wanted]
            aim = _scaled(aim, 1 / max((abs(x) for x in aim.values()), default=1.0))
        objective[list(aim)] = list(aim.values())
        row = ({self._together: 1.0}, gain, _FREE)
        found = self._solve(objective, memory_bytes, limits, seconds, row=row, wanted=wanted)
        return None if found is None else found.choice

    def _limited(self, limits: Mapping[str, float]) -> list[tuple[_Row, float, float]]:
        """Rows of like size whatever their unit is, as the solver's tolerance is absolute."""
        scales = {name: abs(limit) or 1.0 for name, limit in limits.items()}
        return [
            (_scaled(self._amounts[name], 1 / scale), -_FREE, limits[name] / scale)
            for name, scale in scales.items()
        ]

    def _solve(
        self,
        objective: Numbers,
        memory_bytes: float | None,
        limits: Mapping[str, float],
        seconds: float,
        *,
        row: tuple[_Row, float, float] | None = None,
        wanted: str = "",
    ) -> Solution | None:
        """Solves with what is known so far, and again with what the solution violates.

        Args:
            objective: by variable, what is to be least.
            memory_bytes: the limit on memory; None for none.
            limits: on amounts.
            seconds: of each time.
            row: one more.
            wanted: what is to be least where that is ``"memory"``.
        """
        always, aimed = wanted == "memory", dict(limits)
        more = [] if row is None else [row]
        lower, upper = np.zeros(self._width), np.ones(self._width)
        lower[self._together], upper[self._together] = -_FREE, _FREE
        upper[self._memory] = _FREE if memory_bytes is None else memory_bytes / self._unit
        bounds = Bounds(lower, upper)
        while True:
            points = self._points if always or memory_bytes is not None else []
            rows = [*self._limited(aimed), *more, *map(self._point_row, points)]
            every = [*self._rows, *rows]
            whole = np.arange(self._width) < self._decided
            found = _solved(objective, every, whole=whole, bounds=bounds, seconds=seconds)
            if found is None:
                return None
            choice = self._choice(found.x)
            solution = Solution(choice=choice, bound=-float(found.mip_dual_bound))
            limit = found.x[self._memory] * self._unit if always else memory_bytes
            over = self._over(choice, limits)
            for name, excess in over.items():  # which the solver tolerated
                aimed[name] -= max(excess, _TOLERATED * abs(limits[name]))
            if not over and (limit is None or not self._violated(choice, limit)):
                return solution

    def _over(self, choice: Choice, limits: Mapping[str, float]) -> dict[str, float]:
        """By how much a choice exceeds limits on amounts."""
        excess = {n: self.table.amount(choice, self.rates[n]) - most for n, most in limits.items()}
        return {name: x for name, x in excess.items() if x > _EXACT * abs(limits[name])}

    def _violated(self, choice: Choice, limit: float) -> bool:
        """Whether a choice needs more; where it does, its worst points are remembered."""
        if self.table.memory_bytes(choice) <= limit + 0.5:
            return False
        live = self.table.live_bytes(choice)
        worst = int(live.argmax())
        if worst in self._points:
            return False  # within the solver's tolerance
        self._points.append(worst)
        return True

    def _choice(self, values: Numbers) -> Choice:
        biases = int(np.argmax(values[: self.table.layers + 1]))
        parts = [self.table.parts[part] for part, column in self._x.items() if values[column] > 0.5]
        return Choice(biases, {part.layer: part.ratio for part in parts})


def _solved(
    objective: Numbers,
    rows: Sequence[tuple[_Row, float, float]],
    *,
    whole: NDArray[np.bool_],
    bounds: Bounds,
    seconds: float,
) -> OptimizeResult | None:
    """The solver's answer, None where there is no choice: an answer it owes is not "none".

    HiGHS ends one program in some ten thousand with "solve error", as it cannot carry a solution
    of what presolve left back; without presolve it solves them.
    """
    found = None
    for presolve in (True, False):
        with solver_output_aside():
            found = milp(
                objective,
                integrality=whole,
                bounds=bounds,
                constraints=_constraint(rows, len(whole)),
                options={"mip_rel_gap": _EXACT, "time_limit": seconds, "presolve": presolve},
            )
        if found.x is not None:
            return found
        if found.status == _INFEASIBLE:
            return None
        if found.status == _OUT_OF_TIME:
            break
    assert found is not None
    raise InputError(
        where="search",
        found=f"no choice after {seconds:g} s: {found.message}",
        needed="an answer of the solver",
        remedy="Limit fewer costs, or profile fewer ratios",
    )


def _scaled(row: _Row, factor: float) -> _Row:
    return {column: value * factor for column, value in row.items()}


def _constraint(rows: Sequence[tuple[_Row, float, float]], width: int) -> LinearConstraint:
    """Sparse rows with their bounds."""
    counts = [len(row) for row, _, _ in rows]
    columns = [column for row, _, _ in rows for column in row]
    values = [value for row, _, _ in rows for value in row.values()]
    matrix = csr_array((values, columns, np.r_[0, np.cumsum(counts)]), shape=(len(rows), width))
    return LinearConstraint(matrix, [low for _, low, _ in rows], [high for _, _, high in rows])
