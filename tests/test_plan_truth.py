"""What the plan says is what the process uses, and a new scheme is only a new table."""

from __future__ import annotations

import ctypes
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pockengine as pe
from pockengine.errors import PlanError
from pockengine.frontend import recall
from pockengine.lower.cache import load as load_kernel
from pockengine.lower.link import build_shared
from pockengine.plan import memory
from pockengine.plan.pack import pack
from pockengine.program import Program
from pockengine.runtime import library
from pockengine.runtime.encoding import encode
from pockengine.runtime.engine import Engine
from tests.models import MODELS, SCHEMES, small_case
from tests.spine import Case, compiled_trainer, prepared

pytestmark = pytest.mark.slow

_TAIL = 4096  # bytes past the end of a region that nobody may touch
_PATTERN = 0xA5
_EVENTS = ("subprocess.Popen", "os.fork", "os.posix_spawn", "os.system", "os.exec")


def _opened(program: Program, trainer: pe.Trainer, threads: int = 1) -> Engine:
    """An engine over copies of a trainer's regions, with a patterned arena and patterned tails."""
    alignment = program.descriptor.region_alignment
    regions = []
    for array in trainer.engine.regions:
        longer = library.allocate(array.nbytes + _TAIL, alignment)
        longer[:] = _PATTERN
        longer[: array.nbytes] = array
        regions.append(longer)
    regions[3][:] = _PATTERN
    const, param, state, arena = regions
    kernels = [load_kernel(path) for path in program.kernels]
    return Engine(
        encode(program.descriptor),
        kernels,
        const=const,
        param=param,
        state=state,
        arena=arena,
        threads=threads,
    )


def _run_all(engine: Engine, case: Case, trainer: pe.Trainer) -> None:
    """Each entry point once, on the first batch."""
    inputs, targets = case.batches[0]
    signature = trainer.program.signature
    given = signature.bind_inputs(inputs)
    batch = [*given, *signature.bind_targets(targets)]
    engine.run("step", [*batch, np.array([1e-3], np.float32)])
    engine.run("evaluate", batch)
    engine.run("predict", given)


@pytest.mark.parametrize("model", MODELS)
def test_regions_are_used_to_the_byte(model: str) -> None:
    """Nothing past a region's end is touched, the arena is used to its end, const only read."""
    case = small_case(model, "mixed", "adamw")
    with compiled_trainer(case) as trainer:
        sizes = trainer.plan.region_bytes
        assert tuple(array.nbytes for array in trainer.engine.regions) == sizes
        assert trainer.program.descriptor.region_bytes == sizes
        with _opened(trainer.program, trainer) as engine:
            const = engine.regions[0].copy()
            _run_all(engine, case, trainer)
            for region, size in zip(engine.regions, sizes, strict=True):
                assert (region[size:] == _PATTERN).all()
            used = np.flatnonzero(engine.regions[3] != _PATTERN)[-1] + 1
            assert sizes[3] - used < memory.ALIGNMENT
            assert np.array_equal(engine.regions[0], const)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("scheme", SCHEMES)
def test_arena_is_near_its_bound(model: str, scheme: str) -> None:
    """Offsets need at most 5 % more than the bytes live at the worst moment."""
    plan = prepared(small_case(model, scheme, "sgd")).plan
    assert plan.arena_bytes <= 1.05 * plan.lower_bound_bytes


@pytest.mark.parametrize("threads", [1, 2])
def test_steps_allocate_nothing(monkeypatch: pytest.MonkeyPatch, threads: int) -> None:
    """The runtime asks for memory when it opens, and in its first step for threads; never again."""
    counted = _counting_library()
    monkeypatch.setattr(library, "library", lambda: counted)
    case = small_case("mobile", "full", "adamw")
    trainer = compiled_trainer(case)
    with _opened(trainer.program, trainer, threads) as engine:
        _run_all(engine, case, trainer)
        before = counted.allocations()
        for _ in range(20):
            _run_all(engine, case, trainer)
        assert counted.allocations() == before
    assert (before > 0) == (threads > 1)


def _counting_library() -> ctypes.CDLL:
    """The runtime with all of its allocations counted."""
    wraps = [f"-Wl,--wrap={name}" for name in ("malloc", "calloc", "realloc")]
    sources = (
        *library.CORE,
        library.CSRC / "os_posix.c",
        Path(__file__).parent / "csrc" / "allocations.c",
    )
    path = build_shared(sources, name="counted", flags=("-pthread", *wraps))
    return library.opened(path)


def test_peak_memory_is_the_regions() -> None:
    """Over 1000 steps the process grows by no more than its regions and a tenth."""
    ran = subprocess.run(
        [sys.executable, "-m", "tests.peak_memory", "wide", "1000"],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parent.parent,
    )
    assert ran.returncode == 0, ran.stderr
    found = json.loads(ran.stdout)
    assert found["grown"] <= 1.1 * found["regions"]


def test_planted_overlap_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A packer that puts two live values in one place does not get as far as a trainer."""
    monkeypatch.setattr(memory, "pack", _overlapping(pack))
    with pytest.raises(PlanError, match="overlaps"):
        compiled_trainer(small_case("mlp", "full", "sgd"))


def test_planted_overlap_is_seen_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the first checker sleeps, the second one sees that a value was lost."""
    monkeypatch.setattr(memory, "pack", _overlapping(pack))
    monkeypatch.setattr(memory, "check", lambda *_: None)
    with pytest.raises(PlanError, match=r"its bytes are not its own|overlaps"):
        compiled_trainer(small_case("mlp", "full", "sgd"))


def _overlapping(right: Any) -> Any:
    """A packer that moves the largest value onto another one that is live with it."""

    def wrong(buffers: Any, **options: Any) -> Any:
        packing = right(buffers, **options)
        one = max(buffers, key=lambda buffer: buffer.size)
        live = [b for b in buffers if b is not one and b.lower < one.upper and one.lower < b.upper]
        moved = {one.id: packing.offsets[live[0].id]} if live else {}
        return replace(packing, offsets={**packing.offsets, **moved}, peak=packing.peak + one.size)

    return wrong


def test_new_scheme_is_a_new_table(monkeypatch: pytest.MonkeyPatch) -> None:
    """With kernels in the cache, a second scheme starts no process and captures nothing again."""
    case = small_case("mobile", "full", "sgd")
    other = replace(case, scheme=pe.Scheme.last_blocks(2))
    compiled_trainer(case).close()
    compiled_trainer(other).close()
    monkeypatch.setattr(recall, "capture", None)
    with _processes() as started, compiled_trainer(other) as trainer:
        inputs, targets = case.batches[0]
        trainer.step(inputs, targets, lr=1e-3)
    assert started == []


_watching: list[list[str]] = []


@cache
def _watch() -> None:
    """Install the one hook of this process, which cannot be taken back."""

    def seen(event: str, _: object) -> None:
        if event in _EVENTS:
            for started in _watching:
                started.append(event)

    sys.addaudithook(seen)


@contextmanager
def _processes() -> Iterator[list[str]]:
    """The names of events by which this process starts others, as they happen."""
    _watch()
    started: list[str] = []
    _watching.append(started)
    yield started
    _watching.remove(started)
