"""Checkpoints of runs: what goes on bit by bit, what starts anew, and what is refused."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import pockengine as pe
from pockengine.checkpoint import read_checkpoint, write_checkpoint
from pockengine.compile import link, prepare
from pockengine.errors import CheckpointError, InputError
from pockengine.modes import Modes
from pockengine.optimizer import Optimizer
from pockengine.program import Program
from pockengine.resume import STATE, same_bits
from pockengine.tasks import mobilenet_v2
from tests.oracles import TiedMlp

_X, _Y = torch.linspace(-1, 1, 18).reshape(3, 6), torch.linspace(0, 1, 12).reshape(3, 4)
_SCHEME = pe.Scheme({"second.weight": 1.0, "last.weight": 0.5, "last.bias": 1.0})
_WIDER = pe.Scheme({**_SCHEME, "last.weight": 1.0, "first.weight": 1.0})
_SGD = pe.SGD(momentum=0.9)


def _model(seed: int = 0) -> TiedMlp:
    torch.manual_seed(seed)
    return TiedMlp().eval()


@cache
def _compiled(
    seed: int, optimizer: Optimizer, scheme: pe.Scheme
) -> tuple[Program, dict[str, Tensor]]:
    prepared = prepare(_model(seed), (_X, _Y), loss="mse", optimizer=optimizer, scheme=scheme)
    return link(prepared), dict(prepared.captured.tensors)


def _trainer(seed: int = 0, optimizer: Optimizer = _SGD, scheme: pe.Scheme = _SCHEME) -> pe.Trainer:
    return pe.Trainer(*_compiled(seed, optimizer, scheme), threads=1)


def _trained(**options: Any) -> pe.Trainer:
    """Two steps on."""
    trainer = _trainer(**options)
    for _ in range(2):
        trainer.step(_X, _Y, lr=0.1)
    return trainer


def _state(trainer: pe.Trainer, folder: Path) -> dict[str, Tensor]:
    trainer.save(folder / "state")
    return dict(pe.Checkpoint.read(folder / "state").state)


def _bytes(trainer: pe.Trainer) -> list[bytes]:
    return [region.tobytes() for region in trainer.engine.regions[:3]]


def _same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(same_bits(t, other[n]) for n, t in one.items())


def test_back_to_pytorch(tmp_path: Path) -> None:
    """A full checkpoint is the model for whoever reads safetensors; state has names of its own."""
    trainer = _trained()
    trainer.save(tmp_path / "run")
    model = _model(1)
    keys = model.load_state_dict(load_file(tmp_path / "run"), strict=False)
    assert _same(model.state_dict(), trainer.state_dict())
    assert keys.missing_keys == ["third.weight"]  # which is tied to one that is there
    assert keys.unexpected_keys
    assert all(name.startswith(STATE) for name in keys.unexpected_keys)


def test_what_is_in_it(tmp_path: Path) -> None:
    """``Checkpoint.read`` tells scheme, optimizer and parts; a delta holds the updated channels."""
    trainer = _trained()
    trainer.save(tmp_path / "full")
    trainer.save(tmp_path / "delta", delta=True, extra={"müde": "☕"})
    full, delta = (pe.Checkpoint.read(tmp_path / name) for name in ("full", "delta"))
    assert (full.kind, delta.kind) == ("full", "delta")
    assert delta.scheme == full.scheme == _SCHEME
    assert delta.optimizer == repr(_SGD)
    assert delta.model.keys() == _SCHEME.keys()
    whole, part = full.model["last.weight"], delta.parts["last.weight"]
    assert (part.axis, part.count) == (1, 4)
    assert torch.equal(delta.model["last.weight"], whole[:, :4])
    assert _same(dict(delta.state), dict(full.state))
    assert (full.base, full.parts, full.extra) == ("", {}, {})
    assert len(delta.base) == 64
    assert trainer.load(tmp_path / "delta") == {"müde": "☕"}
    assert trainer.load(tmp_path / "full") == {}


class _Rich(nn.Module):
    """(4, 3) -> (4, 2): batch statistics, dropout, and a weight that is updated in part."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            *(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.Dropout(0.4), nn.Linear(8, 2))
        )

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3) -> (N, 2)."""
        y: Tensor = self.layers(x)
        return y


def test_all_state_goes_on(tmp_path: Path) -> None:
    """Within an accumulation, from either kind: losses, averages, statistics, random numbers."""
    torch.manual_seed(0)
    model = _Rich().train()
    batches = [(torch.randn(4, 3), torch.randn(4, 2)) for _ in range(7)]
    scheme = pe.Scheme({"layers.3.weight": 0.5, "layers.0.bias": 1.0, "layers.1.weight": 1.0})
    prepared = prepare(
        *(model, batches[0]),
        loss="mse",
        optimizer=pe.AdamW(),
        scheme=scheme,
        modes=Modes(accumulate=pe.Accumulate(2), ema=0.9),
    )
    program, tensors = link(prepared), dict(prepared.captured.tensors)

    def trainer() -> pe.Trainer:
        return pe.Trainer(program, tensors, threads=1, seed=5)

    run = trainer()
    for x, y in batches[:3]:
        run.step(x, y, lr=0.01)
    run.save(tmp_path / "full")
    run.save(tmp_path / "delta", delta=True)
    wanted = [run.step(x, y, lr=0.01) for x, y in batches[3:]]
    assert {"random.step", "accumulated.count"} <= pe.Checkpoint.read(
        tmp_path / "full"
    ).state.keys()
    for name in ("full", "delta"):
        with trainer() as other:
            other.step(*batches[6], lr=0.1)  # something else, to be forgotten
            other.load(tmp_path / name)
            assert [other.step(x, y, lr=0.01) for x, y in batches[3:]] == wanted
            assert _same(other.state_dict(), run.state_dict())
            assert _same(other.state_dict(ema=True), run.state_dict(ema=True))


def test_full_into_another_base(tmp_path: Path) -> None:
    """All of the model is taken over, frozen values too, and what was folded from them."""
    run = _trained()
    run.save(tmp_path / "run")
    with _trainer(seed=1) as other:
        other.load(tmp_path / "run")
        assert _same(other.state_dict(), run.state_dict())
        assert torch.equal(other.predict(_X), run.predict(_X))
        assert other.step(_X, _Y, lr=0.1) == run.step(_X, _Y, lr=0.1)


def test_another_scheme(tmp_path: Path) -> None:
    """Momentum of the same part of the same parameter is taken; the rest is zero, and one warns."""
    run = _trained()
    run.save(tmp_path / "run")
    wider = _trained(scheme=_WIDER)
    with pytest.warns(UserWarning, match=r"starts anew: .*first\.weight, .*last\.weight") as told:
        wider.load(tmp_path / "run")
    assert len(told) == 1
    assert _same(wider.state_dict(), run.state_dict())
    found, wanted = _state(wider, tmp_path), pe.Checkpoint.read(tmp_path / "run").state
    for name in ("second.weight", "last.bias"):
        assert torch.equal(
            found[f"optimizer.momentum_buffer.{name}"], wanted[f"optimizer.momentum_buffer.{name}"]
        )
    for name in ("first.weight", "last.weight"):
        assert not found[f"optimizer.momentum_buffer.{name}"].any()


def test_another_optimizer(tmp_path: Path) -> None:
    """Settings may change; of another kind of optimizer nothing is taken; sums keep their start."""
    run = _trained(optimizer=pe.Adam())
    run.save(tmp_path / "run")
    state = pe.Checkpoint.read(tmp_path / "run").state
    slower = _trainer(optimizer=pe.Adam(betas=(0.8, 0.99), weight_decay=0.1))
    slower.load(tmp_path / "run")
    assert _same(_state(slower, tmp_path), dict(state))
    sums = _trained(optimizer=pe.Adagrad(initial_accumulator_value=0.25))
    with pytest.warns(UserWarning, match="optimizer.sum.last.bias"):
        sums.load(tmp_path / "run")
    assert all((t == 0.25).all() for t in _state(sums, tmp_path).values())
    assert _same(sums.state_dict(), run.state_dict())


def test_a_shared_correction_starts_anew_with_any_parameter(tmp_path: Path) -> None:
    """Moments from zero under a correction of many steps would make steps too long."""
    run = _trained(optimizer=pe.Adam())
    run.save(tmp_path / "run")
    wider = _trained(optimizer=pe.Adam(), scheme=_WIDER)
    with pytest.warns(UserWarning, match="optimizer.correction1, optimizer.correction2"):
        wider.load(tmp_path / "run")
    found = _state(wider, tmp_path)
    assert found["optimizer.correction1"] == 0
    assert found["optimizer.exp_avg.last.bias"].any()


def test_delta_into_another_scheme(tmp_path: Path) -> None:
    """It needs the same base: a new trainer of it has that, a trained one need not."""
    run = _trained()
    run.save(tmp_path / "run", delta=True)
    with _trainer(scheme=_WIDER) as other:
        with pytest.warns(UserWarning, match="starts anew"):
            other.load(tmp_path / "run")
        assert _same(other.state_dict(), run.state_dict())
    narrow = pe.Scheme({"last.bias": 1.0})
    with _trainer(scheme=narrow) as other:
        other.load(tmp_path / "run")  # writes what is frozen here
        assert _same(other.state_dict(), run.state_dict())
        assert torch.equal(other.predict(_X), run.predict(_X))


@pytest.mark.parametrize("options", [{"seed": 1}, {"scheme": _WIDER}])
def test_delta_to_another_base(tmp_path: Path, options: dict[str, Any]) -> None:
    """Other values in what it leaves out are an error, and nothing is changed."""
    _trained().save(tmp_path / "run", delta=True)
    other = _trained(**options)
    before = _bytes(other)
    with pytest.raises(CheckpointError, match="delta to a model with other values"):
        other.load(tmp_path / "run")
    assert _bytes(other) == before


def test_deltas_take_turns(tmp_path: Path) -> None:
    """One trainer serves many users: each delta gives that user's model, whoever came before."""
    runs = {name: _trainer() for name in ("one", "two")}
    for steps, (name, run) in enumerate(runs.items(), 1):
        for _ in range(steps):
            run.step(_X, _Y, lr=0.1)
        run.save(tmp_path / name, delta=True)
    with _trainer() as server:
        for name in ("one", "two", "one"):
            server.load(tmp_path / name)
            assert _same(server.state_dict(), runs[name].state_dict())
        server.load_state_dict(_model(1).state_dict())
        with pytest.raises(CheckpointError, match="other values"):
            server.load(tmp_path / "one")


