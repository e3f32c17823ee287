"""The long verification. `make verify`.

    python -m experiments.verify.run                    whatever has no result for this code yet
    python -m experiments.verify.run --only 'numbers-mlp-*' --force

Each check leaves results/NAME.json, so a run that was stopped goes on where it was; table.md sums
up all results, and says which are of another code. The exit status is 1 if a check failed.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from fnmatch import fnmatchcase
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from tabulate import tabulate

from experiments.verify.cases import TRIPLES, long_case, short_case
from tests.pass_oracle import checked_passes
from tests.spine import Case, compiled_trainer, judge, train, train_in_pytorch

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
RESULTS = HERE / "results"
GAP = 1.05
GROWTH = 1.1
READY_SECONDS = 3.0

Outcome = dict[str, Any]  # what was measured, and "failures": a list of sentences


def check_numbers(model: str, scheme: str, optimizer: str) -> Outcome:
    """Losses and parameters against PyTorch; the same bits again and with two threads; the plan."""
    case = long_case(model, scheme, optimizer)
    run = train(case)
    found = judge(case, run, train_in_pytorch(case), train_in_pytorch(case, torch.float64))
    for what, threads in (("a second run", 1), ("two threads", 2)):
        if not train(case, threads).same_bits(run):
            found.failures.append(f"{what} gives other bits")
    plan, failures = _planned(case)
    return {
        "lr": case.lr,
        "steps": len(case.batches),
        "losses": run.losses,
        "loss_error": found.loss_error,
        "eager_loss_error": found.eager_loss_error,
        "parameter_error": found.parameter_error,
        "worst_parameter": found.worst,
        "without_gradient": found.without_gradient,
        **plan,
        "failures": found.failures + failures,
    }


def _planned(case: Case) -> tuple[Outcome, list[str]]:
    """Bytes by region, as planned and as allocated."""
    with compiled_trainer(case) as trainer:
        plan = trainer.plan
        used = tuple(region.nbytes for region in trainer.engine.regions)
    failures = []
    if used != plan.region_bytes:
        failures.append(f"regions are {used} bytes, {plan.region_bytes} by the plan")
    gap = plan.arena_bytes / plan.lower_bound_bytes
    if gap > GAP:
        failures.append(f"the arena is {gap:.3f} of its lower bound")
    names = ("const_bytes", "param_bytes", "state_bytes", "arena_bytes")
    return {**dict(zip(names, used, strict=True)), "arena_gap": gap}, failures


def check_passes(model: str, scheme: str, optimizer: str) -> Outcome:
    """Every graph that compile makes, in float64, against autograd and PyTorch's optimizer."""
    case = short_case(model, scheme, optimizer)
    oracle = checked_passes(case)
    return {"graphs": len(oracle.checked), "failures": oracle.failures}


def check_peak_memory(model: str, steps: int) -> Outcome:
    """A process grows by no more than the regions and a tenth."""
    found = _in_process("tests.peak_memory", model, str(steps))
    ratio = found["grown"] / found["regions"]
    failures = [f"the process grew by {ratio:.3f} of its regions"] if ratio > GROWTH else []
    return {**found, "ratio": ratio, "failures": failures}


def check_second_scheme() -> Outcome:
    """With a warm cache a further scheme is soon ready, and starts no process."""
    found = _in_process("experiments.verify.second_scheme")
    failures = [
        f"{scheme} took {seconds['ready']:.1f} s"
        for scheme, seconds in list(found["seconds"].items())[1:]
        if seconds["ready"] > READY_SECONDS
    ]
    if found["processes"]:
        failures.append(f"processes were started: {found['processes']}")
    return {**found, "failures": failures}


def _in_process(module: str, *arguments: str) -> Outcome:
    """Run a module of ours alone; it prints JSON."""
    ran = subprocess.run(
        [sys.executable, "-m", module, *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    found: Outcome = json.loads(ran.stdout)
    return found


def check_more(times: int, *tests: str) -> Outcome:
    """Some tests with so many times as many random examples."""
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *tests],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "POCKENGINE_EXAMPLES": str(times)},
    )
    return {"times": times, "failures": [ran.stdout[-4000:]] if ran.returncode else []}


def _label(names: tuple[str, ...]) -> str:
    """A check's name, fit for a file."""
    return "-".join(names).replace("/", "-")


