"""The trainer from Python: batches, state, checkpoints, errors, on an MLP with tied weights."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import pockengine as pe
from pockengine.compile import link, prepare
from pockengine.errors import CheckpointError, InputError, TrainError
from pockengine.program import Program
from tests.oracles import TiedMlp

_X, _Y = torch.linspace(-1, 1, 18).reshape(3, 6), torch.linspace(0, 1, 12).reshape(3, 4)
_SCHEME = pe.Scheme({"second.weight": 1.0, "last.weight": 0.5, "last.bias": 1.0})
_SGD = pe.SGD(momentum=0.9)


def _model(seed: int = 0) -> TiedMlp:
    torch.manual_seed(seed)
    return TiedMlp().eval()


@cache
def _compiled(seed: int, optimizer: pe.SGD, scheme: pe.Scheme) -> tuple[Program, dict[str, Tensor]]:
    options: dict[str, Any] = {"loss": "mse", "optimizer": optimizer, "scheme": scheme}
    model = _model(seed)
    prepared = prepare(model, (_X, _Y), **options)
    return link(prepared), dict(prepared.captured.tensors)


def _trainer(seed: int = 0, optimizer: pe.SGD = _SGD, scheme: pe.Scheme = _SCHEME) -> pe.Trainer:
    """What ``pe.compile`` makes of ``_model(seed)``; each model is compiled once."""
    return pe.Trainer(*_compiled(seed, optimizer, scheme), threads=1)


@pytest.fixture
def trainer() -> Iterator[pe.Trainer]:
    """A trainer with nothing done yet."""
    with _trainer() as made:
        yield made


def _snapshot(trainer: pe.Trainer) -> list[bytes]:
    return [region.tobytes() for region in trainer.engine.regions[:3]]


def test_model_is_copied() -> None:
    """Compiling changes neither the model's values nor its flags; later changes do not matter."""
    model = _model()
    before = copy.deepcopy(model.state_dict())
    flags = [p.requires_grad for p in model.parameters()]
    options: dict[str, Any] = {"loss": "mse", "optimizer": _SGD, "scheme": _SCHEME}
    with pe.compile(model, (_X, _Y), **options, threads=1) as trainer:
        assert flags == [p.requires_grad for p in model.parameters()]
        for parameter in model.parameters():
            parameter.data.zero_()
        for name, tensor in trainer.state_dict().items():
            assert torch.equal(tensor, before[name])


def test_state_dict_is_pytorchs(trainer: pe.Trainer) -> None:
    """All names, tied ones and unused ones among them; the model takes it back strictly."""
    trainer.step(_X, _Y, lr=0.1)
    state = trainer.state_dict()
    model = _model(1)
    assert state.keys() == model.state_dict().keys()
    model.load_state_dict(state)
    assert torch.equal(state["third.weight"], state["second.weight"])
    torch.testing.assert_close(trainer.predict(_X), model(_X).detach())


def test_predict_and_evaluate_change_nothing(trainer: pe.Trainer) -> None:
    """They give the model's output and loss, of the kind of the input, and leave all as it was."""
    before = _snapshot(trainer)
    loss, output = trainer.evaluate(_X.numpy(), _Y.numpy())
    expected = _model()(_X).detach()
    assert isinstance(output, np.ndarray)
    torch.testing.assert_close(torch.from_numpy(output), expected)
    assert loss == pytest.approx(torch.nn.functional.mse_loss(expected, _Y).item(), rel=1e-6)
    assert isinstance(trainer.predict(_X), torch.Tensor)
    assert _snapshot(trainer) == before


def test_load_state_dict(trainer: pe.Trainer) -> None:
    """Frozen values are taken over too, also where constants were folded from them."""
    other = _model(1)
    trainer.load_state_dict(other.state_dict())
    torch.testing.assert_close(trainer.predict(_X), other(_X).detach())
    for name, tensor in trainer.state_dict().items():
        assert torch.equal(tensor, other.state_dict()[name])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"last.bias": None}, "missing last.bias; unknown nothing"),
        ({"more": torch.zeros(1)}, "missing nothing; unknown more"),
        ({"last.bias": torch.zeros(5)}, r"last.bias has shape \(5,\), not \(4,\)"),
        ({"third.weight": torch.zeros(8, 8)}, "third.weight differs from second.weight"),
    ],
)
def test_wrong_state_dict(trainer: pe.Trainer, change: dict[str, Any], message: str) -> None:
    """What does not fit is refused by name, and nothing is changed."""
    before = _snapshot(trainer)
    state = {**_model(1).state_dict(), **change}
    with pytest.raises(InputError, match=message):
        trainer.load_state_dict({n: t for n, t in state.items() if t is not None})
    assert _snapshot(trainer) == before


@pytest.mark.parametrize(
    ("x", "y", "lr", "message"),
    [
        (_X[:2], _Y, 0.1, "input: shape .* is smaller than"),
        (_X.long(), _Y, 0.1, "input: elements of int64"),
        (_X.where(_X < 1, torch.nan), _Y, 0.1, r"input\[17\]: it is nan"),
        (_X, _Y.where(_Y < 1, torch.inf), 0.1, r"target\[11\]: it is inf"),
        (_X, _Y, float("nan"), "lr: nan; a finite number"),
    ],
)
def test_wrong_batch(trainer: pe.Trainer, x: Any, y: Any, lr: float, message: str) -> None:
    """A batch that does not fit or is not finite changes nothing."""
    before = _snapshot(trainer)
    with pytest.raises(InputError, match=message):
        trainer.step(x, y, lr=lr)
    assert _snapshot(trainer) == before


def test_loss_not_finite(trainer: pe.Trainer) -> None:
    """A loss that overflows is found ahead of the update, and the trainer goes on."""
    before = _snapshot(trainer)
    with pytest.raises(TrainError, match="loss: it is inf"):
        trainer.step(_X, torch.full((3, 4), 1e30), lr=0.1)
    assert _snapshot(trainer) == before
    assert trainer.step(_X, _Y, lr=0.1) > 0


def test_checkpoint_resumes(trainer: pe.Trainer, tmp_path: Path) -> None:
    """A new trainer goes on from a checkpoint bit by bit, momentum included."""
    trainer.step(_X, _Y, lr=0.1)
    trainer.save(tmp_path / "a.ckpt")
    losses = [trainer.step(_X, _Y, lr=0.1) for _ in range(3)]
    with _trainer() as other:
        other.load(tmp_path / "a.ckpt")
        assert [other.step(_X, _Y, lr=0.1) for _ in range(3)] == losses


def test_corrupt_checkpoint(trainer: pe.Trainer, tmp_path: Path) -> None:
    """A damaged file changes nothing."""
    path = tmp_path / "a.ckpt"
    trainer.save(path)
    path.write_bytes(path.read_bytes()[:-4] + b"oops")
    trainer.step(_X, _Y, lr=0.1)
    before = _snapshot(trainer)
    with pytest.raises(CheckpointError, match="corrupt"):
        trainer.load(path)
    assert _snapshot(trainer) == before


def test_closed(trainer: pe.Trainer, tmp_path: Path) -> None:
    """A closed trainer refuses to run, but its weights can still be had."""
    trainer.close()
    trainer.close()
    with pytest.raises(InputError, match="the engine is closed"):
        trainer.step(_X, _Y, lr=0.1)
    assert trainer.state_dict()
    trainer.save(tmp_path / "a.ckpt")