def test_without_state(tmp_path: Path) -> None:
    """Weights alone: smaller, and the optimizer starts anew without a word."""
    run = _trained()
    for state in (True, False):
        run.save(tmp_path / str(state), delta=True, state=state)
    assert (tmp_path / "False").stat().st_size < (tmp_path / "True").stat().st_size
    other = _trainer()
    other.step(_X, _Y, lr=0.1)
    other.load(tmp_path / "False")
    assert _same(other.state_dict(), run.state_dict())
    assert not any(t.any() for t in _state(other, tmp_path).values())


def test_values_that_are_no_numbers(tmp_path: Path) -> None:
    """NaN, infinities and signs of zero come back bit by bit, in frozen values too."""
    odd = {name: t.clone() for name, t in _model().state_dict().items()}
    odd["first.weight"][0, :3] = torch.tensor([float("nan"), -torch.inf, -0.0])
    odd["last.bias"][:2] = torch.tensor([float("nan"), -0.0])
    run = _trainer()
    run.load_state_dict(odd)
    for delta in (False, True):
        run.save(tmp_path / "run", delta=delta)
        other = _trainer()
        if delta:
            other.load_state_dict({**odd, "last.bias": torch.zeros(4)})
        other.load(tmp_path / "run")
        assert _same(other.state_dict(), run.state_dict())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"last.bias": None}, "it lacks last.bias and holds nothing besides"),
        ({"more": torch.zeros(1)}, "it lacks nothing and holds more besides"),
        ({"last.bias": torch.zeros(5)}, r"its last.bias has shape \(5,\), not \(4,\)"),
    ],
)
def test_another_architecture(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    """Names and shapes have to agree; nothing is changed."""
    run = _trained()
    run.save(tmp_path / "run")
    tensors, metadata = read_checkpoint(tmp_path / "run")
    found = {n: t for n, t in {**tensors, **change}.items() if t is not None}
    write_checkpoint(tmp_path / "run", found, metadata)
    before = _bytes(run)
    with pytest.raises(CheckpointError, match=message):
        run.load(tmp_path / "run")
    assert _bytes(run) == before


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "half"},
        {"kind": "full"},  # with parts
        {"scheme": "[1]"},
        {"scheme": '{"last.bias": 2}'},
        {"scheme": "[" * 100_000},
        {"parts": '{"last.weight": [1, 3]}'},
        {"parts": '{"last.weight": [7, 4]}'},
        {"parts": '{"last.weight": [-1, 4]}'},
        {"parts": '{"nobody": [0, 1]}'},
        {"parts": '{"last.weight": 1}'},
        {"extra": '{"a": 1}'},
        {"extra": "[]"},
        {"has_state": ""},
    ],
    ids=lambda change: json.dumps(change)[:30],
)
def test_senseless_metadata(tmp_path: Path, change: dict[str, str]) -> None:
    """A file with a right checksum may still say what cannot be; that is an error."""
    _trained().save(tmp_path / "run", delta=True)
    tensors, metadata = read_checkpoint(tmp_path / "run")
    write_checkpoint(tmp_path / "run", tensors, {**metadata, **change})
    with pytest.raises(CheckpointError, match="makes no sense"):
        pe.Checkpoint.read(tmp_path / "run")


