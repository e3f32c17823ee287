"""A run in a process of its own, which tests kill: prints every step's loss."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

import pockengine as pe

FOLDER, SLOWLY = Path(sys.argv[1]), "slowly" in sys.argv


class Noisy(Dataset[tuple[Tensor, Tensor]]):
    """Samples with noise, which workers draw."""

    def __len__(self) -> int:
        return 40

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        x = torch.randn(6, generator=torch.Generator().manual_seed(index))
        return x + 0.1 * torch.rand(6), x[:3].argmax()


def told(status: Any) -> None:
    """Print the loss exactly, and let the parent see it."""
    print("step", status.step, status.loss.hex(), flush=True)  # noqa: T201 - the parent reads it
    time.sleep(0.05 if SLOWLY else 0)


def main() -> None:
    """Four epochs of ten batches of four."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Dropout(0.3), nn.Linear(8, 3))
    example = torch.zeros(4, 6), torch.zeros(4, dtype=torch.int64)
    loader = DataLoader(Noisy(), 4, shuffle=True, num_workers=1)
    options: dict[str, Any] = {"loss": "cross_entropy", "optimizer": pe.AdamW()}
    with pe.compile(model, example, **options, threads=2, accumulate=2, seed=1) as trainer:
        trainer.fit(
            loader,
            epochs=4,
            lr=pe.schedules.cosine(0.05, 40),
            callbacks=[told],
            checkpoint=FOLDER / "run.ckpt",
            save_every=3,
        )


main()
