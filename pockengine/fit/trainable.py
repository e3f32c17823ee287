"""What the loop needs of a trainer."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from pockengine.frontend.losses import LossKind
from pockengine.runtime.signature import Signature


class Compiled(Protocol):
    """What a trainer was compiled for."""

    @property
    def shapes(self) -> tuple[Signature, ...]:
        """What it may be called with; the example batch first."""
        ...

    @property
    def partial(self) -> bool:
        """Whether a batch may have fewer samples."""
        ...

    @property
    def loss(self) -> LossKind:
        """What its loss says about the layout of scores and labels."""
        ...


class Trainable(Protocol):
    """A trainer; ``pockengine.trainer.Trainer`` says what each does."""

    @property
    def program(self) -> Compiled:
        """What was compiled."""
        ...

    @property
    def accumulated(self) -> int:
        """How many steps wait for their update."""
        ...

    def step(self, inputs: Any, targets: Any = None, *, lr: float) -> float:
        """Train on one batch; the loss."""
        ...

    def apply(self, *, lr: float) -> bool:
        """Update by what is accumulated."""
        ...

    def evaluate(self, inputs: Any, targets: Any, *, ema: bool = False) -> tuple[float, Any]:
        """The loss and the outputs."""
        ...

    def save(
        self, path: str | Path, *, delta: bool = False, extra: Mapping[str, str] | None = None
    ) -> None:
        """Write a checkpoint."""
        ...

    def load(self, path: str | Path) -> dict[str, str]:
        """Read a checkpoint; its ``extra``."""
        ...
