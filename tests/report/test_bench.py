"""The instrument accounts for every kernel of a step, and changes nothing."""

from __future__ import annotations

import os

import pytest
import torch
from torch import nn

from pockengine.errors import InputError
from pockengine.optimizer import SGD, AdamW
from pockengine.report.bench import Timing, bench, pinned
from pockengine.report.eager import eager_step
from pockengine.report.peaks import Memory, Peaks
from pockengine.report.tables import bench_table
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
    assert found.as_dict()["region_bytes"]["param"] == found.region_bytes[1]


def test_rates_follow_from_work_and_time() -> None:
    """2 ms for 4 MFLOP and 6 MB at peaks that need 1 ms: half of the peak."""
    timing = Timing(
        name="", kind="", calls=1, ms=2.0, flops=4_000_000, nbytes=6_000_000, peak_ms=1.0
    )
    assert (timing.gflops_per_s, timing.gbytes_per_s, timing.peak_share) == (2.0, 3.0, 0.5)


def test_traffic_is_compared_with_the_memory_that_holds_it() -> None:
    """Small kernels with the second cache, large ones with what lies beyond all caches."""
    memories = tuple(Memory(nbytes=size, bytes_per_s=10.0 / size) for size in (10, 100, 500))
    peaks = Peaks(flops_per_s=1.0, memories=memories)
    assert [peaks.bytes_per_s(n) for n in (10, 11, 100, 101, 10**9)] == [1, 0.1, 0.1, 0.02, 0.02]


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
