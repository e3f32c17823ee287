"""Trainers of other machines against this host: losses, memory, code size, stack.

    python experiments/verify/machines.py [CASE ...]

Each case trains five steps on random batches here and in emulation; what is found replaces the
case's entry in ``machines.json`` beside this file: an interrupted run goes on where it stopped.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

import pockengine as pe
from pockengine.runtime.elf import undefined
from pockengine.runtime.footprint import footprint
from pockengine.tasks import mobilenet_v2

RESULT = Path(__file__).with_suffix(".json")
STEPS = 5


@dataclass(frozen=True)
class Case:
    """A model on a machine: ``inputs`` is the shape of a batch."""

    target: str
    model: Callable[[], nn.Module]
    inputs: tuple[int, ...]
    lr: float = 0.01
    scheme: pe.Scheme | None = None


def mlp() -> nn.Module:
    """(N, 32) to (N, 10)."""
    return nn.Sequential(
        *(nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 64), nn.GELU()),
        *(nn.LayerNorm(64), nn.Linear(64, 10)),
    )


def wide_mlp() -> nn.Module:
    """(N, 600) to (N, 10): reductions longer than a kernel's scratch."""
    return nn.Sequential(nn.Linear(600, 24), nn.Tanh(), nn.Linear(24, 10))


def mobilenet(width: float, pixels: int) -> Callable[[], nn.Module]:
    """MobileNetV2 with ten classes in eval mode, its running statistics those of random images.

    Without these its fresh weights would give logits of about zero, and a loss of log 10 whatever
    a kernel did.
    """

    def made() -> nn.Module:
        model = mobilenet_v2(width, classes=10)
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = None  # the average of all that was seen
        with torch.no_grad():
            model(torch.randn(16, 3, pixels, pixels))
        nn.init.normal_(model.classifier[1].weight, std=0.1)
        return model.eval()

    return made


CASES = {
    "cortex-m7-mlp": Case("stm32f746", mlp, (16, 32)),
    "cortex-m7-wide-mlp": Case("stm32f746", wide_mlp, (4, 600)),
    "cortex-m4f-mlp": Case("nrf52840", mlp, (16, 32)),
    "arm64-mlp": Case("linux-arm64", mlp, (16, 32)),
    "arm64-mobilenet-v2-0.35-32px": Case("linux-arm64", mobilenet(0.35, 32), (2, 3, 32, 32), 1e-4),
    "arm64-mobilenet-v2-1.0-128px": Case(
        "linux-arm64", mobilenet(1.0, 128), (1, 3, 128, 128), 1e-4
    ),
}


def run(case: Case) -> dict[str, Any]:
    """Measure one case; ``max_relative_error`` is over the steps' losses."""
    torch.manual_seed(0)
    model = case.model()
    batches = [
        (torch.randn(case.inputs), torch.randint(0, 10, case.inputs[:1])) for _ in range(STEPS)
    ]
    made: Any = {"loss": "cross_entropy", "optimizer": pe.SGD(momentum=0.9), "scheme": case.scheme}
    with pe.compile(model, batches[0], threads=1, **made) as host:
        losses = [host.step(*batch, lr=case.lr) for batch in batches]
    trainer = pe.compile(model, batches[0], target=case.target, **made)
    image = trainer.image()
    taken = footprint(image)
    start = time.monotonic()
    replay = trainer.emulate(batches, lr=case.lr)
    return {
        "target": case.target,
        "inputs": case.inputs,
        "host_losses": losses,
        "losses": replay.losses,
        "max_relative_error": max(
            abs(a - b) / abs(a) for a, b in zip(losses, replay.losses, strict=True)
        ),
        "emulation_seconds": round(time.monotonic() - start, 1),
        "stack_bytes": replay.stack_bytes,
        "kernels": len(image.descriptor.kernels),
        "undefined": sorted(frozenset().union(*map(undefined, image.kernel_objects()))),
        **asdict(taken),
    }


def main(names: list[str]) -> None:
    """Run the named cases, or those that have no result yet."""
    found = json.loads(RESULT.read_text()) if RESULT.exists() else {}
    for name in names or [name for name in CASES if name not in found]:
        found[name] = run(CASES[name])
        RESULT.write_text(json.dumps(found, indent=1) + "\n")
        print(f"{name}: losses within {found[name]['max_relative_error']:.1e} of the host's")


if __name__ == "__main__":
    main(sys.argv[1:])
