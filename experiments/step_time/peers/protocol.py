"""The side of a peer: it prepares a workload, then answers the run, a line of JSON a request.

    {"steps": 4}  ->  {"ms": [...], "cpu_ms": [...], "losses": [...]}
    {"ask": "peak"}  ->  {"peak": ...}, for what this peer can tell besides

It says what it is first. Between requests it waits for its standard input, and the
run has stopped it. Answers have a channel of their own, as frameworks print what they like.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

LR = 1e-3
MOMENTUM = 0.9


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """A workload as it is handed to a peer.

    Attributes:
        case: its name in ``settings.CASES``.
        threads: how many may work.
        parameters: what is trained, in PyTorch's layouts, by PyTorch's names.
        buffers: what is not: BatchNorm's running statistics, rotations.
        inputs: of the network.
        labels: targets.
    """

    case: str
    threads: int
    parameters: dict[str, NDArray[Any]]
    buffers: dict[str, NDArray[Any]]
    inputs: tuple[NDArray[Any], ...]
    labels: NDArray[Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """A workload that is ready to train.

    Attributes:
        step: does a step, all of it, and gives its loss.
        trained: elements of what a step updates.
        version: of the framework.
        note: what differs from the others; empty where nothing does.
        comparable: the first so many losses are those of the others; None for all.
        answers: what it can be asked besides, by name.
    """

    step: Callable[[], float]
    trained: int
    version: str
    note: str = ""
    comparable: int | None = None
    answers: dict[str, Callable[[], object]] = field(default_factory=dict)


def serve(prepare: Callable[[Task], Peer]) -> None:
    """Prepare what the command line names, and answer until the standard input ends."""
    parser = argparse.ArgumentParser()
    parser.add_argument("case")
    parser.add_argument("data", help="the workload, as the run wrote it (.npz)")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--channel", type=int, required=True, help="a descriptor for answers")
    options = parser.parse_args()
    peer = prepare(_task(options.case, options.threads, options.data))
    told = {name: getattr(peer, name) for name in ("trained", "version", "note", "comparable")}
    with os.fdopen(options.channel, "w") as channel:
        for answer in chain((told,), _answers(peer)):
            channel.write(json.dumps(answer) + "\n")
            channel.flush()


def _answers(peer: Peer) -> Iterator[dict[str, object]]:
    """An answer for each request."""
    for line in sys.stdin:
        request = json.loads(line)
        if "ask" in request:
            yield {request["ask"]: peer.answers[request["ask"]]()}
        else:
            yield _steps(peer.step, request["steps"])


def _steps(step: Callable[[], float], count: int) -> dict[str, object]:
    """Milliseconds by the clock and of processor time, and the loss, of each step."""
    spans, losses = [], []
    for _ in range(count):
        before = time.perf_counter(), time.process_time()
        losses.append(step())
        after = time.perf_counter(), time.process_time()
        spans.append([(b - a) * 1e3 for a, b in zip(before, after, strict=True)])
    ms, cpu_ms = zip(*spans, strict=True)
    return {"ms": ms, "cpu_ms": cpu_ms, "losses": losses}


def _task(case: str, threads: int, path: str) -> Task:
    """The workload in a file that the run wrote."""
    parts: dict[str, dict[str, NDArray[Any]]] = {}
    with np.load(path) as stored:
        for key in stored.files:
            kind, _, name = key.partition("/")
            parts.setdefault(kind, {})[name] = stored[key]
    inputs = parts["inputs"]
    return Task(
        case=case,
        threads=threads,
        parameters=parts["parameters"],
        buffers=parts.get("buffers", {}),
        inputs=tuple(inputs[str(place)] for place in range(len(inputs))),
        labels=parts["labels"]["0"],
    )
