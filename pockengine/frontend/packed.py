"""Packed sequences are refused where they are met: their shapes depend on values."""

from __future__ import annotations

from typing import Any, NoReturn

from torch.nn.utils.rnn import PackedSequence
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


def refuse_packing(*_: Any, **__: Any) -> NoReturn:
    """Stands for the packing of inputs while a model is traced.

    Raises:
        CaptureError: always.
    """
    raise _packed("capture, pack_padded_sequence")


def _packed(where: str) -> CaptureError:
    return CaptureError(
        where=where,
        found="a packed sequence, whose shape depends on the lengths in it",
        needed="sequences padded to one length, since a trainer's shapes are fixed",
        remedy="Give the recurrent layer the padded batch, and take each sequence's last output "
        "by its length: y[range(n), lengths - 1]",
    )
