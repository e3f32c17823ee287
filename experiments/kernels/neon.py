"""NEON code of the contractions of whole training steps: inner loops and executed instructions.

    python -m experiments.kernels.neon                         all; writes neon.json and neon.md
    python -m experiments.kernels.neon --case mini_lm-b8       one; the others' results are kept

Needs ``capstone`` (disassembly) and ``unicorn`` (emulation of the processor) from PyPI. No Arm
machine is asked for: what is counted is instructions, not time.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import capstone  # type: ignore[import-not-found]
import torch
from tabulate import tabulate

import pockengine as pe
from experiments.kernels.emulated import Emulated
from experiments.step_time.settings import CASES
from pockengine.compile import prepare
from pockengine.ir.text import parse
from pockengine.lower.build import kernel_function
from pockengine.lower.codegen import compile_blob
from pockengine.lower.kernel import form_of
from pockengine.lower.operands import geometry
from pockengine.lower.products import products, summed_of
from pockengine.lower.tile_parameters import tile_parameters
from pockengine.targets import Target, get_target

HERE = Path(__file__).parent
RESULT = HERE / "neon.json"
LANES = 4
BUDGET = 2e7  # floating-point operations to emulate of one kernel; of larger ones, some units
SHOWN = 8  # kernels of a case in the table, the largest
CONDITIONAL = ("b", "cbz", "cbnz", "tbz", "tbnz")


@dataclass(frozen=True, slots=True)
class Instruction:
    """One instruction of a kernel."""

    address: int
    name: str
    operands: str

    @property
    def vector_fma(self) -> bool:
        """Whether it multiplies and adds four lanes."""
        return self.multiply_add and ".4s" in self.operands

    @property
    def multiply_add(self) -> bool:
        """Whether it multiplies and adds, be it one lane."""
        return self.name in ("fmla", "fmls", "fmadd", "fmsub", "fnmsub", "fnmadd")

    @property
    def kind(self) -> str:
        """What it is counted as."""
        if self.vector_fma:
            return "fma"
        if self.name.startswith(("ld", "st")) and "[sp" in self.operands:
            return "spill"
        for kind, names in (("load", ("ld",)), ("store", ("st",)), ("prefetch", ("prf",))):
            if self.name.startswith(names):
                return kind
        if self.target is not None or self.name in ("ret", "br"):
            return "branch"
        return "integer" if self.operands.startswith(("x", "w", "sp")) else "other vector"

    @property
    def target(self) -> int | None:
        """Where it branches to within the kernel."""
        if self.name not in CONDITIONAL and not self.name.startswith("b."):
            return None
        return int(self.operands.rpartition("#")[2], 16)


def instructions(code: bytes) -> list[Instruction]:
    """All of a kernel's code; the constants behind it come out as nonsense that never runs."""
    machine = capstone.Cs(capstone.CS_ARCH_ARM64, capstone.CS_MODE_ARM)
    machine.skipdata = True
    return [
        Instruction(address, name, operands)
        for address, _, name, operands in machine.disasm_lite(code, 0)
    ]


def innermost_loops(code: list[Instruction]) -> Iterator[list[Instruction]]:
    """The bodies of the loops (backward branches) that hold no other loop."""
    loops = {
        (each.target, each.address)
        for each in code
        if each.target is not None and each.target <= each.address
    }
    for first, last in sorted(loops):
        if not any((a, b) != (first, last) and first <= a and b <= last for a, b in loops):
            yield [each for each in code if first <= each.address <= last]


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """A kernel's inner loop, and what it executes.

    Attributes:
        what: the op, its extents (batch x rows x steps x columns).
        calls: of it in a step.
        mflop: of one call.
        tile: rows by vectors of the register tile.
        loop: instructions of the hot loop by kind.
        share: vector multiply-adds of all instructions of that loop.
        loads_per_fma: loads for each of them.
        emulated: part of the range that was.
        executed: instructions for every eight floating-point operations: 1 is the least.
    """

    what: str
    calls: int
    mflop: float
    tile: str
    loop: dict[str, int]
    share: float
    loads_per_fma: float
    emulated: float
    executed: float


