"""Packed sequences are refused where they are met: their shapes depend on values."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch.nn.utils.rnn import PackedSequence
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

from pockengine.errors import CaptureError


def refuse_packed(batch: Any) -> None:
    """Look for a packed sequence in a batch.

    Raises:
        CaptureError: there is one.
    """
    leaves = pytree.tree_leaves(batch, is_leaf=lambda leaf: isinstance(leaf, PackedSequence))
    if any(isinstance(leaf, PackedSequence) for leaf in leaves):
        raise _packed("compile(example_batch)")


class RefusePacking(TorchFunctionMode):
    """While a model is traced, packing its inputs is an error that says so."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Call a function of torch, but none that packs."""
        del types
        if getattr(func, "__name__", "") == "_pack_padded_sequence":
            raise _packed("capture, pack_padded_sequence")
        return func(*args, **(kwargs or {}))


def _packed(where: str) -> CaptureError:
    return CaptureError(
        where=where,
        found="a packed sequence, whose shape depends on the lengths in it",
        needed="sequences padded to one length, since a trainer's shapes are fixed",
        remedy="Give the recurrent layer the padded batch, and take each sequence's last output "
        "by its length: y[range(n), lengths - 1]",
    )
