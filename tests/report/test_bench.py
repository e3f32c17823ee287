"""The instrument accounts for every kernel of a step, and changes nothing."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from pockengine.errors import InputError
from pockengine.optimizer import SGD, AdamW
from pockengine.report.bench import Bench, bench, pinned
from pockengine.report.eager import eager_step
from pockengine.report.peaks import Memory, PeakMeter, Peaks
from pockengine.report.roofline import draw_roofline
from pockengine.report.tables import bench_table
from pockengine.report.timing import ORDERS, Timing, agreement, together
from pockengine.report.workloads import Workload, find_workload
from pockengine.scheme import Scheme

PRODUCTS = 2 * 8 * (64 * 128 + 128 * 128 + 128 * 10)  # of the MLP's forward pass at batch 8


def small() -> Workload:
    """A linear layer."""
    batch = (torch.ones(4, 3), torch.ones(4, 2))
    return Workload(model=nn.Linear(3, 2), batch=batch, loss="mse", optimizer=SGD(0.9))


@pytest.mark.slow
def test_all_kernels_are_there() -> None:
    """The kernels' work is the model's, kinds and total add up, and no parameter moves."""
    workload = find_workload("mlp")
    before = {name: value.clone() for name, value in workload.model.state_dict().items()}
    found = bench(workload, runs=2, eager=True)
    products = [k for k in found.kernels if k.kind == "contract matmul"]
    forward_and_backward = 3 * PRODUCTS - 2 * 8 * 64 * 128  # the first layer has no input gradient
    assert forward_and_backward <= sum(k.flops for k in products) < 1.3 * forward_and_backward
    assert sum(kind.calls for kind in found.kinds) == len(found.kernels) == found.total.calls
    assert found.total.ms == pytest.approx(sum(kind.ms for kind in found.kinds))
    assert all(torch.equal(before[n], v) for n, v in workload.model.state_dict().items())
    table = bench_table(found, top=2)
    assert "PyTorch eager" in table
    assert table.count("contract matmul") <= 3
    assert {k.limit for k in found.kernels} <= {"arithmetic", "cache 2", "cache 3", "memory"}
    assert all(k.predicted_ms > 0 for k in found.kernels)
    assert found.as_dict()["region_bytes"]["param"] == found.region_bytes[1]


def test_rates_follow_from_work_and_time() -> None:
    """2 ms for 4 MFLOP and 6 MB at peaks that need 1 ms: half of the peak."""
    timing = made(ms=2.0, flops=4_000_000, nbytes=6_000_000, peak_ms=1.0)
    assert (timing.gflops_per_s, timing.gbytes_per_s, timing.peak_share) == (2.0, 3.0, 0.5)
    assert (timing.lost_ms, timing.as_dict()["lost_ms"]) == (1.0, 1.0)


def made(kind: str = "map", limit: str = "memory", **figures: Any) -> Timing:
    """A timing of one call."""
    missing = dict.fromkeys(("ms", "flops", "nbytes", "peak_ms", "predicted_ms"), 1)
    return Timing(name=kind, kind=kind, calls=1, limit=limit, **{**missing, **figures})


def levels(*sizes: int) -> tuple[Memory, ...]:
    """Memories, the larger the slower: a size of 10 at 1 byte a second."""
    return tuple(Memory(name=f"of {n}", nbytes=n, bytes_per_s=10.0 / n) for n in sizes)


def test_traffic_is_compared_with_the_memory_that_holds_it() -> None:
    """Small kernels with the second cache, large ones with what lies beyond all caches."""
    peaks = Peaks(flops_per_s=1.0, memories=levels(10, 100, 500))
    assert [peaks.bytes_per_s(n) for n in (10, 11, 100, 101, 10**9)] == [1, 0.1, 0.1, 0.02, 0.02]


def test_what_bounds_a_kernel() -> None:
    """Arithmetic where it takes longer than the traffic, else the memory that holds the bytes."""
    peaks = Peaks(flops_per_s=4.0, memories=levels(10, 100))
    assert peaks.limit(80, 10) == ("arithmetic", 20.0)
    assert peaks.limit(8, 10) == ("of 10", 10.0)
    assert peaks.limit(80, 20) == ("of 100", 200.0)


def test_together_names_what_bounds_most_of_the_time() -> None:
    """Figures add up; two short arithmetic kernels weigh less than a long one of memory."""
    short = made(limit="arithmetic", peak_ms=1.0, ms=2.0)
    both = together("all", [short, short, made(limit="memory", peak_ms=3.0, ms=4.0)])
    assert (both.limit, both.peak_ms, both.ms, both.calls) == ("memory", 5.0, 8.0, 3)
    assert together("none", []).limit == ""


def test_agreement_of_the_cost_model() -> None:
    """Ranks are compared, not figures; without spread there is no correlation."""
    pairs = ((1, 2), (10, 4), (100, 8), (100, 8))
    found = agreement([made(predicted_ms=p, ms=m) for p, m in pairs])
    assert found.spearman == pytest.approx(1)
    assert found.median_ratio == pytest.approx((2.5 + 12.5) / 2)
    assert found.total_ratio == pytest.approx(211 / 22)
    reverse = agreement([made(predicted_ms=-p, ms=m) for p, m in pairs])
    assert reverse.spearman == pytest.approx(-1)
    assert agreement([made(), made()]).spearman is None
    assert agreement([made(ms=0)]).median_ratio is None


def test_kernels_are_sorted_by_what_they_lose() -> None:
    """Or by their time, or as they run."""
    timings = [made("near", ms=9, peak_ms=9), made("far", ms=5), made("some", ms=6, peak_ms=4)]
    orders = {name: [t.kind for t in sorted(timings, key=key)] for name, key in ORDERS.items()}
    assert orders == {
        "lost": ["far", "some", "near"],
        "time": ["near", "some", "far"],
        "step": ["near", "far", "some"],
    }


def a_bench(*kernels: Timing) -> Bench:
    """A bench of these kernels."""
    return Bench(
        threads=1,
        runs=1,
        peaks=Peaks(flops_per_s=1e9, memories=levels(1 << 10, 1 << 20)),
        kernels=kernels,
        step_ms=1.0,
        eager_ms=None,
        region_bytes=(0, 0, 0, 0),
    )


@pytest.mark.parametrize("suffix", ["svg", "png"])
def test_a_picture_with_a_roof_and_every_kind(tmp_path: Path, suffix: str) -> None:
    """Kinds beyond what colours can tell apart are one; no work or no time is no error."""
    path = tmp_path / f"roof.{suffix}"
    kinds = [made(f"kind {number}", ms=20 - number) for number in range(12)]
    draw_roofline(a_bench(*kinds, made(flops=0), made(ms=0, nbytes=0)), path)
    assert path.stat().st_size > 10_000
    if suffix == "svg":
        drawn = path.read_text()
        told = ["arithmetic 1 GFLOP/s", "of 1024", "kind 0", "kind 8", "other"]
        assert [text for text in told if f"<!-- {text}" not in drawn] == []
        assert "<!-- kind 9 " not in drawn


def test_a_picture_of_no_kernels(tmp_path: Path) -> None:
    """The roofs alone."""
    draw_roofline(a_bench(), tmp_path / "roof.svg")


def test_a_picture_that_cannot_be_written(tmp_path: Path) -> None:
    """A wrong ending, a folder that is not there."""
    for name, found in (("roof.txt", "the ending '.txt'"), ("no/roof.svg", "No such file")):
        with pytest.raises(InputError, match=f"--picture .*{name}: {found}"):
            draw_roofline(a_bench(), tmp_path / name)


@pytest.mark.slow
def test_peaks_of_several_threads() -> None:
    """Two threads do twice the operations, in copies that share what the memories hold."""
    meters = [PeakMeter(threads) for threads in (1, 2)]
    for meter in meters:
        meter.sample()
    one, two = (meter.peaks for meter in meters)
    assert meters[1]._flops == 2 * meters[0]._flops
    assert [memory.name for memory in one.memories] == ["cache 2", "cache 3", "memory"]
    held = zip(one.memories, two.memories, strict=True)
    assert all(a.nbytes <= b.nbytes <= 2 * a.nbytes for a, b in held)
    assert all(memory.bytes_per_s > 0 for memory in two.memories)


def test_one_thread_stays_on_one_core() -> None:
    """Only while it is measured; several threads are left alone."""
    allowed = os.sched_getaffinity(0)
    with pinned(1):
        assert len(os.sched_getaffinity(0)) == 1
    assert os.sched_getaffinity(0) == allowed
    with pinned(2):
        assert os.sched_getaffinity(0) == allowed


@pytest.mark.parametrize("optimizer", [SGD(momentum=0.9), AdamW()])
def test_the_eager_step_trains_a_copy(optimizer: SGD | AdamW) -> None:
    """PyTorch's step runs, with the scheme's parameters, and leaves the model as it is."""
    workload = small()
    threads = torch.get_num_threads()
    try:
        eager_step(
            Workload(model=workload.model, batch=workload.batch, loss="mse", optimizer=optimizer),
            Scheme({"bias": 1.0}),
            threads,
        )()
    finally:
        torch.set_num_threads(threads)
    assert all(p.requires_grad and p.grad is None for p in workload.model.parameters())


def test_no_runs() -> None:
    """Zero runs have no median."""
    with pytest.raises(InputError, match="bench: 0 runs; at least one"):
        bench(small(), runs=0)
