"""Tensors that a model holds as plain attributes, under tracing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

_MAKERS = frozenset(
    "zeros_like ones_like empty_like full_like clone new_zeros new_ones new_empty new_full".split()
)


class FreshFromConstants(TorchFunctionMode):
    """Makes what is made after a constant writable: ``zeros_like(mask).masked_fill_(mask, -inf)``.

    AOTAutograd turns writes into values only for tensors that it has seen made; one that comes from
    a constant alone (an attention mask that is neither buffer nor input) it has not.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Call a function of torch, with its constant seen first."""
        del types
        if args and type(args[0]) is Tensor and getattr(func, "__name__", "") in _MAKERS:
            args = (torch.ops.aten.lift_fresh_copy(args[0]), *args[1:])
        return func(*args, **(kwargs or {}))
