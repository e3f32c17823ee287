"""What a step computes again is what pays: told by whole plans."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from pockengine.compile import Prepared, prepare
from pockengine.ir.graph import calls
from pockengine.optimizer import SGD
from pockengine.passes.saved_cut import NEVER_NS
from pockengine.plan import costs
from pockengine.plan.costs import memory_time, recompute_ns
from pockengine.plan.fit import working_bytes
from pockengine.targets import Target, get_target
from tests.oracles import Example, conv_net, encoder

HOST = get_target("host")
LITTLE, MUCH = 0.0, 0.3


def _prepared(
    example: Example, shares: tuple[float, ...], patch: pytest.MonkeyPatch, target: Target = HOST
) -> Prepared:
    patch.setattr(costs, "_RECOMPUTE_SHARES", shares)
    return prepare(example.model, example.batch, loss=example.loss, optimizer=SGD(), target=target)


def _step(prepared: Prepared) -> tuple[int, float]:
    """Bytes of the arena of all entry points, and nanoseconds."""
    (graph,) = (source.graph for source in prepared.sources if source.name == "step")
    work = sum(ns for ns in map(recompute_ns, calls(graph)) if ns < NEVER_NS)
    return prepared.plan.arena_bytes, work


@pytest.mark.parametrize("make", [conv_net, encoder])
def test_computing_again_pays(make: Callable[[], Example], monkeypatch: pytest.MonkeyPatch) -> None:
    """Of little and much, that is done of which memory times time is less."""
    example = make()
    little, much = (_step(_prepared(example, (x,), monkeypatch)) for x in (LITTLE, MUCH))
    assert little[1] < much[1]
    found = _step(_prepared(example, (LITTLE, MUCH), monkeypatch))
    assert found == min(little, much, key=lambda each: memory_time(*each))


def test_what_does_not_fit_is_computed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where only the plan that computes much again fits the machine, it is taken."""
    example = encoder()
    little, much = (_prepared(example, (x,), monkeypatch) for x in (LITTLE, MUCH))
    assert much.plan.arena_bytes < little.plan.arena_bytes
    monkeypatch.setattr("pockengine.pipeline.memory_time", lambda _, step_ns: step_ns)
    assert _step(_prepared(example, (LITTLE, MUCH), monkeypatch)) == _step(little)
    room = working_bytes(much.plan, HOST)
    small = replace(HOST, sram_bytes=room, sources={**HOST.sources, "sram_bytes": "this test"})
    assert _step(_prepared(example, (LITTLE, MUCH), monkeypatch, small)) == _step(much)
