"""Spatial ops, normalization and dropout: three steps of training against eager PyTorch.

All cases run as graphs, in float64, through every pass; native code runs where kernels are special.
"""

from __future__ import annotations

import copy
import warnings
from dataclasses import dataclass

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - the name everybody knows
from torch import Tensor, nn
from torch.fx import Graph

import pockengine as pe
from pockengine.compile import prepare
from pockengine.ir.draws import SEED
from pockengine.ir.graph import name_of, placeholders, type_of
from pockengine.ir.interpret import interpret
from pockengine.ir.types import Role
from tests.replay import Replay
from tests.spatial import ROWS, Row

STEPS, RATE, MOMENTUM, SEED_VALUE = 3, 0.1, 0.9, 2**40 + 5
Batches = list[tuple[Tensor, Tensor]]
NATIVE = (
    "convolution: transposed, depthwise",
    "convolution: reflect",
    "convolution: replicate",
    "pooling: max, ceil",
    "pooling: max, large",
    "pooling: average, ceil",
    "pooling: adaptive",
    "pooling: adaptive, larger",
    "pooling: adaptive max",
    "normalization: batch",
    "normalization: batch, averages",
    "normalization: instance, running",
    "random: two",
    "random: attention",
)


@dataclass(frozen=True, slots=True)
class Run:
    """What training gave: losses, the state dict, and the output in eval mode."""

    losses: list[float]
    state: dict[str, Tensor]
    output: Tensor


def _batches(row: Row, model: nn.Module, dtype: torch.dtype) -> Batches:
    inputs = [torch.randn(row.shape) for _ in range(STEPS)]
    with torch.no_grad():
        shape = copy.deepcopy(model)(inputs[0]).shape
    return [(x.to(dtype), torch.randn(shape).to(dtype)) for x in inputs]


def _eager(model: nn.Module, batches: Batches) -> Run:
    model = copy.deepcopy(model).to(batches[0][0].dtype)
    optimizer = torch.optim.SGD(model.parameters(), lr=RATE, momentum=MOMENTUM)
    losses = []
    for step, (x, y) in enumerate(batches):
        optimizer.zero_grad()
        with Replay(SEED_VALUE, step):
            loss = F.mse_loss(model(x), y)
            loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        losses.append(loss.item())
    model.eval()
    with torch.no_grad(), Replay(SEED_VALUE, STEPS):
        return Run(losses, model.state_dict(), model(batches[0][0]))


def _double(tensor: Tensor) -> Tensor:
    return tensor.double() if tensor.is_floating_point() else tensor


def _interpreted(model: nn.Module, batches: Batches) -> Run:
    """Training by the graphs that become kernels, in float64."""
    example = tuple(tensor.float() for tensor in batches[0])
    prepared = prepare(model, example, loss="mse", optimizer=pe.SGD(momentum=MOMENTUM))
    graphs: dict[str, Graph] = {source.name: source.graph for source in prepared.sources}
    values = {name: _double(t).clone() for name, t in prepared.captured.tensors.items()}
    for node in placeholders(graphs["step"], Role.STATE):
        kind = type_of(node)
        values.setdefault(name_of(node), _double(torch.zeros(kind.shape, dtype=kind.dtype.torch)))
    values |= {SEED: torch.tensor(SEED_VALUE), "lr": torch.tensor(RATE, dtype=torch.float64)}
    losses = []

    def run(entry: str, x: Tensor, y: Tensor) -> tuple[Tensor | None, tuple[Tensor, ...]]:
        folded = prepared.fold({n: t for n, t in values.items() if n in prepared.captured.tensors})
        known = {**folded, **values, "input": x, "target": y}
        result = interpret(graphs[entry], {n: _double(t) for n, t in known.items()})
        values.update(result.updates)
        return result.loss, result.outputs

    for x, y in batches:
        loss, _ = run("step", x, y)
        assert loss is not None
        losses.append(loss.item())
    _, (output,) = run("predict", *batches[0])
    names = model.state_dict()
    return Run(losses, {name: values[name] for name in names}, output)


def _compiled(model: nn.Module, batches: Batches, threads: int = 1) -> Run:
    optimizer = pe.SGD(momentum=MOMENTUM)
    options = {"loss": "mse", "optimizer": optimizer, "threads": threads, "seed": SEED_VALUE}
    with pe.compile(model, batches[0], **options) as trainer:  # type: ignore[arg-type]
        losses = [trainer.step(x, y, lr=RATE) for x, y in batches]
        loss, output = trainer.evaluate(*batches[0])
        torch.testing.assert_close(trainer.predict(batches[0][0]), output)
        assert loss == pytest.approx(F.mse_loss(output, batches[0][1]).item(), rel=1e-4)
        return Run(losses, trainer.state_dict(), output)


def _check(mine: Run, wanted: Run, tolerance: float) -> None:
    assert mine.losses == pytest.approx(wanted.losses, rel=tolerance, abs=tolerance)
    assert mine.state.keys() == wanted.state.keys()
    for name, tensor in wanted.state.items():
        found = mine.state[name]
        torch.testing.assert_close(
            found, tensor, rtol=tolerance, atol=tolerance, msg=lambda m, n=name: f"{n}: {m}"
        )
    torch.testing.assert_close(mine.output, wanted.output, rtol=tolerance, atol=tolerance)


@pytest.fixture(autouse=True)
def _quiet() -> None:
    """PyTorch remarks on padding='same' and on dropout of three axes."""
    warnings.simplefilter("ignore")


@pytest.mark.parametrize("name", ROWS)
def test_graphs_train_like_pytorch(name: str) -> None:
    """Losses, parameters, buffers and the eval-mode output, in float64, after all passes."""
    model = ROWS[name].model()
    batches = _batches(ROWS[name], model, torch.float64)
    _check(_interpreted(model, batches), _eager(model, batches), 1e-6)


@pytest.mark.parametrize("name", NATIVE)
def test_trainers_train_like_pytorch(name: str) -> None:
    """The same of native code, in float32."""
    model = ROWS[name].model()
    batches = _batches(ROWS[name], model, torch.float32)
    _check(_compiled(model, batches), _eager(model, batches), 1e-4)
