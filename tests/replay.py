"""Eager PyTorch with the random numbers of a trainer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from pockengine.ir.draws import uniform

_aten = torch.ops.aten


class Replay(TorchDispatchMode):
    """Every draw of PyTorch inside is the trainer's of a step: the same streams in the same order.

    Args:
        seed: as ``pe.compile`` has it.
        step: how many steps ran before.
    """

    def __init__(self, seed: int, step: int) -> None:
        super().__init__()
        self._seed, self._step, self._stream = seed, step, 0

    def __torch_dispatch__(
        self,
        func: Any,
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Run an op, or replace its draw."""
        del types
        if func is _aten.bernoulli_.float:
            chance = args[1] if len(args) > 1 else 0.5
            return args[0].copy_(self._draw(args[0]) < chance)
        if func is _aten.native_dropout.default:
            kept = self._draw(args[0]) < 1 - args[1]
            return args[0] * kept / (1 - args[1]), kept
        return func(*args, **(kwargs or {}))

    def _draw(self, like: Tensor) -> Tensor:
        self._stream += 1
        scalars = torch.tensor(self._seed), torch.tensor(self._step)
        return uniform(*scalars, tuple(like.shape), self._stream - 1)
