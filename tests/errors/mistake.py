"""What a mistake is, and the small model most of them are made with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from inspect import cleandoc, getdoc
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

import pockengine as pe
from pockengine.errors import PockEngineError

Maker: TypeAlias = Callable[[Path], object]
"""Makes a mistake through the public API; gets an empty folder."""


@dataclass(frozen=True, slots=True)
class Mistake:
    """One row of the catalogue.

    Args:
        kind: the class of the error.
        make: makes the mistake; its docstring says it in a sentence.
    """

    kind: type[PockEngineError]
    make: Maker

    @property
    def name(self) -> str:
        """What tests call it."""
        return self.make.__name__

    @property
    def told(self) -> str:
        """The mistake in a sentence."""
        return " ".join(cleandoc(getdoc(self.make) or "").split())


class Mistakes(list[Mistake]):
    """The mistakes of one file; ``@mistakes(kind)`` adds one."""

    def __call__(self, kind: type[PockEngineError]) -> Callable[[Maker], Maker]:
        """Add the function that follows."""

        def add(make: Maker) -> Maker:
            self.append(Mistake(kind, make))
            return make

        return add


X = torch.arange(12.0).reshape(4, 3) / 12
Y = torch.tensor([0, 1, 0, 1])


def network() -> nn.Sequential:
    """(4, 3) -> two classes."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))


def build(model: Any = None, batch: Any = (X, Y), **changes: Any) -> pe.Trainer:
    """Compile the small model, or another, with some arguments in another way."""
    chosen = {"loss": "cross_entropy", "optimizer": pe.SGD(momentum=0.9), **changes}
    return pe.compile(network() if model is None else model, batch, **chosen)


@cache
def trainer() -> pe.Trainer:
    """A trainer of the small model that has made a step; mistakes must not change it."""
    made = build()
    made.step(X, Y, lr=0.1)
    return made


def values(of: pe.Trainer) -> dict[str, Tensor]:
    """All that a mistake could have changed in a trainer."""
    regions = of._contents.regions
    return {str(i): torch.from_numpy(regions.arrays[i].copy()) for i in range(3)}


class Written(nn.Module):
    """A layer, and what a user wrote after it.

    Args:
        after: from the layer's output to the model's.
    """

    def __init__(self, after: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 2)
        self.after = after

    def forward(self, x: Tensor) -> Any:
        """(N, 3) -> what ``after`` makes of (N, 2)."""
        return self.after(self.layer(x))
