"""The zoo's models as cases that are held to PyTorch."""

from __future__ import annotations

import torch

from tests.models import OPTIMIZERS, SCHEMES
from tests.spine import Case
from tests.zoo import ZOO


def zoo_case(name: str, scheme: str, optimizer: str, *, steps: int, tiny: bool) -> Case:
    """A case by its names; the same from call to call."""
    torch.manual_seed(0)
    exhibit = ZOO[name]
    size = exhibit.tiny if tiny else exhibit.natural
    model = exhibit.build(size)
    settings, lr = OPTIMIZERS[optimizer]
    return Case(
        model=model,
        batches=[size.batch() for _ in range(steps)],
        scheme=SCHEMES[scheme](model),
        optimizer=settings,
        lr=lr,
        loss=exhibit.loss,
    )
