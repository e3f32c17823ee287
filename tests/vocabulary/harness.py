"""Many small functions as one model: compiled, stepped and compared with PyTorch case by case."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

import pockengine as pe

Operand: TypeAlias = tuple[int, ...] | Tensor
_LR = 0.05
_STEPS = 2
_TOLERANCE = 2e-5
"""Of the largest element: float32 rounding through a few ops, twice."""


@dataclass(frozen=True, slots=True)
class Case:
    """A function and what it is called with.

    Args:
        function: of the operands and the modules; gives a tensor or a tuple of them.
        operands: a shape, or a float tensor: a parameter that is trained; another tensor: an input
            of the model, or a buffer of it (``Cases.as_buffers``).
        modules: passed behind the operands; their parameters are trained.
    """

    function: Callable[..., Any]
    operands: tuple[Operand, ...]
    modules: tuple[nn.Module, ...] = ()


def case(function: Callable[..., Any], *operands: Operand, modules: Any = ()) -> Case:
    """A row of a table."""
    return Case(function, operands, tuple(modules))


class Cases(nn.Module):
    """All cases of a table as one model, whose outputs are the tensors they give.

    Args:
        table: cases by name.
        as_buffers: integer and boolean operands are buffers of the model instead of inputs.
    """

    def __init__(self, table: Mapping[str, Case], *, as_buffers: bool = False) -> None:
        super().__init__()
        self.table = table
        self.given: list[Tensor] = []
        self.place: dict[tuple[int, int], int] = {}
        self.names: list[str] = []
        self.unused = nn.Parameter(torch.zeros(1))
        for number, each in enumerate(table.values()):
            for index, operand in enumerate(each.operands):
                self._enter(number, index, operand, as_buffers)
            for index, module in enumerate(each.modules):
                self.add_module(f"module_{number}_{index}", copy.deepcopy(module))

    def _enter(self, number: int, index: int, operand: Operand, as_buffers: bool) -> None:
        tensor = torch.randn(operand) if isinstance(operand, tuple) else operand.clone()
        name = f"operand_{number}_{index}"
        if tensor.is_floating_point():
            self.register_parameter(name, nn.Parameter(tensor))
        elif as_buffers:
            self.register_buffer(name, tensor)
        else:
            self.place[number, index] = len(self.given)
            self.given.append(tensor)

    def _own(self, number: int, index: int) -> Tensor:
        """A parameter or buffer; integers of a model without float inputs still train something."""
        found: Tensor = getattr(self, f"operand_{number}_{index}")
        return found

    def forward(self, *given: Tensor) -> tuple[Tensor, ...]:
        """The tensors of all cases; ``given`` are the integer and boolean operands."""
        found: list[Tensor] = []
        self.names = []
        for number, name in enumerate(self.table):
            results = self.results(number, given)
            found += results
            self.names += [name] * len(results)
        return (*found, self.unused * 2)

    def results(self, number: int, given: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """The tensors of one case."""
        each = list(self.table.values())[number]
        operands = [
            given[self.place[number, i]] if (number, i) in self.place else self._own(number, i)
            for i in range(len(each.operands))
        ]
        modules = [getattr(self, f"module_{number}_{i}") for i in range(len(each.modules))]
        result = each.function(*operands, *modules)
        return tuple(result) if isinstance(result, (tuple, list)) else (result,)


def weighted(outputs: Sequence[Tensor], target: Tensor) -> Tensor:
    """A loss that gives every element of every output a weight of its own."""
    total = target.sum()
    for output in outputs:
        total = total + (output.to(target.dtype) * weights(output.shape)).sum()
    return total


def weights(shape: Sequence[int]) -> Tensor:
    """A number for each element, all of them apart."""
    return torch.cos(torch.arange(math.prod(shape)) + 0.5).reshape(shape)


def check(table: Mapping[str, Case], *, as_buffers: bool = False) -> list[str]:
    """Outputs and loss ahead of training and parameters after two steps, against PyTorch.

    Returns:
        What differs, in words: case, what, by how much.
    """
    torch.manual_seed(0)
    model = Cases(table, as_buffers=as_buffers).eval()
    eager = copy.deepcopy(model)
    given, target = tuple(model.given), torch.ones(1)
    wrong: list[str] = []
    with pe.compile(model, (given, target), loss=weighted, optimizer=pe.SGD()) as trainer:
        loss, outputs = trainer.evaluate(given, target)
        for name, mine, theirs in zip(model.names, outputs, eager(*given), strict=False):
            wrong += _differs(f"{name}: output", torch.as_tensor(mine), theirs.detach())
        steps = torch.optim.SGD([p for p in eager.parameters() if p.requires_grad], lr=_LR)
        for step in range(_STEPS):
            expected = weighted(eager(*given), target)
            loss = trainer.step(given, target, lr=_LR)
            if not abs(loss - expected.item()) <= 1e-4 * max(1.0, abs(expected.item())):
                wrong.append(f"loss of step {step}: {loss}, not {expected.item()}")
            steps.zero_grad()
            expected.backward()
            steps.step()
        state = trainer.state_dict()
    labels = list(table)
    for name, parameter in eager.named_parameters():
        label = labels[int(name.split("_")[1])] if "_" in name else "nothing"
        wrong += _differs(f"{label}: {name}", state[name], parameter.detach())
    return wrong


def _differs(what: str, mine: Tensor, theirs: Tensor) -> list[str]:
    if mine.shape != theirs.shape or mine.dtype != theirs.dtype:
        return [f"{what}: {mine.dtype}{tuple(mine.shape)}, not {theirs.dtype}{tuple(theirs.shape)}"]
    if not theirs.is_floating_point():
        return [] if torch.equal(mine, theirs) else [f"{what}: {mine}, not {theirs}"]
    finite = theirs[theirs.isfinite()]
    scale = max(1.0, finite.abs().max().item()) if finite.numel() else 1.0
    if torch.allclose(mine, theirs, rtol=0, atol=_TOLERANCE * scale, equal_nan=True):
        return []
    return [f"{what}: {mine.flatten()[:6]}, not {theirs.flatten()[:6]}"]
