"""Peak memory of a process that trains; run it in a process of its own.

    python -m tests.peak_memory wide 1000

prints a line of JSON: bytes by which the process grew at its peak from before the regions were
allocated, the regions' bytes by the plan, and the steps that were taken.
"""

from __future__ import annotations

import ctypes
import gc
import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import nn

import pockengine as pe
from pockengine.compile import link, prepare
from pockengine.tasks import mobilenet_v2
from tests.eager import Batches

_STATUS = Path("/proc/self/status")


def wide() -> tuple[nn.Module, Batches]:
    """Three layers of 1024: 25 MB of parameters and momenta, cheap steps."""
    model = nn.Sequential(*(nn.Linear(1024, 1024) for _ in range(3)), nn.Linear(1024, 10))
    return model, [(torch.randn(4, 1024), torch.randint(0, 10, (4,)))]


def mobile() -> tuple[nn.Module, Batches]:
    """MobileNetV2 on (8, 3, 64, 64)."""
    batch = torch.randn(8, 3, 64, 64), torch.randint(0, 10, (8,))
    return mobilenet_v2(classes=10).eval(), [batch]


MODELS: Mapping[str, Callable[[], tuple[nn.Module, Batches]]] = {"wide": wide, "mobile": mobile}


def peak_growth(name: str, steps: int) -> dict[str, int]:
    """Train and measure; resident bytes, from Linux's own high-water mark."""
    torch.set_num_threads(1)
    model, (batch,) = MODELS[name]()
    prepared = prepare(
        model,
        batch,
        loss="cross_entropy",
        optimizer=pe.SGD(momentum=0.9),
        scheme=pe.Scheme.full(),
    )
    program = link(prepared)
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    before = _resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # forget the peak so far
    trainer = pe.Trainer(program, prepared.captured.tensors, threads=1)
    for _ in range(steps):
        trainer.step(*batch, lr=1e-4)
    grown = _resident("VmHWM") - before
    return {"grown": grown, "regions": sum(trainer.plan.region_bytes), "steps": steps}


def _resident(field: str) -> int:
    """A line of /proc/self/status in bytes."""
    lines = dict(line.split(":", 1) for line in _STATUS.read_text(encoding="ascii").splitlines())
    return int(lines[field].split()[0]) * 1024


if __name__ == "__main__":
    sys.stdout.write(json.dumps(peak_growth(sys.argv[1], int(sys.argv[2]))) + "\n")
