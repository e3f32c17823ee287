"""How far a process grows that compiles a model on meta: ``python -m tests.stored_peak FOLDER``."""

from __future__ import annotations

import ctypes
import gc
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn

import pockengine as pe
from tests.peak_memory import _resident

WIDTH, LAYERS, ROWS = 1024, 16, 2
_SAVED = 4  # layers at a time, so that writing the file does not raise what is measured


def model() -> nn.Module:
    """Frozen layers and a head."""
    layers = (nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(LAYERS))
    return nn.Sequential(*layers, nn.Linear(WIDTH, 4))


def files(folder: Path) -> list[Path]:
    """The weights, cut into several files."""
    folder.mkdir()
    with torch.device("meta"):
        shapes = {name: tensor.shape for name, tensor in model().state_dict().items()}
    names, paths = list(shapes), []
    for start in range(0, len(names), _SAVED):
        paths.append(folder / f"{start}.safetensors")
        part = {n: torch.full(shapes[n], 1e-3) for n in names[start : start + _SAVED]}
        save_file(part, paths[-1])
    return paths


def options(loss: str = "cross_entropy") -> dict[str, object]:
    """What is compiled besides the model."""
    return {"loss": loss, "optimizer": pe.SGD(), "scheme": pe.Scheme.bias_only(), "threads": 1}


def main(folder: Path) -> tuple[int, int]:
    """Bytes that the process grew by, at most, and bytes of the trainer's regions."""
    torch.set_num_threads(1)
    paths = files(folder)
    batch = torch.randn(ROWS, WIDTH), torch.tensor([0, 1])
    small = nn.Linear(WIDTH, 4)
    pe.compile(small, batch, **options()).close()  # type: ignore[arg-type] # libraries are loaded
    with torch.device("meta"):
        large = model()
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    before = _resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # forget the peak so far
    trainer = pe.compile(large, batch, weights=paths, **options())  # type: ignore[arg-type]
    trainer.step(*batch, lr=1e-3)
    return _resident("VmHWM") - before, sum(trainer.plan.region_bytes)


if __name__ == "__main__":
    sys.stdout.write("{} {}\n".format(*main(Path(sys.argv[1]))))