@pytest.mark.parametrize("extra", [{"epoch": 3}, {3: "epoch"}])
def test_extra_is_text(tmp_path: Path, extra: Any) -> None:
    """Numbers are refused by name, rather than coming back as texts."""
    with pytest.raises(InputError, match=r"save\(extra=\.\.\.\): .*texts by text"):
        _trainer().save(tmp_path / "run", extra=extra)
    assert list(tmp_path.iterdir()) == []


def test_state_dict_suits_all_writers(tmp_path: Path) -> None:
    """torch.save and safetensors take it: tied names have their own copies, all is dense."""
    trainer = _trained()
    state = trainer.state_dict()
    torch.save(state, tmp_path / "a.pt")
    save_file(state, tmp_path / "a.safetensors")
    for found in (torch.load(tmp_path / "a.pt"), load_file(tmp_path / "a.safetensors")):
        model = _model(1)
        model.load_state_dict(found)
        assert _same(model.state_dict(), state)
    strided = nn.Conv2d(2, 3, 3).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    batch = (torch.zeros(1, 2, 5, 5), torch.zeros(1, 3, 3, 3))
    options: dict[str, Any] = {"loss": "mse", "optimizer": pe.SGD(), "threads": 1}
    scheme = pe.Scheme({"bias": 1.0})
    with pe.compile(strided, batch, **options, scheme=scheme) as frozen:
        save_file(frozen.state_dict(), tmp_path / "b.safetensors")
        assert torch.equal(load_file(tmp_path / "b.safetensors")["weight"], strided.weight)


