"""Every graph that ``compile`` makes on its way, against autograd in float64."""

from __future__ import annotations

import copy
from dataclasses import replace

import torch
from torch import Tensor
from torch.fx import Graph
from torch.utils import _pytree as pytree

from pockengine.frontend.capture import capture
from pockengine.frontend.losses import loss_function
from pockengine.ir.graph import name_of, outputs_of, placeholders, type_of
from pockengine.ir.interpret import interpret
from pockengine.ir.types import Role
from pockengine.optimizer import CORRECTION, state_name
from pockengine.passes.fold_constants import fold_constants
from tests.eager import as_dtype, call, inside
from tests.oracles import Example, autograd, doubles
from tests.spine import Case, prepared, train_in_pytorch

TOLERANCE = 1e-9
"""Relative, of a tensor's norm in float64: sums in another order over some 60 layers."""
FLOOR = 1e-6
"""Norms below this, relative to the largest gradient, count as this: a gradient that is zero but
for rounding has no relative error."""


class PassOracle:
    """An observer of ``prepare`` that runs each graph and compares loss, outputs and gradients.

    Once the optimizer is in the graph there are no gradients; then it is the parameters and the
    optimizer's state after the first step that are compared.

    Args:
        case: what is compiled; its first batch is used.
    """

    def __init__(self, case: Case) -> None:
        batch = case.batches[0]
        self._case = case
        self._channels = case.scheme.resolve(case.model).channels(case.model)
        captured = capture(case.model, batch, case.loss)
        example = Example(case.model, batch, case.loss, captured, doubles(captured, batch))
        self._values = dict(example.values) | {"lr": torch.tensor(case.lr, dtype=torch.float64)}
        self._captured = dict(self._values)
        _, self._gradients = autograd(example)
        self._scale = max(gradient.norm().item() for gradient in self._gradients.values())
        self._wanted = {mode: _forward(case, train=mode) for mode in (False, case.model.training)}
        self._after = _first_step(case)
        self._before: dict[str, Graph] = {}
        self.failures: list[str] = []
        self.checked: list[tuple[str, str]] = []
        self("captured", "capture", captured.graph)

    def __call__(self, entry: str, name: str, graph: Graph) -> None:
        """Check the graph that a pass made; what is wrong is kept in ``failures``."""
        if name == "fold_constants":
            self._values.update(fold_constants(self._before[entry], self._captured)[1])
        self._before[entry] = graph
        result = interpret(graph, _zeros(graph) | self._values)
        where = f"{entry} after {name}"
        trains = self._case.model.training and not entry.startswith(("predict", "evaluate"))
        loss, outputs = self._wanted[trains]
        if result.loss is not None:
            self._close(f"{where}: loss", result.loss, loss)
        for mine, wanted in zip(result.outputs, outputs, strict=False):
            self._close(f"{where}: output", mine, wanted)
        for key, gradient in result.gradients.items():
            self._close(f"{where}: gradient of {key}", gradient, self._cut(key, gradient))
        for key, value in result.updates.items():
            self._check_update(where, key, value)
        self.checked.append((entry, name))
        if len(result.outputs) != len(outputs_of(graph).outputs):
            self.failures.append(f"{where}: outputs are missing")

    def _cut(self, name: str, mine: Tensor) -> Tensor:
        """Autograd's gradient, of the slice once the graph computes no more."""
        whole = self._gradients[name]
        return whole if mine.shape == whole.shape else inside(whole, self._channels[name])

    def _check_update(self, where: str, key: str, value: Tensor) -> None:
        if key in CORRECTION:
            return
        moved = value - self._values.get(key, torch.zeros_like(value))
        wanted = self._after[key] - self._values.get(key, torch.zeros_like(value))
        slack = self._step_slack() if key in self._gradients else 0.0
        self._close(f"{where}: step of {key}", moved, wanted, slack)

    def _step_slack(self) -> float:
        """How far a gradient's rounding moves a parameter that has no gradient but that.

        Optimizers that divide by the gradient's size divide by at least their epsilon.
        """
        epsilon = getattr(self._case.optimizer, "eps", None)
        return self._case.lr * TOLERANCE * FLOOR * self._scale / epsilon if epsilon else 0.0

    def _close(self, what: str, mine: Tensor, wanted: Tensor, slack: float = 0.0) -> None:
        if mine.shape != wanted.shape:
            self.failures.append(f"{what}: shape {tuple(mine.shape)}, not {tuple(wanted.shape)}")
            return
        error = (mine.double() - wanted.double()).norm().item()
        allowed = TOLERANCE * max(wanted.double().norm().item(), FLOOR * self._scale)
        if not error <= max(allowed, slack):
            self.failures.append(f"{what}: off by {error:.3g} of {wanted.norm().item():.3g}")


def checked_passes(case: Case) -> PassOracle:
    """The oracle, having seen every graph that a compilation of the case makes."""
    oracle = PassOracle(case)
    prepared(case, oracle)
    return oracle


def _zeros(graph: Graph) -> dict[str, Tensor]:
    """State ahead of the first step, where the model has none: the optimizer's."""
    nodes = placeholders(graph, Role.STATE)
    return {name_of(n): torch.zeros(type_of(n).shape, dtype=torch.float64) for n in nodes}


def _forward(case: Case, *, train: bool) -> tuple[Tensor, list[Tensor]]:
    """The loss and the model's outputs in float64, in train or in eval mode."""
    inputs, targets = as_dtype(case.batches[0], torch.float64)
    with torch.no_grad():
        output = call(copy.deepcopy(case.model).double().train(train), inputs)
        return loss_function(case.loss)(output, targets), pytree.tree_leaves(output)


def _first_step(case: Case) -> dict[str, Tensor]:
    """Parameters, buffers and optimizer's state after one step of eager PyTorch in float64."""
    run = train_in_pytorch(replace(case, batches=case.batches[:1]), torch.float64)
    states = {
        state_name(kind, name): tensor
        for kind, tensors in run.states.items()
        for name, tensor in tensors.items()
    }
    return {**run.parameters, **run.buffers, **states}
