"""The compiled step against the peers, in turns in one run; what is measured is kept.

A turn is a few steps of each peer, one after the other; the first step of a turn fills the caches
and does not count, nor does the first turn. All start with the same weights and the same batch, so
their losses have to be the same, step by step.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

from experiments.step_time.environments import NotInstalledError, python_of
from experiments.step_time.processes import PeerError, PeerProcess
from experiments.step_time.settings import CASES

OURS = "ours"
PEERS = {
    "eager": "PyTorch",
    "channels_last": "PyTorch NHWC, fused SGD",
    "compiled": "torch.compile",
    "jax": "JAX",
    "tensorflow": "TensorFlow",
    "onnxruntime": "ONNX Runtime",
    "mnn": "MNN",
}
"""Modules in ``peers``, and what they are called."""

TOLERANCE = 1e-3
Row = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Turns:
    """How often.

    Attributes:
        count: turns that count.
        steps: of a turn; the first does not count.
    """

    count: int = 6
    steps: int = 4


def against(case: str, threads: int, peers: Sequence[str], turns: Turns) -> Row:
    """Our step and those of the peers, medians in milliseconds.

    Args:
        case: the workload.
        threads: of each; as many cores, the last ones.
        peers: names of modules.
        turns: how often.

    Returns:
        ``ours``, ``flops``, ``peak_flops_per_s`` (of one core), ``load``, and ``peers``: for each a
        row with ``failure`` where there is no figure.
    """
    load = round(os.getloadavg()[0], 2)
    cores = frozenset(sorted(os.sched_getaffinity(0))[-threads:])
    if len(cores) < threads:
        raise SystemExit(f"{threads} threads need as many cores, there are {len(cores)}")
    with ExitStack() as stack:
        data, trained = stack.enter_context(_workload(case))
        ours = stack.enter_context(_started(OURS, case, data, cores))
        ready, rows = {OURS: ours}, dict.fromkeys(peers, Row())
        for name in peers:
            try:
                peer = stack.enter_context(_started(name, case, data, cores))
                _check(peer.told["trained"] == trained, f"trains {peer.told['trained']} elements")
                ready[name] = peer
            except (NotInstalledError, PeerError) as failure:
                rows[name] = {"failure": str(failure)}
        measured = _in_turns(ready, turns)
        flops = ours.ask({"ask": "flops"})["flops"]
        peak = ours.ask({"ask": "peak"})["peak"]
        arena = ours.ask({"ask": "arena"})["arena"]
    found = {name: {**ready[name].told, **row} for name, row in measured.items() if name != OURS}
    return {
        "case": case,
        "threads": threads,
        "load": load,
        "flops": flops,
        "peak_flops_per_s": peak,
        "arena_bytes": arena,
        "trained": trained,
        "ours": measured[OURS],
        "peers": {**rows, **found},
    }


def _in_turns(ready: Mapping[str, PeerProcess], turns: Turns) -> dict[str, Row]:
    """Medians of each; of one that fails on the way, why."""
    spans: dict[str, list[tuple[float, float]]] = {name: [] for name in ready}
    losses: dict[str, list[float]] = {name: [] for name in ready}
    failures: dict[str, str] = {}
    before = {name: process.resident_bytes() for name, process in ready.items()}
    for turn in range(turns.count + 1):
        ready[OURS].ask({"ask": "peak"})
        for name in ready:
            if name in failures:
                continue
            try:
                answer = ready[name].ask({"steps": turns.steps})
                losses[name] += answer["losses"]
                _check_losses(losses[name], losses[OURS], ready[name].told["comparable"])
            except PeerError as failure:
                failures[name] = str(failure)
                continue
            if turn:
                spans[name] += list(zip(answer["ms"], answer["cpu_ms"], strict=True))[1:]
    if OURS in failures:
        raise SystemExit(f"our own step: {failures[OURS]}")
    return {
        name: {"failure": failures[name]}
        if name in failures
        else {
            **_medians(spans[name]),
            "grown_bytes": ready[name].resident_bytes() - before[name],
        }
        for name in ready
    }


def _medians(spans: Sequence[tuple[float, float]]) -> Row:
    ms, cpu_ms = zip(*spans, strict=True)
    return {
        "ms": round(median(ms), 3),
        "cpu_ms": round(median(cpu_ms), 3),
        "least_ms": round(min(ms), 3),
        "steps": len(spans),
    }


def _check_losses(found: Sequence[float], wanted: Sequence[float], count: int | None) -> None:
    """Raise PeerError where a peer does not train what we train."""
    _check(all(map(isfinite, found)), "a loss is not finite")
    pairs = list(zip(found, wanted, strict=True))[:count]
    far = [place for place, pair in enumerate(pairs) if _differ(*pair)]
    if far:
        at = far[0]
        raise PeerError(f"step {at + 1}: loss {found[at]:.6g}, ours {wanted[at]:.6g}")


def _differ(found: float, wanted: float) -> bool:
    return abs(found - wanted) > TOLERANCE * abs(wanted)


def _check(holds: bool, otherwise: str) -> None:
    if not holds:
        raise PeerError(otherwise)


@contextmanager
def _started(name: str, case: str, data: Path, cores: frozenset[int]) -> Iterator[PeerProcess]:
    peer = PeerProcess(name, python_of(name), case, data, cores)
    try:
        yield peer
    finally:
        peer.end()


@contextmanager
def _workload(name: str) -> Iterator[tuple[Path, int]]:
    """A file with the weights and the batch of a case, and how many elements are trained."""
    torch.manual_seed(0)
    model, (inputs, labels) = CASES[name].model(), CASES[name].batch()
    parts: dict[str, dict[str, torch.Tensor]] = {
        "parameters": dict(model.named_parameters()),
        "buffers": dict(model.named_buffers()),
        "inputs": {str(place): tensor for place, tensor in enumerate(inputs)},
        "labels": {"0": labels},
    }
    arrays = {
        f"{part}/{key}": tensor.detach().numpy()
        for part, tensors in parts.items()
        for key, tensor in tensors.items()
    }
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "workload.npz"
        np.savez(path, **arrays)  # type: ignore[arg-type]
        yield path, sum(tensor.numel() for tensor in parts["parameters"].values())
