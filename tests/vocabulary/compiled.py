"""A table in one trainer: outputs and gradients of many operands, special ones among them."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Container, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import pockengine as pe
from pockengine.optimizer import state_name
from tests.vocabulary.harness import Case, Cases, weights
from tests.vocabulary.special_values import KINDS, special, wrong_results


class _Weighted(torch.autograd.Function):
    """Zero, with the gradient of ``harness.weighted``: a loss that is finite whatever comes."""

    @staticmethod
    def forward(ctx: Any, output: Tensor) -> Tensor:
        """Any shape -> ()."""
        ctx.shape = output.shape
        return output.new_zeros(())

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        """() -> the output's shape."""
        return gradient * weights(ctx.shape)


def _finite(outputs: Sequence[Tensor], target: Tensor) -> Tensor:
    total = target.sum()
    for output in outputs:
        if output.is_floating_point():
            total = total + _Weighted.apply(output.to(target.dtype))  # type: ignore[no-untyped-call]
    return total


def wrong_in_trainer(
    table: Mapping[str, Case], skipped: Container[str], kinds: Iterable[str] = ("", *KINDS)
) -> list[str]:
    """Where outputs or gradients of a compiled table differ from PyTorch's, in words.

    Args:
        table: rows.
        skipped: those that PyTorch leaves undefined for special operands.
        kinds: of ``KINDS``; "" for the operands as they are.
    """
    torch.manual_seed(0)
    model = Cases(table).eval()
    given, target = tuple(model.given), torch.ones(1)
    optimizer = pe.SGD(momentum=0.5)  # its buffer is the first step's gradient
    wrong: list[str] = []
    with (
        tempfile.TemporaryDirectory() as folder,
        pe.compile(copy.deepcopy(model), (given, target), loss=_finite, optimizer=optimizer) as it,
    ):
        begin, end = Path(folder, "begin"), Path(folder, "end")
        it.save(begin)
        model(*given)  # which notes how many outputs each row has
        for kind in kinds:
            changed = special(model, KINDS[kind]) if kind else copy.deepcopy(model)
            it.load_state_dict(model.state_dict())
            it.load(begin)  # no momentum
            it.load_state_dict(changed.state_dict())
            outputs = [torch.as_tensor(y) for y in it.predict(given)]
            it.step(given, target, lr=0.0)
            it.save(end)
            state = pe.Checkpoint.read(end).state
            gradients = {
                name: state[found]
                for name, _ in model.named_parameters()
                if (found := state_name("momentum_buffer", name)) in state
            }
            wrong += wrong_results(changed, outputs, gradients, kind, skipped if kind else ())
    return wrong
