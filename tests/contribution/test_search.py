"""The search finds what trying every choice finds, and says so where there is nothing to find."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise, product
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pockengine.contribution.analytic import read_layers
from pockengine.contribution.analytic_costs import analytic_costs
from pockengine.contribution.choice import RATIOS, Choice
from pockengine.contribution.costs import Bias, CostTable, Part, Piece, Place, Shared
from pockengine.contribution.measured import Sensitivity
from pockengine.contribution.saturation import ADDITIVE, saturation
from pockengine.contribution.search import Axis, Limits, best, front, priced
from pockengine.errors import InputError
from pockengine.plan.amounts import COUNT, energy_joules_of, step_ms_of
from pockengine.targets import Target, get_target
from tests.contribution.sensitivities import sensitivity

SMALL = (0.5, 0.75, 1.0)
POINTS = 4
PI = get_target("raspberry-pi-4")
MCUNET = Path(__file__).parents[1] / "data" / "mcunet_5fps_convs.csv"


def choices(gains: Sensitivity) -> Iterator[Choice]:
    """All of them, but for weights that lose."""
    layers, winning = len(gains.layers), [p for p, gain in gains.weights.items() if gain.mean > 0]
    options = [[0.0, *(r for index, r in winning if index == layer)] for layer in range(layers)]
    for biases in range(layers + 1):
        for parts in product(*options):
            yield Choice(biases, {layer: r for layer, r in enumerate(parts) if r})


def instance(
    layers: int, ratios: tuple[float, ...], seed: int, together: float
) -> tuple[Sensitivity, CostTable]:
    """Random gains and costs; a value that parts of several layers share.

    Args:
        layers: how many.
        ratios: of every weight.
        seed: of the numbers.
        together: what all weights gain, of the sum of their gains.
    """
    rng = np.random.default_rng(seed)

    def amounts(low: int) -> tuple[float, ...]:
        return tuple(rng.integers(low, low + 50, COUNT).tolist())

    def piece() -> Piece:
        first = int(rng.integers(0, POINTS))
        end = int(rng.integers(first + 1, POINTS + 1))
        return Piece(first=first, end=end, nbytes=int(rng.integers(-5, 60)))

    ends = [(layer, ratio) for layer in range(layers) for ratio in (None, *ratios)]
    places = tuple(
        Place(
            layer=layer,
            ratio=ratio,
            live_bytes=tuple((rng.integers(20, 90, POINTS) + 20 * (layers - layer)).tolist()),
            amounts=amounts(100 * (layers - layer)) if layer < layers else (1.0,) * COUNT,
        )
        for layer, ratio in (*ends, (layers, None))
    )
    parts = tuple(
        Part(
            layer=layer,
            ratio=ratio,
            kept_bytes=int(rng.integers(0, 30)),
            pieces=(piece(), piece()),
            amounts=amounts(0),
        )
        for layer in range(layers)
        for ratio in ratios
    )
    shared = Shared(
        piece=Piece(first=1, end=3, nbytes=40),
        parts=tuple(np.flatnonzero(rng.random(len(parts)) < 0.5).tolist()),
        places=tuple(np.flatnonzero(rng.random(len(places)) < 0.3).tolist()),
    )
    table = CostTable(
        layers=layers,
        places=places,
        parts=parts,
        biases=tuple(
            Bias(kept_bytes=int(rng.integers(0, 9)), amounts=amounts(0)) for _ in range(layers)
        ),
        shared=(shared,),
        kept_bytes=10,
    )
    gains = {(part.layer, part.ratio): float(rng.normal(0.5)) for part in parts}
    biases = rng.normal(0.3, 1.0, layers).tolist()
    whole = [(max(gains[x, r] for r in ratios), biases[layers - 1 - x]) for x in range(layers)]
    total = biases[-1] + sum(gain for gain, _ in whole)
    curve = saturation(biases[-1], whole, together * total) if together < 1 else ADDITIVE
    return replace(sensitivity(biases, gains), saturation=curve), table


@st.composite
def instances(draw: st.DrawFn) -> tuple[Sensitivity, CostTable]:
    """Up to four layers."""
    layers, ratios = draw(st.integers(1, 4)), SMALL[: draw(st.integers(1, 3))]
    seed, together = draw(st.integers(0, 2**32)), draw(st.sampled_from([0.1, 0.5, 1.0]))
    return instance(layers, ratios, seed, together)


@settings(max_examples=20, deadline=None)
@given(instances())
def test_what_gains_nothing_is_left_out(made: tuple[Sensitivity, CostTable]) -> None:
    """Of choices that gain as much the one of least memory."""
    _, table = made
    ratio = table.parts[0].ratio
    alike = sensitivity([0.0] * table.layers, {(table.layers - 1, ratio): 1.0})
    found = best(alike, table, Limits())
    assert found.gain == 1.0
    assert found.memory_bytes == min(
        table.memory_bytes(choice) for choice in choices(alike) if choice.weights
    )


@settings(max_examples=40, deadline=None)
@given(instances(), st.data())
def test_finds_what_trying_all_finds(
    made: tuple[Sensitivity, CostTable], data: st.DataObject
) -> None:
    """The same gain within limits on memory, time and energy; or the same refusal."""
    gains, table = made
    every = list(choices(gains))
    some = data.draw(st.sampled_from(every))
    rates = step_ms_of(PI), energy_joules_of(PI)
    slack = data.draw(st.sampled_from([0.8, 1.0, 1.2]))
    limits = Limits(
        memory_bytes=int(table.memory_bytes(some) * slack),
        step_ms=table.amount(some, rates[0]) * 1.001,
        energy_joules=table.amount(some, rates[1]) * 1.001,
    )
    assert limits.memory_bytes is not None
    assert limits.step_ms is not None
    assert limits.energy_joules is not None
    allowed = [
        (gains.predicted(choice), table.memory_bytes(choice))
        for choice in every
        if table.memory_bytes(choice) <= limits.memory_bytes
        and table.amount(choice, rates[0]) <= limits.step_ms
        and table.amount(choice, rates[1]) <= limits.energy_joules
    ]
    if not allowed:
        with pytest.raises(InputError, match="at least"):
            best(gains, table, limits, target=PI)
        return
    found = best(gains, table, limits, target=PI)
    most = max(gain for gain, _ in allowed)
    assert found.gain == pytest.approx(most)
    assert found.memory_bytes == min(nbytes for gain, nbytes in allowed if gain > most - 1e-12)
    assert found.bound == pytest.approx(found.gain)
    assert found.bound >= found.gain
    assert found.memory_bytes == table.memory_bytes(found.choice) <= limits.memory_bytes
    assert found.step_ms == pytest.approx(table.amount(found.choice, rates[0]))


@pytest.mark.parametrize("axis", ["memory", "time", "energy"])
@settings(max_examples=10, deadline=None)
@given(made=instances())
def test_front_is_that_of_trying_all(axis: Axis, made: tuple[Sensitivity, CostTable]) -> None:
    """Every choice that no other one dominates, and nothing else."""
    check_front(*made, axis)


@pytest.mark.parametrize(("seed", "together"), [(207, 0.1), (240, 0.1), (100_017, 0.1)])
def test_front_where_the_solver_fails(seed: int, together: float) -> None:
    """Programs that HiGHS ends with "solve error" are solved another way."""
    check_front(*instance(4, SMALL, seed, together), "memory")


def check_front(gains: Sensitivity, table: CostTable, axis: Axis) -> None:
    """The front of the search is that of all choices."""

    def cost(choice: Choice) -> float:
        if axis == "memory":
            return table.memory_bytes(choice)
        return table.amount(choice, {"time": step_ms_of, "energy": energy_joules_of}[axis](PI))

    tried = [(cost(x), gains.predicted(x)) for x in choices(gains)]
    expected: list[tuple[float, float]] = []
    for amount, gain in sorted(tried, key=lambda pair: (pair[0], -pair[1])):
        if expected and gain <= expected[-1][1] + 1e-9:
            continue
        if expected and amount == pytest.approx(expected[-1][0]):  # but for rounding
            expected.pop()
        expected.append((amount, gain))
    points = front(gains, table, axis=axis, target=PI, most=1000)
    found = [(cost(point.choice), point.gain) for point in points]
    assert found == [(pytest.approx(amount), pytest.approx(gain)) for amount, gain in expected]


def test_front_of_a_few_points_is_exact() -> None:
    """Fewer points than there are: the ends among them, each as good as its own search."""
    gains, table = mcunet()
    found = front(gains, table, most=6)
    assert len(found) == 6
    for point in found[1:-1]:
        assert best(gains, table, Limits(memory_bytes=point.memory_bytes)).gain == pytest.approx(
            point.gain
        )
    assert all(a.memory_bytes < b.memory_bytes and a.gain < b.gain for a, b in pairwise(found))


def mcunet() -> tuple[Sensitivity, CostTable]:
    """Published layers with made-up gains."""
    table = analytic_costs(read_layers(MCUNET))
    rng = np.random.default_rng(0)
    biases = np.cumsum(rng.normal(0.001, 0.004, table.layers)).tolist()
    gains = {
        (part.layer, part.ratio): part.ratio**0.5 * float(rng.normal(0.01, 0.01))
        for part in table.parts
    }
    return sensitivity(biases, gains), table


@pytest.mark.parametrize(
    ("biases", "weights", "published_bytes"),
    [
        (20, {24: 0.25, 27: 0.5, 30: 0.5}, 50_944),
        (21, {21: 1, 24: 1, 27: 0.5, 30: 1}, 76_608),
        (22, {21: 1, 24: 1, 27: 1, 30: 1, 36: 0.125, 39: 0.25}, 102_240),
        (24, {21: 0.25, 24: 1, 27: 1, 30: 1, 33: 0.5, 39: 0.5}, 127_968),
        (23, {21: 1, 24: 1, 27: 1, 30: 1, 36: 1, 39: 0.5}, 151_968),
    ],
)
def test_published_schemes_are_found_at_their_bytes(
    biases: int, weights: dict[int, float], published_bytes: int
) -> None:
    """The table costs them what was published; with gains for them alone, the search takes them."""
    table = analytic_costs(read_layers(MCUNET))
    choice = Choice(biases, weights)
    assert table.memory_bytes(choice) == published_bytes
    wanted = [1.0 if k == biases else 0.0 for k in range(1, table.layers + 1)]
    gains = sensitivity(wanted, dict.fromkeys(weights.items(), 0.1) | {(0, 1.0): 0.05})
    found = best(gains, table, Limits(memory_bytes=published_bytes))
    assert found.choice == choice
    assert found.memory_bytes == published_bytes


def test_checked_choices_fit() -> None:
    """Where choices need more than the table says, the search goes on until one fits."""
    gains, table = mcunet()
    limit = 100_000

    def needs(choice: Choice) -> int:
        return int(table.memory_bytes(choice) * (1.1 + 0.02 * (len(choice.weights) % 3)))

    found = best(gains, table, Limits(memory_bytes=limit), check=needs)
    assert 0.9 * limit < found.memory_bytes == needs(found.choice) <= limit
    assert found.bound >= found.gain


def test_checked_choices_use_what_the_table_did_not_see() -> None:
    """Where choices need less than the table says, the search goes on as well."""
    gains, table = mcunet()
    limits = Limits(memory_bytes=100_000)
    found = best(gains, table, limits, check=lambda choice: table.memory_bytes(choice) // 2)
    assert found.gain > best(gains, table, limits).gain
    assert found.memory_bytes <= 100_000


def test_no_answer_is_not_told_as_none() -> None:
    """A solver that ran out of time before its first choice has not found that there is none."""
    gains, table = mcunet()
    with pytest.raises(InputError, match="no choice after 0 s: Time limit reached"):
        best(gains, table, Limits(memory_bytes=100_000), seconds=0)


def test_nothing_fits() -> None:
    """The error says how little is possible."""
    gains, table = mcunet()
    least = table.memory_bytes(Choice(0))
    with pytest.raises(InputError, match=rf"no choice within 9 bytes.*at least {least} bytes"):
        best(gains, table, Limits(memory_bytes=9))
    with pytest.raises(InputError, match=rf"at least {least * 1000:,} bytes"):
        best(gains, table, Limits(memory_bytes=9), check=lambda x: 1000 * table.memory_bytes(x))


@pytest.mark.parametrize(
    ("target", "limits", "message"),
    [
        (None, Limits(step_ms=1.0), "limit on time: no target"),
        ("linux-arm64", Limits(step_ms=1.0), "target linux-arm64: no fma_flops_per_s"),
        ("host", Limits(energy_joules=1.0), "target host: no joules_per_flop"),
    ],
)
def test_unknown_rates_are_refused(target: str | None, limits: Limits, message: str) -> None:
    """A limit on what nobody knows is an error, not a guess."""
    gains, table = sensitivity([1.0], {}), one_layer()
    machine: Target | None = None if target is None else get_target(target)
    with pytest.raises(InputError, match=message):
        best(gains, table, limits, target=machine)


def test_analytic_tables_have_no_time() -> None:
    """A limit on time needs amounts of work."""
    gains, table = mcunet()
    with pytest.raises(InputError, match="no amounts of work"):
        best(gains, table, Limits(step_ms=1.0), target=PI)


def test_gains_of_another_model_are_refused() -> None:
    """Gains and costs must be of as many layers."""
    with pytest.raises(InputError, match="gains of 2 layers, costs of 1"):
        best(sensitivity([1.0, 1.0], {}), one_layer(), Limits())


def one_layer() -> CostTable:
    """A layer without a weight to choose."""
    amounts = (1.0,) * COUNT
    places = (Place(layer=k, ratio=None, live_bytes=(9,), amounts=amounts) for k in (0, 1))
    return CostTable(
        layers=1,
        places=tuple(places),
        parts=(),
        biases=(Bias(kept_bytes=1, amounts=(0.0,) * COUNT),),
    )


def test_ratios_of_the_paper() -> None:
    """Every published ratio is one that the table has for every layer of MCUNet."""
    table = analytic_costs(read_layers(MCUNET))
    assert {part.ratio for part in table.parts} == set(RATIOS)
    assert len(table.parts) == table.layers * len(RATIOS)


def test_a_choice_is_priced_as_the_search_tells_it() -> None:
    """Its gain and costs are those of the same choice when it is found, and keep its limits."""
    gains, costs = instance(4, SMALL, 3, 1.0)
    found = best(gains, costs, Limits(), target=PI)
    told = priced(gains, costs, found.choice, target=PI)
    assert replace(told, bound=found.bound, seconds=found.seconds) == found
    assert told.bound == told.gain
    checked = priced(gains, costs, found.choice, target=PI, check=lambda _: 7)
    assert checked.memory_bytes == 7
    assert Limits().allow(told)
    assert Limits(memory_bytes=7, step_ms=told.step_ms).allow(checked)
    assert not Limits(memory_bytes=6).allow(checked)
    assert told.step_ms
    assert not Limits(step_ms=told.step_ms / 2).allow(told)