CHECKS: Mapping[str, Callable[[], Outcome]] = {
    **{f"passes-{_label(names)}": partial(check_passes, *names) for names in TRIPLES},
    **{f"numbers-{_label(names)}": partial(check_numbers, *names) for names in TRIPLES},
    "peak_memory-wide": partial(check_peak_memory, "wide", 1000),
    "peak_memory-mobile": partial(check_peak_memory, "mobile", 1000),
    "properties": partial(check_more, 20, "tests/properties"),
    "fuzz": partial(check_more, 7, "tests/fuzz", "tests/test_disk.py"),
    "second_scheme-mobile": check_second_scheme,
}


@cache
def code_hash(kind: str) -> str:
    """A digest of what the results of a kind of checks depend on in this repository."""
    files = [
        *(path for path in ROOT.glob("pockengine/**/*") if path.suffix in (".py", ".c", ".h")),
        *ROOT.glob("tests/zoo/*.py"),
        *ROOT.glob(f"tests/{kind}/*.py"),
        *(path for path in (ROOT / "tests").glob("*.py") if not path.name.startswith("test_")),
        *(HERE / name for name in ("cases.py", "second_scheme.py")),
    ]
    digest = hashlib.sha256()
    for path in sorted(files):
        digest.update(f"{path.relative_to(ROOT)}\0".encode() + path.read_bytes())
    return digest.hexdigest()


def attempt(check: Callable[[], Outcome]) -> Outcome:
    """A check's outcome; one that breaks has failed, and the others still run."""
    start = time.perf_counter()
    try:
        outcome = check()
    except Exception:  # noqa: BLE001 - whatever it is, it belongs into the result
        outcome = {"failures": [traceback.format_exc()]}
    return {**outcome, "seconds_taken": round(time.perf_counter() - start, 1)}


def _path(name: str) -> Path:
    return RESULTS / f"{name}.json"


def kept(name: str) -> Outcome | None:
    """A check's result, if there is one, for whatever code."""
    if not _path(name).exists():
        return None
    found: Outcome = json.loads(_path(name).read_text(encoding="utf-8"))
    return found


def is_present(name: str, outcome: Outcome) -> bool:
    """Whether a result is of the present code."""
    return bool(outcome["code"] == code_hash(name.partition("-")[0]))


def summed_up(outcomes: Mapping[str, Outcome]) -> str:
    """The table: one line a check."""
    rows = [
        (
            name,
            "failed" if outcome["failures"] else "passed",
            _code_told(name, outcome),
            _shown(outcome, "loss_error", "{:.1e}"),
            _shown(outcome, "parameter_error", "{:.3f}"),
            _shown(outcome, "arena_gap", "{:.4f}"),
            outcome["seconds_taken"],
        )
        for name, outcome in outcomes.items()
    ]
    headers = (
        "check",
        "",
        "code",
        "loss error",
        "parameter error / allowed",
        "arena / bound",
        "seconds",
    )
    return tabulate(rows, headers, tablefmt="github", disable_numparse=True) + "\n"


def _code_told(name: str, outcome: Outcome) -> str:
    """The commit that a result is of, and whether the code has changed since."""
    commit = outcome.get("commit", "")
    return commit if is_present(name, outcome) else f"{commit} (older)".strip()


def commit() -> str:
    """The commit that is checked out, with a + where its code was changed; empty without git."""
    head = _git("rev-parse", "--short", "HEAD").strip()
    return head + ("+" if _git("diff", "--name-only", "HEAD", "--", "pockengine", "tests") else "")


def _git(*arguments: str) -> str:
    command = ["git", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False).stdout


def _shown(outcome: Outcome, key: str, shape: str) -> str:
    return shape.format(outcome[key]) if key in outcome else ""


def main() -> int:
    """Run what is missing and sum up."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="*", help="a shell pattern of names")
    parser.add_argument("--force", action="store_true", help="run again what has a result")
    arguments = parser.parse_args()
    RESULTS.mkdir(exist_ok=True)
    outcomes: dict[str, Outcome] = {}
    for name in (name for name in CHECKS if fnmatchcase(name, arguments.only)):
        found = kept(name)
        if found is None or arguments.force or not is_present(name, found):
            code = {"code": code_hash(name.partition("-")[0]), "commit": commit()}
            found = {**code, **attempt(CHECKS[name])}
            _path(name).write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        outcomes[name] = found
        print(f"{name}: {'; '.join(found['failures']) or 'passed'}", flush=True)
    print(summed_up(outcomes))
    everything = {name: found for name in CHECKS if (found := kept(name)) is not None}
    (HERE / "table.md").write_text(summed_up(everything), encoding="utf-8")
    return 1 if any(outcome["failures"] for outcome in outcomes.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
