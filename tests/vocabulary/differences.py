"""Gradients of captured graphs, in float64, against finite differences of PyTorch's functions."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pockengine.frontend.capture import Captured, capture
from pockengine.ir.interpret import interpret
from tests.oracles import doubles
from tests.vocabulary.harness import Case, Cases, weighted

_STEP = 1e-6
"""Error of central differences: about step^2 of the third derivative and 1e-16 / step of the
values, below 1e-9 of what is of the order of one."""
_TOLERANCE = 3e-5
"""Constants of the graph are float32."""
_MOST = 12
"""Elements of a parameter that are moved one by one; all of them move together besides."""


@dataclass(frozen=True, slots=True)
class Traced:
    """A table captured as one model.

    Args:
        model: all cases.
        captured: their joint graph.
    """

    model: Cases
    captured: Captured

    @property
    def batch(self) -> tuple[tuple[Tensor, ...], Tensor]:
        """What the model is called with."""
        return tuple(self.model.given), torch.ones(1)

    @property
    def counts(self) -> dict[str, int]:
        """How many outputs each case has."""
        return {name: self.model.names.count(name) for name in self.model.table}


def traced(table: Mapping[str, Case], *, training: bool = False) -> Traced:
    """A table as a captured model."""
    torch.manual_seed(0)
    model = Cases(table)
    if not training:
        model.eval()
    return Traced(model, capture(model, (tuple(model.given), torch.ones(1)), weighted))


def wrong_gradients(found: Traced, skipped: Mapping[str, str]) -> list[str]:
    """Where a gradient differs from the slope of PyTorch's function, in words.

    Args:
        found: a captured table.
        skipped: cases whose gradient is no slope, with the reason.
    """
    result = interpret(found.captured.graph, doubles(found.captured, found.batch))
    model = copy.deepcopy(found.model).double()
    wrong: list[str] = []
    for number, name in enumerate(found.model.table):
        if name in skipped:
            continue
        for key, parameter in parameters(model, number):
            for label, slope, along in _slopes(model, number, found.batch[0], parameter):
                gradient = result.gradients.get(key)  # none: nothing differentiable reads it
                mine = 0.0 if gradient is None else (gradient * along).sum().item()
                if not abs(mine - slope) <= _TOLERANCE * max(1.0, abs(slope)):
                    wrong.append(f"{name}: {key} {label}: {mine}, not {slope}")
    return wrong


def parameters(model: Cases, number: int) -> Iterator[tuple[str, nn.Parameter]]:
    """What a case trains, by name."""
    for key, parameter in model.named_parameters():
        if key.startswith((f"operand_{number}_", f"module_{number}_")):
            yield key, parameter


def _slopes(
    model: Cases, number: int, given: Sequence[Tensor], parameter: nn.Parameter
) -> Iterator[tuple[str, float, Tensor]]:
    """(which way, slope, direction) of a few single elements and of all of them."""
    generator = torch.Generator().manual_seed(number)
    count = parameter.numel()
    ways = [("all", torch.randn(parameter.shape, generator=generator).double())] if count else []
    for place in torch.randperm(count, generator=generator)[:_MOST].tolist():
        single = torch.zeros(count, dtype=torch.float64)
        single[place] = 1.0
        ways.append((f"[{place}]", single.reshape(parameter.shape)))
    with torch.no_grad():
        start = parameter.clone()
        for label, along in ways:
            ends = []
            for step in (_STEP, -_STEP):
                parameter.copy_(start + step * along)
                ends.append(_value(model, number, given))
            parameter.copy_(start)
            yield label, (ends[0] - ends[1]) / (2 * _STEP), along


def _value(model: Cases, number: int, given: Sequence[Tensor]) -> float:
    outputs = [y for y in model.results(number, given) if y.is_floating_point()]
    return weighted(outputs, torch.zeros(1, dtype=torch.float64)).item()
