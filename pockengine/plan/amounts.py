"""How much a step computes and moves, in amounts that add up, and what that takes on a target.

Work and traffic of a kernel overlap, and the longer one counts: which one depends on the target. So
kernels are told apart by how much they compute for each byte that they move, in classes of which a
target is bound by the one or the other.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pockengine.errors import InputError
from pockengine.plan.costs import CALL_NS
from pockengine.targets import Target, get_target

Numbers = NDArray[np.float64]

CLASSES = 12
COUNT = 2 + 2 * CLASSES
"""Operations, kernel calls, by class nanoseconds of work on a core of the host, by class bytes."""

_LEAST = 2.0**-10  # nanoseconds of work for a byte; each class ends at four times as much
_UPDATE_BYTES = 3  # an updated element is read, its gradient as well, and written


def gathered(
    flops: Numbers, work_ns: Numbers, moved: Numbers, runs: NDArray[np.bool_], updated_bytes: float
) -> Numbers:
    """The amounts of kernels, one element each.

    Args:
        flops: operations.
        work_ns: nanoseconds of work on a core of the host.
        moved: bytes read and written.
        runs: whether the kernel runs at all.
        updated_bytes: of what an optimizer overwrites besides.
    """
    density = work_ns / np.maximum(moved, 1.0)
    ranks = np.floor(np.log2(np.maximum(density, _LEAST) / _LEAST) / 2).astype(np.intp)
    ranks = np.minimum(ranks, CLASSES - 1)
    traffic = np.bincount(ranks, moved, CLASSES)
    traffic[0] += _UPDATE_BYTES * updated_bytes
    return np.concatenate(
        [[flops.sum(), runs.sum()], np.bincount(ranks, work_ns, CLASSES), traffic]
    )


def step_ms_of(target: Target) -> Numbers:
    """Milliseconds of one of each amount, on one core of a target.

    Where the rate of its memory is not known, all kernels count as bound by arithmetic.

    Raises:
        InputError: its arithmetic rate is not known.
    """
    host = get_target("host").fma_flops_per_s
    assert host is not None
    rate = _known(target, "fma_flops_per_s", target.fma_flops_per_s)
    bandwidth = target.memory_bytes_per_s
    ns_per_byte = 0.0 if bandwidth is None else 1e9 / bandwidth
    slower = host / rate
    middle = _LEAST * 4.0 ** (np.arange(CLASSES) + 0.5)
    computes = middle * slower >= ns_per_byte
    work = np.where(computes, slower, 0.0)
    traffic = np.where(computes, 0.0, ns_per_byte)
    return np.concatenate([[0.0, CALL_NS * slower], work, traffic]) / 1e6


def energy_joules_of(target: Target) -> Numbers:
    """Joules of one of each amount: those of its operations.

    Raises:
        InputError: the energy of an operation is not known.
    """
    found = np.zeros(COUNT)
    found[0] = _known(target, "joules_per_flop", target.joules_per_flop)
    return found


def _known(target: Target, name: str, value: float | None) -> float:
    if value is None:
        raise InputError(
            where=f"target {target.name}",
            found=f"no {name}",
            needed="this number, to tell what a step takes there",
            remedy="Choose a target that has it, limit the memory only, or measure it there",
        )
    return value
