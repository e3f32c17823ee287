"""What a compiled trainer consists of, in figures fit for JSON, and for a terminal."""

from __future__ import annotations

from typing import Any

from tabulate import tabulate

from pockengine.lower.cache import read_payload
from pockengine.program import Program
from pockengine.report.plan_summary import regions
from pockengine.report.tables import optimizer_text
from pockengine.runtime.descriptor import Entry, Port
from pockengine.runtime.encoding import encode
from pockengine.runtime.footprint import footprint
from pockengine.trainer import Trainer

_FORMAT = "pockengine.manifest"
_VERSION = 1


def manifest(trainer: Trainer, *, model: str) -> dict[str, Any]:
    """Sizes, entry points and interface of a trainer.

    Args:
        trainer: of any target; for another than the host its core is compiled, to be measured.
        model: what the user calls the model.
    """
    program = trainer.program
    descriptor = program.descriptor
    return {
        "format": _FORMAT,
        "version": _VERSION,
        "model": model,
        "target": program.target.name,
        "optimizer": optimizer_text(program.optimizer),
        "scheme": dict(program.scheme),
        "kernels": len(program.kernels),
        "kernel_bytes": _kernel_bytes(trainer),
        "descriptor_bytes": len(encode(descriptor)),
        "region_bytes": regions(program.plan),
        "entries": {entry.name: _entry(entry, program) for entry in descriptor.entries},
    }


def _kernel_bytes(trainer: Trainer) -> int:
    program = trainer.program
    if program.target.llvm is None:
        return sum(len(read_payload(path)) for path in program.kernels)
    return footprint(trainer.image()).kernel_bytes


def _entry(entry: Entry, program: Program) -> dict[str, Any]:
    plan = program.plan.entries.get(entry.name)
    return {
        "kernel_calls": entry.calls,
        "arena_bytes": 0 if plan is None else plan.arena_bytes,
        "inputs": [_port(port) for port in entry.inputs],
        "outputs": [_port(port) for port in entry.outputs],
    }


def _port(port: Port) -> dict[str, Any]:
    return {"name": port.name, "dtype": port.dtype.value, "elements": port.size}


def manifest_table(found: dict[str, Any]) -> str:
    """A ``manifest`` for a terminal."""
    sizes = {
        f"{found['kernels']} kernels": found["kernel_bytes"],
        "descriptor": found["descriptor_bytes"],
        **found["region_bytes"],
    }
    rows = [(name, f"{nbytes / 1024:.1f}") for name, nbytes in sizes.items()]
    entries = [
        (name, each["kernel_calls"], f"{each['arena_bytes'] / 1024:.1f}")
        for name, each in found["entries"].items()
    ]
    updated = f"{found['optimizer']} updates {len(found['scheme'])} tensors"
    return "\n\n".join(
        (
            f"{found['model']} for {found['target']}: {updated}",
            tabulate(rows, headers=("part", "KiB")),
            tabulate(entries, headers=("entry point", "kernel calls", "arena KiB")),
        )
    )
