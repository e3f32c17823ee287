"""Compile every architecture of the table and compare its losses with PyTorch's.

``python -m experiments.coverage.run`` goes on where it was stopped; ``--only NAME`` (a shell
pattern) runs some again.
"""

from __future__ import annotations

import argparse
import copy
import json
import multiprocessing
import re
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import torch
from tabulate import tabulate
from torch import Tensor, nn

import pockengine as pe
import pockengine.compile
from experiments.coverage.inputs import build
from experiments.coverage.models import MODELS
from pockengine.errors import CaptureError, PockEngineError

HERE = Path(__file__).parent
RATE, MOMENTUM, TOLERANCE = 1e-2, 0.9, 1e-4
SECONDS = 120
Outcome = dict[str, Any]


def eager_losses(model: nn.Module, batches: Iterable[tuple[dict[str, Tensor], Tensor]]) -> Any:
    """The losses of PyTorch's own steps; the model is changed."""
    optimizer = torch.optim.SGD(model.parameters(), lr=RATE, momentum=MOMENTUM)
    losses = []
    for inputs, targets in batches:
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(**inputs), targets)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        losses.append(loss.item())
    return losses


def exported(model: nn.Module, inputs: dict[str, Tensor]) -> str:
    """Why torch.export refuses a model; empty where it does not."""
    try:
        torch.export.export(model, (), inputs, strict=False)
    except Exception as error:  # noqa: BLE001 - whatever it is, it belongs into the table
        return f"{type(error).__name__}: {_first_line(error)}"
    return ""


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), "")[:300]


def check(name: str) -> Outcome:
    """One architecture: its status, and why."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    try:
        model, batches = build(MODELS[name])
    except Exception:  # noqa: BLE001 - the row is wrong
        return {"status": "row", "reason": traceback.format_exc(limit=-3)[-600:]}
    wanted = eager_losses(copy.deepcopy(model), batches)
    try:
        with pe.compile(
            model, batches[0], loss="cross_entropy", optimizer=pe.SGD(momentum=MOMENTUM), threads=1
        ) as trainer:
            found = [trainer.step(inputs, targets, lr=RATE) for inputs, targets in batches]
    except CaptureError as error:
        if refused := exported(model, batches[0][0]):
            return {"status": "not exported by torch", "reason": refused}
        unsupported = "vocabulary does not hold" in str(error)
        return {"status": "unsupported op" if unsupported else "error", "reason": str(error)}
    except PockEngineError as error:
        return {"status": "error", "reason": f"{type(error).__name__}: {error}"[:600]}
    except Exception:  # noqa: BLE001 - whatever it is, it belongs into the table
        return {"status": "error", "reason": traceback.format_exc(limit=-4)[-900:]}
    worst = max(abs(a - b) / abs(b) for a, b in zip(found, wanted, strict=True))
    status = "ok" if worst <= TOLERANCE else "differs"
    reason = "" if status == "ok" else f"{found} for {wanted}"
    return {"status": status, "loss_error": worst, "reason": reason}


def _child(name: str, pipe: Any) -> None:
    pipe.send(check(name))


def attempt(name: str, seconds: float) -> Outcome:
    """``check`` in a process of its own, for so long and no longer."""
    context = multiprocessing.get_context("fork")
    receive, send = context.Pipe(duplex=False)
    start = time.perf_counter()
    process = context.Process(target=_child, args=(name, send))
    process.start()
    send.close()
    try:
        late = not receive.poll(seconds)
        found = {"status": "error", "reason": f"over {seconds} s"} if late else receive.recv()
    except EOFError:
        found = {"status": "error", "reason": "the process died"}
    process.kill()
    process.join()
    return {"name": name, **found, "seconds": round(time.perf_counter() - start, 1)}


def unsupported_ops(outcomes: Iterable[Outcome]) -> Counter[str]:
    """In how many architectures each op is missing."""
    found: Counter[str] = Counter()
    for outcome in outcomes:
        if outcome["status"] == "unsupported op":
            listed = outcome["reason"].split("does not hold: ")[-1].split("; ")
            found.update({re.split(r" \(", part)[0] for part in listed[:-1]})
    return found


def summed_up(outcomes: Mapping[str, Outcome]) -> str:
    """The table: totals, then one line an architecture."""
    totals = Counter(outcome["status"] for outcome in outcomes.values())
    counts = tabulate(totals.most_common(), ("status", "architectures"), tablefmt="github")
    captured = sum(totals.values()) - totals["not exported by torch"]
    share = f"{totals['ok']} of the {captured} that torch.export captures follow PyTorch."
    rows = [
        (
            name,
            found["status"],
            f"{found['loss_error']:.0e}" if "loss_error" in found else "",
            found["reason"].replace("\n", " ").replace("|", "/")[:160],
        )
        for name, found in sorted(outcomes.items())
    ]
    listed = tabulate(
        rows, ("model", "status", "loss error", "reason"), tablefmt="github", disable_numparse=True
    )
    return f"{counts}\n\n{share}\n\n{listed}\n"


def main() -> None:
    """Run what has no result, and sum up."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", help="a shell pattern of names, which run again")
    parser.add_argument("--failed", action="store_true", help="run again all that is not ok")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="limit of each")
    arguments = parser.parse_args()
    path = HERE / "result.json"
    kept: dict[str, Outcome] = json.loads(path.read_text("utf-8")) if path.exists() else {}
    for name in MODELS:
        done = name in kept and not (arguments.failed and kept[name]["status"] != "ok")
        if arguments.only:
            done = not fnmatchcase(name, arguments.only)
        if done:
            continue
        kept[name] = found = attempt(name, arguments.seconds)
        print(f"{name}: {found['status']} ({found['seconds']} s) {found['reason']}", flush=True)
        path.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
        (HERE / "table.md").write_text(summed_up(kept), encoding="utf-8")
    print(unsupported_ops(kept.values()).most_common())


if __name__ == "__main__":
    main()
