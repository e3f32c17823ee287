"""The experiment that measures a step beside its peers: its processes, its table, its schemes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from experiments.step_time import environments
from experiments.step_time.against import PEERS, _check_losses, _workload
from experiments.step_time.environments import NotInstalledError, python_of
from experiments.step_time.peer_table import peers_table, sparse_table
from experiments.step_time.peers.networks import image_last, weight_last
from experiments.step_time.processes import PeerError, PeerProcess
from experiments.step_time.settings import CASES, SPARSE
from experiments.step_time.sparse import twins

CASE = "mobilenet_v2-035-b1"


@pytest.mark.slow
def test_a_peer_answers_and_is_stopped_meanwhile() -> None:
    """A peer trains the case's parameters, step by step, and rests between requests."""
    with _workload(CASE) as (data, trained):
        peer = PeerProcess("eager", python_of("eager"), CASE, data, frozenset([0]))
        try:
            assert peer.told["trained"] == trained
            answer = peer.ask({"steps": 3})
            assert _state(peer) == "T"
        finally:
            peer.end()
    assert len(answer["ms"]) == len(answer["cpu_ms"]) == 3
    assert answer["losses"][2] < answer["losses"][0]


def _state(peer: PeerProcess) -> str:
    """Of the process, as Linux tells it."""
    told = Path(f"/proc/{peer.pid}/stat").read_text()
    return told.rpartition(")")[2].split()[0]


def test_a_peer_that_fails_says_why(tmp_path: Path) -> None:
    """Its last words are the message."""
    with pytest.raises(PeerError, match="No module named"):
        PeerProcess("nobody", python_of("nobody"), CASE, tmp_path, frozenset([0]))


def test_losses_have_to_agree() -> None:
    """Only the comparable ones, but all have to be finite."""
    _check_losses([2.0, 9.0], [2.0005, 1.0], 1)
    with pytest.raises(PeerError, match="step 2: loss 9, ours 1"):
        _check_losses([2.0, 9.0], [2.0, 1.0], None)
    with pytest.raises(PeerError, match="not finite"):
        _check_losses([2.0, float("nan")], [2.0, 1.0], 1)


def test_an_environment_that_cannot_be_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reason that pip gives is the message, and the environment is not taken for made."""
    monkeypatch.setattr(environments, "REQUIREMENTS", tmp_path)
    monkeypatch.setattr(environments.venv, "create", _without_packages)
    (tmp_path / "odd.txt").write_text("odd==1\n")
    for _ in range(2):
        with pytest.raises(NotInstalledError, match=r"^no odd$"):
            python_of("odd", tmp_path / "made")


def _without_packages(home: Path, **_: object) -> None:
    """An environment in which nothing can be installed."""
    python = home / "bin" / "python"
    python.parent.mkdir(parents=True, exist_ok=True)
    python.write_text("#!/bin/sh\necho ERROR: no odd >&2\nexit 1\n")
    python.chmod(0o755)


def test_twins_are_found_by_the_narrowest_key_once() -> None:
    """Text goes before owner and kind, and a kernel is the twin of one."""
    full = [("a", ("w", 1), 1), ("b", ("v", 1), 1), ("c", ("u", 2), 2)]
    sparse = [("x", ("v", 1), 1), ("a", ("w", 1), 1), ("y", ("t", 1), 1), ("z", ("u", 3), 3)]
    assert twins(sparse, full) == [1, 0, None, None]


def test_sparse_schemes_update_what_they_say() -> None:
    """Biases, matrices and the head of each case, by name."""
    counts = {}
    for name, sparse in SPARSE.items():
        model = CASES[name].model()
        counts[name] = len(sparse.scheme(model).resolve(model))
    assert counts == {
        "mobilenet_v2-b8": 7 * 3 + 7 + 2,
        "resnet18-b8": 4 * 2 + 2 + 2 + 2,
        "mini_lm-b8": 3 * 8 + 2 * 5 + 2,
        "llama-b1": 2,
    }


def test_the_table_of_peers() -> None:
    """Gains are of one run, a peer without a figure is told with its reason, goals are judged."""
    eager = {"ms": 40.0, "ours_ms": 5.0, "version": "2", "note": ""}
    others = {"jax": {"ms": 30.0, "ours_ms": 6.0, "version": "1", "note": "odd"}}
    row: dict[str, Any] = {
        "case": CASE,
        "threads": 1,
        "date": "2026-01-01",
        "flops": 4e8,
        "peak_flops_per_s": 1e11,
        "ours": {"ms": 5.0},
        "peers": {"eager": eager, **others, "mnn": {"failure": "no gradient"}},
    }
    told = peers_table([row])
    for part in ("8.00x (7x)", "JAX", "5.00x (5x)", "80%", "yes", f"- MNN, {CASE}/1: not"):
        assert part in told
    assert PEERS["jax"] + ": odd" in told
    row["peers"]["eager"] = {**eager, "ms": 30.0}
    assert "| no" in peers_table([row])
    row["flops"] = 4.5e8
    assert "| yes" in peers_table([row])


def test_the_table_of_sparse_schemes() -> None:
    """A goal missed in time or in memory is told."""
    times = {"full_ms": 100.0, "sparse_ms": 50.0, "kernels_ms": 52.0, "remaining_ms": 50.0}
    flops = {"full_flops": 20, "sparse_flops": 10}
    torch = {"torch_full_bytes": 100e6, "torch_sparse_bytes": 40e6}
    arenas = {"full_arena_bytes": 40e6, "sparse_arena_bytes": 19e6}
    row: dict[str, Any] = {"case": "resnet18-b8", **times, **flops, **torch, **arenas}
    assert sparse_table([row]).count("| yes") == 2
    slow = {**row, "kernels_ms": 54.0, "sparse_arena_bytes": 21e6}
    assert sparse_table([slow]).count("| no") == 2


def test_layouts_of_the_other_frameworks() -> None:
    """Weights and images go channels last; what is neither stays."""
    array = np.arange(120).reshape(2, 3, 4, 5)
    assert weight_last(array).shape == (4, 5, 3, 2)
    assert image_last(array).shape == (2, 4, 5, 3)
    assert image_last(np.arange(3)).dtype == np.int32
