"""The choice that gains most within limits, and the whole front of gain against cost."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from math import inf
from typing import Literal

from pockengine.contribution.choice import Choice
from pockengine.contribution.costs import CostTable
from pockengine.contribution.measured import Sensitivity
from pockengine.contribution.milp import Program, Solution
from pockengine.errors import InputError
from pockengine.plan.amounts import energy_joules_of, step_ms_of
from pockengine.targets import Target

Check = Callable[[Choice], int]
"""The memory in bytes that a choice really needs."""
Axis = Literal["memory", "time", "energy"]

_SECONDS = 60.0
_ROUNDS = 8
_CLOSE = 0.005  # of the limit: as near to it as the table's limit is brought


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a step may take at most; None for any.

    Args:
        memory_bytes: transient and persistent bytes of working memory.
        step_ms: milliseconds.
        energy_joules: joules.
    """

    memory_bytes: int | None = None
    step_ms: float | None = None
    energy_joules: float | None = None

    @property
    def amounts(self) -> dict[str, float]:
        """Those on time and energy that are given, by axis."""
        found = {"time": self.step_ms, "energy": self.energy_joules}
        return {name: limit for name, limit in found.items() if limit is not None}

    def allow(self, found: Found) -> bool:
        """Whether a choice keeps them."""
        costs = (found.memory_bytes, found.step_ms, found.energy_joules)
        limits = (self.memory_bytes, self.step_ms, self.energy_joules)
        pairs = zip(costs, limits, strict=True)
        return all(cost is None or limit is None or cost <= limit for cost, limit in pairs)


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What a search found.

    Args:
        choice: what to update.
        gain: predicted, the sum of its parts'.
        bound: what no choice within the limits exceeds, by the same prediction and costs.
        memory_bytes: that the choice needs; as checked, where a check is given.
        step_ms: None where the target's rates are not known.
        energy_joules: likewise.
        seconds: that the search took.
    """

    choice: Choice
    gain: float
    bound: float
    memory_bytes: int
    step_ms: float | None
    energy_joules: float | None
    seconds: float


def best(
    sensitivity: Sensitivity,
    costs: CostTable,
    limits: Limits,
    *,
    target: Target | None = None,
    check: Check | None = None,
    seconds: float = _SECONDS,
) -> Found:
    """The choice of the largest predicted gain within limits, exactly; of several the leanest.

    Parts of weights that gained nothing are not chosen.

    Args:
        sensitivity: what each part gains.
        costs: what each part costs.
        limits: what a step may take.
        target: the machine whose time and energy are limited.
        check: the memory that a choice really needs. Where that is above the limit, the search
            goes on below what the table says of that choice, by as much as it was wrong.
        seconds: for each solve; one that takes longer gives its best so far.

    Raises:
        InputError: no choice is within the limits, or the target lacks a number.
    """
    search = _Search(sensitivity, costs, target, seconds)
    return search.leanest(search.best(limits, check), limits, check)


def front(
    sensitivity: Sensitivity,
    costs: CostTable,
    *,
    axis: Axis = "memory",
    limits: Limits | None = None,
    target: Target | None = None,
    most: int = 64,
    seconds: float = _SECONDS,
) -> tuple[Found, ...]:
    """Choices of which none gains more at no more cost: the front of gain against one cost.

    All of them where there are no more than can be found in ``most`` solves of gain and cost; else
    those, each of them exact, with limits that halve the widest gap in cost each time.

    Args:
        sensitivity: what each part gains.
        costs: what each part costs.
        axis: the cost.
        limits: on the other costs.
        target: the machine whose time and energy are told.
        most: how many points.
        seconds: for each solve.

    Returns:
        From the least cost to the largest gain.

    Raises:
        InputError: as ``best``.
    """
    return _Search(sensitivity, costs, target, seconds).front(axis, limits or Limits(), most)


def priced(
    sensitivity: Sensitivity,
    costs: CostTable,
    choice: Choice,
    *,
    target: Target | None = None,
    check: Check | None = None,
) -> Found:
    """What a choice that was not searched for gains and costs; its bound is its gain.

    Args:
        sensitivity: what each part gains.
        costs: what each part costs.
        choice: what is updated.
        target: the machine whose time and energy are told.
        check: the memory that a choice really needs.
    """
    return _Search(sensitivity, costs, target, _SECONDS).priced(choice, check)


class _Search:
    """One table searched several times."""

    def __init__(
        self,
        sensitivity: Sensitivity,
        costs: CostTable,
        target: Target | None,
        seconds: float,
    ) -> None:
        self._sensitivity, self._costs, self._seconds = sensitivity, costs, seconds
        self._target = target
        if len(sensitivity.layers) != costs.layers:
            raise InputError(
                where="search",
                found=f"gains of {len(sensitivity.layers)} layers, costs of {costs.layers}",
                needed="both of one model",
                remedy="Take the cost table of the model that was measured",
            )
        self._rates = {}
        if target is not None and costs.places[0].amounts:
            if target.fma_flops_per_s is not None:
                self._rates["time"] = step_ms_of(target)
            if target.joules_per_flop is not None:
                self._rates["energy"] = energy_joules_of(target)

    @cached_property
    def _program(self) -> Program:
        """What is solved; a choice that is only priced needs none."""
        sensitivity, known = self._sensitivity, self._costs.part_of
        amounts = {part: sensitivity.part_amount(*part) for part in sensitivity.weights}
        adding = {part: amount for part, amount in amounts.items() if amount > 0}
        return Program(
            table=self._costs,
            bias_amounts=[sensitivity.bias_amount(k) for k in range(len(sensitivity.biases) + 1)],
            part_amounts={known[part]: x for part, x in adding.items() if part in known},
            rates=self._rates,
            saturation=sensitivity.saturation,
        )

    def best(self, limits: Limits, check: Check | None) -> Found:
        began = time.monotonic()
        self._check_rates(limits)
        if check is not None and limits.memory_bytes is not None:
            return self._checked(limits, limits.memory_bytes, check, began)
        solution = self._program.best(limits.memory_bytes, limits.amounts, self._seconds)
        if solution is None:
            raise self._infeasible(limits, check)
        return self._told(solution, began, check)

    def leanest(self, found: Found, limits: Limits, check: Check | None) -> Found:
        """The choice of as much gain with the least memory: what gains nothing is left out."""
        lean = self._cheapest("memory", found, limits)
        if lean.choice == found.choice or check is None:
            return replace(lean, seconds=found.seconds + lean.seconds)
        memory_bytes = check(lean.choice)
        if memory_bytes > found.memory_bytes:
            return found
        return replace(lean, memory_bytes=memory_bytes, seconds=found.seconds + lean.seconds)

    def _checked(self, limits: Limits, most: int, check: Check, began: float) -> Found:
        """The best of the choices whose checked memory is within a limit.

        The table's limit is moved by as much as the table was wrong of the last choice; once one
        limit led to a choice that fits and one to none, what lies between is halved.
        """
        low, high = float(self._costs.memory_bytes(self._lightest(limits))), inf
        limit, found, bound = float(most), None, -inf
        for _ in range(_ROUNDS):
            solution = self._program.best(max(limit, low), limits.amounts, self._seconds)
            if solution is None:
                break
            bound = max(bound, solution.bound)
            tried = self._told(solution, began, check)
            told = self._costs.memory_bytes(tried.choice)
            room = most - tried.memory_bytes
            if room >= 0:
                if found is not None and tried.gain <= found.gain + _tolerance(tried.gain):
                    break
                found, low = tried, max(limit, low)
                limit = limit + room if high == inf else (low + high) / 2
            else:
                high = min(limit, float(told))
                limit = (low + high) / 2 if found or told + room <= low else told + room
            if high - low <= _CLOSE * most or room == 0:
                break
        if found is None:
            found = self._told(Solution(choice=self._lightest(limits), bound=bound), began, check)
            if found.memory_bytes > most:
                raise self._infeasible(limits, check)
        return replace(found, bound=max(bound, found.gain), seconds=time.monotonic() - began)

    def _lightest(self, limits: Limits) -> Choice:
        """The choice of least memory within the other limits."""
        choice = self._program.least("memory", -1e9, None, limits.amounts, self._seconds)
        if choice is None:
            raise self._infeasible(limits, None)
        return choice

    def front(self, axis: Axis, limits: Limits, most: int) -> tuple[Found, ...]:
        self._check_rates(_limited(limits, axis, 1.0))
        top = self._cheapest(axis, self.best(limits, None), limits)
        low = self._least(axis, limits)
        points = [low] if self._cost(axis, low) >= self._cost(axis, top) else [low, top]
        closed: set[float] = set()
        solves = len(points)
        while solves < most:
            gaps = [
                (self._cost(axis, b) - self._cost(axis, a), a, b)
                for a, b in pairwise(points)
                if self._cost(axis, b) not in closed
            ]
            if not gaps:
                break
            width, a, b = max(gaps, key=lambda gap: gap[0])
            limit = self._cost(axis, a) + width / 2
            found = self._between(axis, limits, limit, a, b)
            solves += 1
            if found is None:
                closed.add(self._cost(axis, b))
                continue
            points.insert(points.index(b), found)
        return tuple(points)

    def _between(
        self, axis: Axis, limits: Limits, limit: float, a: Found, b: Found
    ) -> Found | None:
        """A point of the front between two neighbours, None where there is none.

        Below the limit if there is one, else between it and the upper neighbour.
        """
        for most in (limit, _below(axis, self._cost(axis, b))):
            within = _limited(limits, axis, most)
            found = self._cheapest(axis, self.best(within, None), within)
            costs = [self._cost(axis, each) for each in (a, found, b)]
            if found.gain > a.gain + _tolerance(a.gain) and costs[0] < costs[1] < costs[2]:
                return found
        return None

    def _cheapest(self, axis: Axis, found: Found, limits: Limits) -> Found:
        """The choice of as much gain at the least cost."""
        began = time.monotonic()
        gain = found.gain - _tolerance(found.gain)
        choice = self._program.least(axis, gain, limits.memory_bytes, limits.amounts, self._seconds)
        if choice is None or self._axis_cost(axis, choice) >= self._cost(axis, found):
            return found
        return self._told(Solution(choice=choice, bound=found.bound), began, None)

    def _least(self, axis: Axis, limits: Limits) -> Found:
        """The choice of least cost, and of those the one of most gain."""
        choice = self._program.least(axis, -1e9, limits.memory_bytes, limits.amounts, self._seconds)
        assert choice is not None
        return self.best(_limited(limits, axis, self._axis_cost(axis, choice)), None)

    def _cost(self, axis: Axis, found: Found) -> float:
        return self._axis_cost(axis, found.choice)

    def _axis_cost(self, axis: Axis, choice: Choice) -> float:
        if axis == "memory":
            return self._costs.memory_bytes(choice)
        return self._costs.amount(choice, self._rates[axis])

    def priced(self, choice: Choice, check: Check | None) -> Found:
        return self._told(Solution(choice=choice, bound=-inf), time.monotonic(), check)

    def _told(self, solution: Solution, began: float, check: Check | None) -> Found:
        choice = solution.choice
        taken = {axis: self._costs.amount(choice, rates) for axis, rates in self._rates.items()}
        gain = self._sensitivity.predicted(choice)
        return Found(
            choice=choice,
            gain=gain,
            bound=max(solution.bound, gain),
            memory_bytes=self._costs.memory_bytes(choice) if check is None else check(choice),
            step_ms=taken.get("time"),
            energy_joules=taken.get("energy"),
            seconds=time.monotonic() - began,
        )

    def _check_rates(self, limits: Limits) -> None:
        """Refuse limits on what the target, or the table, does not tell."""
        for axis in limits.amounts:
            if axis in self._rates:
                continue
            if self._target is None:
                raise InputError(
                    where=f"limit on {axis}",
                    found="no target",
                    needed="the machine that the step runs on",
                    remedy="Give target=...",
                )
            rates = (step_ms_of if axis == "time" else energy_joules_of)(self._target)
            self._costs.amount(Choice(0), rates)

    def _infeasible(self, limits: Limits, check: Check | None) -> InputError:
        """The error that says how little is possible."""
        free = Limits()
        least: dict[str, float] = {}
        asked = {"memory": limits.memory_bytes, **limits.amounts}
        for axis, limit in asked.items():
            if limit is not None:
                choice = self._program.least(axis, -1e9, None, free.amounts, self._seconds)
                assert choice is not None
                checked = axis == "memory" and check is not None
                least[axis] = check(choice) if checked else self._axis_cost(axis, choice)  # type: ignore[arg-type, misc]
        found = ", ".join(f"{_worded(axis, value)}" for axis, value in least.items())
        needed = ", ".join(_worded(axis, limit) for axis, limit in asked.items() if limit)
        return InputError(
            where="search",
            found=f"no choice within {needed}",
            needed=f"at least {found}" + (" (each by itself)" if len(least) > 1 else ""),
            remedy="Allow more, halve the batch or the image, or take a smaller model",
        )


def _limited(limits: Limits, axis: Axis, most: float) -> Limits:
    if axis == "memory":
        return replace(limits, memory_bytes=int(most))
    if axis == "time":
        return replace(limits, step_ms=most)
    return replace(limits, energy_joules=most)


def _below(axis: Axis, cost: float) -> float:
    return cost - 1 if axis == "memory" else cost * (1 - 1e-6)


def _tolerance(gain: float) -> float:
    return 1e-9 * max(1.0, abs(gain))


def _worded(axis: str, value: float) -> str:
    if axis == "memory":
        return f"{value:,.0f} bytes of memory"
    return f"{value:.4g} ms a step" if axis == "time" else f"{value:.4g} J a step"
