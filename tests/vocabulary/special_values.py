"""Captured graphs with NaN, infinities, signed zeros and extreme numbers among their operands."""

from __future__ import annotations

import copy
from collections.abc import Container, Mapping, Sequence
from math import inf, nan

import torch
from torch import Tensor

from pockengine.ir.interpret import interpret
from tests.vocabulary.differences import Traced, parameters
from tests.vocabulary.harness import Cases, weighted

KINDS: dict[str, tuple[float, ...]] = {
    "NaN": (nan,),
    "infinity": (inf,),
    "minus infinity": (-inf,),
    "both infinities": (inf, -inf),
    "zeros": (0.0, -0.0),
    "all": (nan, inf, -inf, 0.0, -0.0),
}
_OFTEN = 0.3
_TOLERANCE = 1e-4
"""Relative, of an element: float32 through a few ops, which cancel a little."""
_HUGE = 1e6
_FLOOR = 2e-5
"""Of the largest finite element of a tensor that is not huge, and at least of one; likewise."""


def wrong_values(found: Traced, kind: str, skipped: Container[str]) -> list[str]:
    """Where outputs or gradients of a graph differ from PyTorch's for special operands, in words.

    Args:
        found: a captured table.
        kind: of ``KINDS``.
        skipped: cases that PyTorch leaves undefined, with the reason.
    """
    model = special(found.model, KINDS[kind])
    given, target = found.batch
    values = {**found.captured.tensors, **dict(model.named_parameters())}
    names = (*found.captured.inputs, *found.captured.targets)
    values |= dict(zip(names, (*given, target), strict=True))
    with torch.no_grad():
        mine = interpret(found.captured.graph, values)
    return wrong_results(model, mine.outputs, mine.gradients, kind, skipped)


def wrong_results(
    model: Cases,
    outputs: Sequence[Tensor],
    gradients: Mapping[str, Tensor],
    kind: str,
    skipped: Container[str],
) -> list[str]:
    """Where outputs or gradients differ from PyTorch's, in words.

    Args:
        model: a table with its operands.
        outputs: of all rows, and maybe more.
        gradients: by parameter; a missing one is zero.
        kind: of operands, for the words.
        skipped: rows that are not compared.
    """
    wrong: list[str] = []
    left = list(outputs)
    for number, name in enumerate(model.table):
        count = model.names.count(name)
        parts, left = left[:count], left[count:]
        wanted = None if name in skipped else _results(model, number, model.given)
        if wanted is None:
            continue
        for a, b in zip(parts, wanted, strict=True):
            wrong += differs(f"{kind}: {name}: output", a, b.detach())
        loss = weighted(wanted, torch.ones(1))
        if not loss.requires_grad:
            continue
        loss.backward()  # type: ignore[no-untyped-call]
        for key, parameter in parameters(model, number):
            gradient = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            result = gradients.get(key, torch.zeros_like(parameter))
            wrong += differs(f"{kind}: {name}: gradient of {key}", result, gradient)
    return wrong


def _results(model: Cases, number: int, given: Sequence[Tensor]) -> tuple[Tensor, ...] | None:
    """What PyTorch gives; None where it refuses, as a loss that wants probabilities."""
    try:
        return model.results(number, given)
    except RuntimeError:
        return None


def special(model: Cases, numbers: tuple[float, ...]) -> Cases:
    """A copy with some elements of every float operand replaced."""
    found = copy.deepcopy(model)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in found.named_parameters():
            if name.startswith("operand"):
                chosen = torch.randint(0, len(numbers), parameter.shape, generator=generator)
                seldom = torch.rand(parameter.shape, generator=generator) < _OFTEN
                parameter.copy_(torch.where(seldom, torch.tensor(numbers)[chosen], parameter))
    return found


def differs(what: str, mine: Tensor, theirs: Tensor) -> list[str]:
    """What differs, if anything: shape, dtype, NaN, infinities or finite elements."""
    if mine.shape != theirs.shape or mine.dtype != theirs.dtype:
        return [f"{what}: {mine.dtype}{tuple(mine.shape)}, not {theirs.dtype}{tuple(theirs.shape)}"]
    if not theirs.is_floating_point():
        close = mine == theirs
    else:
        finite = theirs[theirs.isfinite()].abs()
        floor = _FLOOR * max([1.0, *finite[finite < _HUGE].tolist()])
        close = torch.isclose(mine, theirs, rtol=_TOLERANCE, atol=floor, equal_nan=True)
    if close.all():
        return []
    return [f"{what}: {mine[~close][:4].tolist()}, not {theirs[~close][:4].tolist()}"]