def measure(text: str, calls: int, target: Target) -> Measured:
    """Build a kernel, run it, look at the loop that executes most multiply-adds."""
    assert target.llvm is not None
    graph = parse(text)
    function, work = kernel_function(text, target.llvm)
    blob = compile_blob(function, target.llvm, "kernel")
    nests = products(graph)
    flops = sum(2.0 * p.batch * p.rows * p.columns * _steps(p) for terms in nests for p in terms)
    units = max(1, min(work.extent, int(work.extent * BUDGET / flops)))
    machine = Emulated(blob, graph)
    machine.run(0, units)
    code = instructions(blob)
    counts = machine.counts()
    hot = max(
        innermost_loops(code),
        key=lambda body: sum(counts[each.address] for each in body if each.multiply_add),
    )
    kinds = Counter(each.kind for each in hot)
    largest = max(nests, key=lambda terms: terms[0].rows * _steps(terms[0]))
    cut = geometry(largest, tile_parameters(target.llvm))
    first = largest[0]
    return Measured(
        what=f"{summed_of(graph).name.rstrip('_0123456789')} "
        f"{first.batch} x {first.rows} x {_steps(first)} x {first.columns}",
        calls=calls,
        mflop=round(flops / 1e6, 3),
        tile=f"{cut.row_tile} x {max(len(cut.panel), len(cut.tail))}",
        loop=dict(sorted(kinds.items())),
        share=round(kinds["fma"] / len(hot), 4),
        loads_per_fma=round((kinds["load"] + kinds["spill"]) / max(1, kinds["fma"]), 3),
        emulated=round(units / work.extent, 4),
        executed=round(sum(counts.values()) / (flops * units / work.extent / 8), 3),
    )


def _steps(product: Any) -> int:
    steps = 1
    for extent in product.reduction:
        steps *= extent
    return steps


def contractions(case: str, target: Target) -> Counter[str]:
    """The texts of a step's contraction kernels, and how often each is called."""
    torch.manual_seed(0)
    chosen = CASES[case]
    prepared = prepare(
        chosen.model(),
        chosen.batch(),
        loss=chosen.loss,
        optimizer=pe.SGD(momentum=0.9),
        target=target,
    )
    step = next(source for source in prepared.sources if source.name == "step")
    found = Counter(kernel.text for kernel in step.kernels)
    return Counter({t: n for t, n in found.items() if form_of(parse(t)) == "contract"})


def summary(case: str, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """A case in one line; means are weighted by the work."""
    work = [row["mflop"] * row["calls"] for row in rows]
    total = sum(work)

    def mean(key: str) -> float:
        return sum(w * float(row[key]) for w, row in zip(work, rows, strict=True)) / total

    at_least = sum(w for w, row in zip(work, rows, strict=True) if row["share"] >= 0.85)
    return {
        "case": case,
        "kernels": len(rows),
        "GFLOP a step": f"{total / 1e3:.2f}",
        "FMA share of the hot loop": f"{mean('share'):.1%}",
        "least": f"{min(row['share'] for row in rows):.0%}",
        "work at 85 % or more": f"{at_least / total:.0%}",
        "loads per FMA": f"{mean('loads_per_fma'):.3f}",
        "executed per FMA": f"{mean('executed'):.3f}",
        "loops with spills": sum("spill" in row["loop"] for row in rows),
    }


def table(result: dict[str, list[dict[str, Any]]]) -> str:
    """The result as Markdown."""
    summaries = [summary(case, rows) for case, rows in result.items()]
    parts = [tabulate(summaries, headers="keys", tablefmt="github")]
    for case, rows in result.items():
        largest = sorted(rows, key=lambda row: -row["mflop"] * row["calls"])[:SHOWN]
        lines = [
            {
                "kernel": row["what"],
                "calls": row["calls"],
                "tile": row["tile"],
                **{kind: row["loop"].get(kind, 0) for kind in ("fma", "load", "integer")},
                "branch": row["loop"].get("branch", 0),
                "spill": row["loop"].get("spill", 0),
                "prefetch": row["loop"].get("prefetch", 0),
                "FMA share": f"{row['share']:.1%}",
                "executed per FMA": f"{row['executed']:.2f}",
                "emulated": f"{row['emulated']:.0%}",
            }
            for row in largest
        ]
        parts.append(f"## {case}\n\n" + tabulate(lines, headers="keys", tablefmt="github"))
    return "\n\n".join(parts) + "\n"


def main() -> None:
    """Measure what the command line names."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--case", choices=sorted(CASES), help="only this one; keep the others")
    parser.add_argument("--target", default="linux-arm64")
    options = parser.parse_args()
    target = get_target(options.target)
    for case in [options.case] if options.case else list(CASES):
        texts = contractions(case, target)
        rows = [asdict(measure(text, calls, target)) for text, calls in texts.items()]
        print(json.dumps(summary(case, rows)), flush=True)
        kept = json.loads(RESULT.read_text(encoding="utf-8")) if RESULT.exists() else {}
        found = {**kept, case: rows}
        result = {name: found[name] for name in CASES if name in found}
        RESULT.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
        (HERE / "neon.md").write_text(table(result), encoding="utf-8")
    print((HERE / "neon.md").read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