def _sparse(model: nn.Module) -> pe.Scheme:
    """Biases of the later half, a quarter of five expansions' input channels, and the head."""
    biases = [n for n, _ in model.named_parameters() if n.startswith("features") and "bias" in n]
    expansions = [f"features.{block}.conv.0.0.weight" for block in range(13, 18)]
    whole = [*biases[len(biases) // 2 :], "classifier.1.weight", "classifier.1.bias"]
    return pe.Scheme({**dict.fromkeys(whole, 1.0), **dict.fromkeys(expansions, 0.25)})


@pytest.mark.slow
def test_delta_of_mobilenet(tmp_path: Path) -> None:
    """With its momentum, a sparse scheme's delta is at most 15 % of the full checkpoint."""
    model = mobilenet_v2(classes=10).eval()
    batch = (torch.randn(2, 3, 32, 32), torch.tensor([1, 2]))
    options: dict[str, Any] = {"loss": "cross_entropy", "optimizer": _SGD, "threads": 1}
    with pe.compile(model, batch, scheme=_sparse(model), **options) as trainer:
        trainer.step(*batch, lr=0.01)
        for delta in (True, False):
            trainer.save(tmp_path / str(delta), delta=delta)
        state = trainer.state_dict()
        trainer.load_state_dict(model.state_dict())
        trainer.load(tmp_path / "True")
        assert _same(trainer.state_dict(), state)
    assert (tmp_path / "True").stat().st_size <= 0.15 * (tmp_path / "False").stat().st_size
