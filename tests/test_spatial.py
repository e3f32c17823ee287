"""Spatial ops, normalization and dropout: three steps of training against eager PyTorch.

All cases run as graphs, in float64, through every pass; native code runs where kernels are special.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - the name everybody knows
from torch import Tensor, nn
from torch.fx import Graph

import pockengine as pe
from pockengine.compile import prepare
from pockengine.errors import InputError, TrainError
from pockengine.ir.draws import SEED
from pockengine.ir.graph import name_of, placeholders, type_of
from pockengine.ir.interpret import interpret
from pockengine.ir.types import Role
from tests.replay import Replay
from tests.spatial import FAMILIES, Heads, Row, groups

STEPS, RATE, MOMENTUM, SEED_VALUE = 3, 0.1, 0.9, 2**40 + 5
Batches = list[tuple[Tensor, Tensor]]
GROUPS = groups(10)
NATIVE = {
    "convolution": ("transposed, depthwise", "reflect", "replicate"),
    "pooling": ("max, ceil", "max, large", "average, ceil", "adaptive", "adaptive max"),
    "normalization": ("batch", "batch, averages", "instance, running"),
    "random": ("two", "dropout 2d"),
}


@dataclass(frozen=True, slots=True)
class Run:
    """What training gave: losses, the state dict, and the output in eval mode."""

    losses: list[float]
    state: dict[str, Tensor]
    output: Tensor


def _batches(rows: Mapping[str, Row], model: nn.Module, dtype: torch.dtype) -> Batches:
    (wanted,) = {row.shape for row in rows.values()}
    inputs = [torch.randn(wanted) for _ in range(STEPS)]
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


@pytest.mark.parametrize("name", GROUPS)
def test_graphs_train_like_pytorch(name: str) -> None:
    """Losses, parameters, buffers and the eval-mode output, in float64, after all passes."""
    rows = GROUPS[name]
    model = Heads(rows)
    batches = _batches(rows, model, torch.float64)
    _check(_interpreted(model, batches), _eager(model, batches), 1e-6)


@pytest.mark.parametrize("family", NATIVE)
def test_trainers_train_like_pytorch(family: str) -> None:
    """The same of native code, in float32."""
    rows = {name: FAMILIES[family][name] for name in NATIVE[family]}
    model = Heads(rows)
    batches = _batches(rows, model, torch.float32)
    _check(_compiled(model, batches), _eager(model, batches), 1e-4)


def test_dropout_is_the_same_on_any_number_of_threads() -> None:
    """Losses, parameters and buffers of two runs agree to the last bit; another seed's do not."""
    rows = {"two": FAMILIES["random"]["two"]}
    model = Heads(rows)
    batches = _batches(rows, model, torch.float32)
    one, two = _compiled(model, batches), _compiled(model, batches, threads=2)
    assert one.losses == two.losses
    assert all(torch.equal(tensor, two.state[name]) for name, tensor in one.state.items())
    with pe.compile(model, batches[0], loss="mse", optimizer=pe.SGD(), seed=1) as other:
        assert other.step(*batches[0], lr=RATE) != one.losses[0]


def test_buffers_and_random_numbers_are_part_of_a_checkpoint(tmp_path: Path) -> None:
    """A run goes on from a checkpoint as if it had never stopped; buffers can be set."""
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.5))
    batches = _batches({"": Row(nn.Identity, (6, 3))}, model, torch.float32)

    def trainer() -> pe.Trainer:
        return pe.compile(model, batches[0], loss="mse", optimizer=pe.SGD(), seed=3, threads=1)

    with trainer() as first, trainer() as second:
        first.step(*batches[0], lr=RATE)
        first.save(tmp_path / "run")
        second.load(tmp_path / "run")
        assert second.step(*batches[1], lr=RATE) == first.step(*batches[1], lr=RATE)
        state = second.state_dict()
        assert state["1.num_batches_tracked"] == 2
        assert state.keys() == model.state_dict().keys()
        second.load_state_dict(model.state_dict())
        assert second.state_dict()["1.num_batches_tracked"] == 0
        torch.testing.assert_close(second.predict(batches[0][0]), model.eval()(batches[0][0]))


def test_a_refused_step_leaves_buffers_alone() -> None:
    """Statistics are written behind the check of the loss, like parameters."""
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    batches = _batches({"": Row(nn.Identity, (6, 3))}, model, torch.float32)
    with pe.compile(model, batches[0], loss="mse", optimizer=pe.SGD(), threads=1) as trainer:
        before = trainer.state_dict()
        with pytest.raises(TrainError, match="has to be finite"):
            trainer.step(batches[0][0], batches[0][1] * 1e30, lr=RATE)
        after = trainer.state_dict()
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())


@pytest.mark.parametrize("seed", [-1, 2**63, 1.5, True])
def test_a_seed_is_a_whole_number(seed: int) -> None:
    """What is no seed is refused, and the message says what is one."""
    model, batch = nn.Linear(3, 2), (torch.zeros(1, 3), torch.zeros(1, 2))
    with pytest.raises(InputError, match="a whole number of at least 0"):
        pe.compile(model, batch, loss="mse", optimizer=pe.SGD(), seed=seed)
