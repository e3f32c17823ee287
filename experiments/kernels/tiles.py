"""How good the register tiles are that the machine model chooses (lower/register_tiles.py).

    python -m experiments.kernels.tiles mini_lm-b8 llama-b1 --json tiles.json

Contraction kernels of training steps (experiments/step_time/settings.py) are built with other
register tiles and run in turns on one core. Each call takes the operands that were used the longest
ago, so that they come from the last cache whoever asks: with one set for all, what runs second
finds them near and wins by 5 to 30 %, whatever its tile.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tabulate import tabulate

from experiments.step_time.settings import CASES, Case
from pockengine import SGD
from pockengine.compile import prepare
from pockengine.ir.graph import outputs_of, placeholders, type_of
from pockengine.ir.text import parse
from pockengine.ir.types import DType
from pockengine.lower.build import build_blob
from pockengine.lower.cache import KernelCache
from pockengine.lower.cache import load as mapped
from pockengine.lower.features import host_target
from pockengine.lower.kernel import form_of
from pockengine.lower.tile_parameters import Choice, tile_parameters
from pockengine.lower.trailer import read_trailer
from pockengine.report.cuts import Nest, nests

TARGET = {key: list(v) if isinstance(v, tuple) else v for key, v in host_target().items()}
TILES = tile_parameters(TARGET)
APART = 24 << 20  # bytes of operands between two uses of the same
MOST_SETS = 67
SHARE = 0.008  # of a step's contractions, below which a kernel is left out
FULL = 16  # vector registers a tile uses, at least, where the product is large enough


@dataclass(frozen=True, slots=True, kw_only=True)
class Raced:
    """A contraction with several register tiles.

    Attributes:
        case: the workload.
        signature: extents and ways through memory.
        calls: in a step.
        chosen: the model's tile.
        ms: median of a call by tile (``rows x vectors``).
    """

    case: str
    signature: str
    calls: int
    chosen: str
    ms: dict[str, float]


class Operands:
    """Copies of a kernel's operands, handed out in a circle."""

    def __init__(self, text: str) -> None:
        graph = parse(text)
        self._types = [type_of(n) for n in (*placeholders(graph), *outputs_of(graph).outputs)]
        nbytes = sum(4 * each.size for each in self._types)
        count = max(3, min(MOST_SETS, -(-APART // nbytes) | 1))
        random = np.random.default_rng(0)
        self._sets = [[_array(each, random) for each in self._types] for _ in range(count)]
        self._next = 0

    @property
    def count(self) -> int:
        """How many an operand list has."""
        return len(self._types)

    def oldest(self) -> list[np.ndarray]:
        """Those that were used the longest ago."""
        self._next = (self._next + 1) % len(self._sets)
        return self._sets[self._next]


def _array(of: Any, random: np.random.Generator) -> np.ndarray:
    """A cache line's start, small numbers; zeros for what is no float32."""
    memory = np.zeros(8 * of.size + 64, np.uint8)
    start = -memory.ctypes.data % 64
    array = memory[start : start + 8 * of.size]
    if of.dtype is DType.F32:
        array = array[: 4 * of.size].view(np.float32)
        array[:] = 0.1 * random.standard_normal(of.size)
    return array


class Built:
    """A kernel that can be timed."""

    def __init__(self, text: str, choices: dict[str, Choice], operands: Operands) -> None:
        blob = build_blob(text, json.dumps(TARGET), choices)
        self._extent, _ = read_trailer(blob)
        with tempfile.TemporaryDirectory() as folder:
            address = mapped(KernelCache(Path(folder)).put("kernel", blob))
        kinds = [ctypes.c_void_p] * operands.count + [ctypes.c_int64] * 2
        self._function = ctypes.CFUNCTYPE(ctypes.c_int32, *kinds)(address)
        self._operands = operands

    def ms(self) -> float:
        """One call over the whole range."""
        pointers = [array.ctypes.data for array in self._operands.oldest()]
        begin = time.perf_counter()
        self._function(*pointers, 0, self._extent)
        return (time.perf_counter() - begin) * 1e3


def race(kernels: Sequence[Built], seconds: float) -> list[float]:
    """Medians of so many seconds each, in turns."""
    for kernel in kernels:
        kernel.ms()
    times: list[list[float]] = [[] for _ in kernels]
    end = time.perf_counter() + seconds * len(kernels)
    while time.perf_counter() < end or len(times[0]) < 15:
        for kernel, found in zip(kernels, times, strict=True):
            found.append(kernel.ms())
    return [float(np.median(found)) for found in times]


def texts(case: Case) -> Counter[str]:
    """The contraction kernels of a workload's step, and how often each is called."""
    torch.manual_seed(0)
    prepared = prepare(case.model(), case.batch(), loss=case.loss, optimizer=SGD(momentum=0.9))
    step = next(source for source in prepared.sources if source.name == "step")
    found = Counter(step.kernels[i].text for i in prepared.plan.entries["step"].order)
    return Counter({text: n for text, n in found.items() if form_of(parse(text)) == "contract"})


def choices(nest: Nest) -> Iterator[tuple[str, Choice]]:
    """The model's tile, then the others that use most registers."""
    default = nest.default(TILES)
    for rows, vectors in nest.ranked_tiles(TILES, packed=default.packed):
        chosen = (rows, vectors) == (default.row_tile, default.vectors)
        if chosen or rows * vectors >= FULL:
            choice = {**asdict(default), "row_tile": rows, "vectors": vectors}
            yield f"{rows} x {vectors}", Choice(**choice)


def raced(case: str, seconds: float) -> Iterator[Raced]:
    """Every contraction of a workload that takes a share of its time."""
    calls = texts(CASES[case])
    alone = {text: race([Built(text, {}, Operands(text))], seconds / 4)[0] for text in calls}
    total = sum(alone[text] * n for text, n in calls.items())
    for text, n in calls.items():
        found = nests(text)
        if len(found) != 1 or alone[text] * n < SHARE * total:
            continue
        ((signature, nest),) = found.items()
        operands, tiles, cuts = Operands(text), {}, []
        for name, choice in choices(nest):
            cut = nest.cut(TILES, choice)
            if cut not in cuts:
                cuts.append(cut)
                tiles[name] = Built(text, {signature: choice}, operands)
        default = nest.default(TILES)
        yield Raced(
            case=case,
            signature=signature,
            calls=n,
            chosen=f"{default.row_tile} x {default.vectors}",
            ms=dict(zip(tiles, race(list(tiles.values()), seconds), strict=True)),
        )


def regret(rows: Sequence[Raced]) -> float:
    """Time of the chosen tiles over that of the best ones, all calls of a step together."""
    chosen = sum(row.calls * row.ms[row.chosen] for row in rows)
    return chosen / sum(row.calls * min(row.ms.values()) for row in rows)


def main() -> None:
    """Print a line for each contraction, and what the choices cost by workload."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("case", nargs="+", choices=sorted(CASES))
    parser.add_argument("--json", type=Path)
    parser.add_argument("--seconds", type=float, default=0.1, help="of each tile")
    options = parser.parse_args()
    torch.set_num_threads(1)
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    found: list[Raced] = []
    for case in options.case:
        for row in raced(case, options.seconds):
            found.append(row)
            best = min(row.ms, key=row.ms.__getitem__)
            slower = row.ms[row.chosen] / row.ms[best]
            print(f"{row.signature}: {row.chosen}, {slower:.2f} of {best}", flush=True)
    lines = [(case, regret([row for row in found if row.case == case])) for case in options.case]
    print(tabulate(lines, headers=("workload", "chosen over best"), floatfmt=".3f"))
    if options.json:
        options.json.write_text(json.dumps([asdict(row) for row in found], indent=1) + "\n")


if __name__ == "__main__":
    main()
