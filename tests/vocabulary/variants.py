"""Rows with other operands: other strides, an axis of one element, an axis of none."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from tests.vocabulary.harness import Case, Operand, weighted

_View = Callable[[Tensor], Tensor]
_REFUSALS = (RuntimeError, IndexError, ValueError, TypeError, AssertionError, ZeroDivisionError)
"""What PyTorch raises for sizes that a function does not take."""


def _same(tensor: Tensor) -> Tensor:
    return tensor


def _turned(tensor: Tensor) -> Tensor:
    return tensor.permute(tuple(reversed(range(tensor.dim()))))


def _even(tensor: Tensor) -> Tensor:
    return tensor[..., ::2]


def _strided(tensor: Tensor) -> tuple[Tensor, _View]:
    """The tensor itself lies in memory the other way round."""
    return _turned(_turned(tensor).contiguous()), _same


def _transposed(tensor: Tensor) -> tuple[Tensor, _View]:
    return _turned(tensor).contiguous(), _turned


def _stepped(tensor: Tensor) -> tuple[Tensor, _View]:
    if tensor.dim() == 0:
        return tensor, _same
    return tensor.repeat_interleave(2, -1), _even


def _expanded(tensor: Tensor) -> tuple[Tensor, _View]:
    """All rows are the first one."""
    if tensor.dim() == 0 or tensor.shape[0] < 2 or not tensor.is_floating_point():
        return tensor, _same
    shape = tensor.shape
    return tensor[:1].clone(), lambda stored: stored.expand(shape)


_LAYOUTS: dict[str, Callable[[Tensor], tuple[Tensor, _View]]] = {
    "strided": _strided,
    "transposed": _transposed,
    "stepped": _stepped,
    "expanded": _expanded,
}


def layouts(row: Case) -> Iterator[tuple[str, Case]]:
    """The same function of operands that are not contiguous, where PyTorch takes them."""
    for label, change in _LAYOUTS.items():
        tensors = [torch.randn(o) if isinstance(o, tuple) else o for o in row.operands]
        stored, views = zip(*map(change, tensors), strict=True)
        found = Case(_through(row.function, views), stored, row.modules)
        if any(a is not b for a, b in zip(stored, tensors, strict=True)) and _works(found):
            yield label, found


def _through(function: Callable[..., object], views: Sequence[_View]) -> Callable[..., object]:
    def call(*operands: object) -> object:
        seen = [v(o) for v, o in zip(views, operands, strict=False) if isinstance(o, Tensor)]
        return function(*seen, *operands[len(views) :])

    return call


def sizes(row: Case) -> Iterator[tuple[str, Case]]:
    """The function where one size, or all, became one or zero, where PyTorch takes that."""
    shapes = [o if isinstance(o, tuple) else tuple(o.shape) for o in row.operands]
    present = sorted({size for shape in shapes for size in shape if size > 1})
    for new in (1, 0):
        for old in [*([size] for size in present), *([present] if len(present) > 1 else [])]:
            operands = tuple(_resized(operand, old, new) for operand in row.operands)
            found = Case(row.function, operands, row.modules)
            if _works(found):
                yield f"{new} for {old}", found


def _resized(operand: Operand, old: Sequence[int], new: int) -> Operand:
    if isinstance(operand, tuple):
        return tuple(new if size in old else size for size in operand)
    for axis, size in enumerate(operand.shape):
        if size in old:
            operand = operand.narrow(axis, 0, new)
    return operand.clone()


def _works(row: Case) -> bool:
    """Whether PyTorch computes it and its gradient."""
    operands = [
        torch.randn(o) if isinstance(o, tuple) else o.clone(memory_format=torch.preserve_format)
        for o in row.operands
    ]
    for operand in operands:
        operand.requires_grad_(operand.is_floating_point())
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = row.function(*operands, *copy.deepcopy(row.modules))
            loss = weighted(found if isinstance(found, (tuple, list)) else (found,), torch.ones(1))
            if loss.requires_grad:
                loss.backward()  # type: ignore[no-untyped-call]
    except _REFUSALS:
        return False
    return True
