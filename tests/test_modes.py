"""Optimizers, clipping, accumulation and averaging in compiled trainers, beside PyTorch eager."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

import pockengine as pe
from pockengine.errors import InputError, TrainError
from pockengine.ir.types import Region
from pockengine.optimizer import Optimizer

_TOLERANCE = {"rtol": 2e-4, "atol": 2e-6}
_STEPS = 4


class _Net(nn.Module):
    """(4, 3, 6, 6) -> (4, 5): a convolution, a matrix, their biases."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, stride=2)
        self.head = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        hidden: Tensor = torch.nn.functional.gelu(self.conv(x)).flatten(1)
        out: Tensor = self.head(hidden)
        return out


def _model() -> _Net:
    torch.manual_seed(0)
    return _Net()


def _batches(count: int = _STEPS) -> list[tuple[Tensor, Tensor]]:
    torch.manual_seed(1)
    return [(torch.randn(4, 3, 6, 6), torch.randint(0, 5, (4,))) for _ in range(count)]


def _compile(optimizer: Optimizer, **options: Any) -> pe.Trainer:
    batch = _batches(1)[0]
    return pe.compile(
        _model(), batch, loss="cross_entropy", optimizer=optimizer, threads=1, **options
    )


class _LionByHand(torch.optim.Optimizer):
    """Algorithm 2 of Chen et al. 2023, literally."""

    def __init__(
        self, params: Any, lr: float, betas: tuple[float, float], weight_decay: float
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One step."""
        del closure
        for group in self.param_groups:
            first, second = group["betas"]
            for p in group["params"]:
                mean = self.state[p].setdefault("exp_avg", torch.zeros_like(p))
                direction = (first * mean + (1 - first) * p.grad).sign()
                p.sub_(group["lr"] * (direction + group["weight_decay"] * p))
                mean.mul_(second).add_(p.grad, alpha=1 - second)


def _eager(
    optimizer: Optimizer,
    lr: float,
    batches: Sequence[tuple[Tensor, Tensor]],
    *,
    clip: Callable[[list[nn.Parameter]], Any] = lambda _: None,
    every: int = 1,
    scale: float = 1.0,
    after: Callable[[nn.Module], Any] = lambda _: None,
) -> tuple[list[float], nn.Module]:
    """PyTorch's losses and model; ``scale`` multiplies each loss ahead of the backward pass."""
    model = _model()
    options = {f.name: getattr(optimizer, f.name) for f in fields(optimizer) if f.name != "groups"}
    made = getattr(torch.optim, type(optimizer).__name__, _LionByHand)
    steps = made(model.parameters(), lr=lr, **options)
    losses = []
    for count, (x, y) in enumerate(batches, 1):
        loss = nn.functional.cross_entropy(model(x), y)
        (loss * scale).backward()  # type: ignore[no-untyped-call]
        losses.append(float(loss.detach()))
        if count % every == 0:
            clip(list(model.parameters()))
            steps.step()
            steps.zero_grad()
            after(model)
    return losses, model


def _assert_equal(trainer: pe.Trainer, losses: list[float], ran: tuple[list[float], Any]) -> None:
    wanted, model = ran
    torch.testing.assert_close(losses, wanted, **_TOLERANCE)
    _assert_state(trainer.state_dict(), model.state_dict())


def _assert_state(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> None:
    assert found.keys() == wanted.keys()
    for name, tensor in wanted.items():
        torch.testing.assert_close(found[name], tensor, **_TOLERANCE)


@pytest.mark.parametrize(
    ("optimizer", "lr"),
    [
        (pe.Adam(weight_decay=0.1, amsgrad=True), 1e-2),
        (pe.Lion(weight_decay=0.1), 1e-3),
        (pe.RMSprop(momentum=0.9, centered=True, weight_decay=0.01), 1e-3),
        (pe.Adagrad(lr_decay=0.1, initial_accumulator_value=0.1), 1e-2),
    ],
    ids=lambda value: type(value).__name__,
)
def test_optimizers(optimizer: Optimizer, lr: float, tmp_path: Path) -> None:
    """Losses and parameters are PyTorch's; a new trainer resumes bit by bit."""
    batches = _batches(2 * _STEPS)
    with _compile(optimizer) as trainer:
        losses = [trainer.step(x, y, lr=lr) for x, y in batches[:_STEPS]]
        trainer.save(tmp_path / "a.ckpt")
        losses += [trainer.step(x, y, lr=lr) for x, y in batches[_STEPS:]]
        _assert_equal(trainer, losses, _eager(optimizer, lr, batches))
        with _compile(optimizer) as other:
            other.load(tmp_path / "a.ckpt")
            assert [other.step(x, y, lr=lr) for x, y in batches[_STEPS:]] == losses[_STEPS:]


@pytest.mark.parametrize(
    ("clip", "reference"),
    [
        (pe.Clip(value=0.02), lambda ps: nn.utils.clip_grad_value_(ps, 0.02)),
        (pe.Clip(norm=0.1), lambda ps: [nn.utils.clip_grad_norm_([p], 0.1) for p in ps]),
        (pe.Clip(global_norm=0.1), lambda ps: nn.utils.clip_grad_norm_(ps, 0.1)),
        (pe.Clip(global_norm=100.0), lambda ps: nn.utils.clip_grad_norm_(ps, 100.0)),
    ],
)
def test_clipping(clip: pe.Clip, reference: Callable[[list[nn.Parameter]], Any]) -> None:
    """As torch.nn.utils: by value, by each norm, by all together; and where nothing is clipped."""
    optimizer, batches = pe.SGD(momentum=0.9), _batches()
    with _compile(optimizer, clip=clip) as trainer:
        losses = [trainer.step(x, y, lr=0.5) for x, y in batches]
        _assert_equal(trainer, losses, _eager(optimizer, 0.5, batches, clip=reference))


@pytest.mark.parametrize("mean", [True, False])
def test_accumulation(mean: bool, tmp_path: Path) -> None:
    """Parameters change every third step, by mean or sum; clipping sees that; it resumes within."""
    optimizer, batches = pe.AdamW(), _batches(6)
    options: dict[str, Any] = {
        "accumulate": pe.Accumulate(3, mean=mean),
        "clip": pe.Clip(global_norm=0.2),
    }
    with _compile(optimizer, **options) as trainer:
        before = trainer.state_dict()["head.weight"]
        losses = []
        for count, (x, y) in enumerate(batches):
            losses.append(trainer.step(x, y, lr=1e-2))
            assert trainer.accumulated == (count + 1) % 3
            assert torch.equal(trainer.state_dict()["head.weight"], before) == (count < 2)
            if count == 3:
                trainer.save(tmp_path / "a.ckpt")
        ran = _eager(
            optimizer,
            1e-2,
            batches,
            every=3,
            scale=1 / 3 if mean else 1.0,
            clip=lambda ps: nn.utils.clip_grad_norm_(ps, 0.2),
        )
        _assert_equal(trainer, losses, ran)
        with _compile(optimizer, **options) as other:
            other.load(tmp_path / "a.ckpt")
            assert [other.step(x, y, lr=1e-2) for x, y in batches[4:]] == losses[4:]
            assert torch.equal(
                other.state_dict()["head.weight"], trainer.state_dict()["head.weight"]
            )


def test_the_last_group_may_be_short() -> None:
    """``apply`` updates by the mean of what there is, and does nothing where there is nothing."""
    batches = _batches(2)
    with _compile(pe.SGD(), accumulate=3) as trainer:
        assert not trainer.apply(lr=0.1)
        losses = [trainer.step(x, y, lr=0.1) for x, y in batches]
        assert trainer.apply(lr=0.1)
        assert trainer.accumulated == 0
        _assert_equal(trainer, losses, _eager(pe.SGD(), 0.1, batches, every=2, scale=0.5))
        trainer.load_state_dict({n: 1e30 * t for n, t in _model().state_dict().items()})
        with pytest.raises(TrainError, match="loss"):
            trainer.step(*batches[0], lr=0.1)
        with pytest.raises(InputError, match=r"lr: nan"):
            trainer.step(*batches[0], lr=float("nan"))
        assert trainer.accumulated == 0
        with pytest.raises(InputError, match="accumulate and apply"):
            trainer.export("nowhere")


@pytest.mark.parametrize("scheme", [None, pe.Scheme({"conv.weight": 0.5, "head.bias": 1.0})])
def test_averaged_weights(scheme: pe.Scheme | None, tmp_path: Path) -> None:
    """The average is PyTorch's, is read by name, predicts, and comes back from a checkpoint."""
    average = AveragedModel(_model(), multi_avg_fn=get_ema_multi_avg_fn(0.8))
    average.update_parameters(_model())
    batches = _batches()
    with _compile(pe.SGD(), ema=0.8, scheme=scheme) as trainer:
        start = trainer.state_dict()
        for x, y in batches:
            trainer.step(x, y, lr=0.5)
            now = _model()
            now.load_state_dict(trainer.state_dict())
            average.update_parameters(now)
        found = trainer.state_dict(ema=True)
        _assert_state(found, average.module.state_dict())
        assert not torch.equal(found["head.bias"], start["head.bias"])
        x, y = batches[0]
        wanted = average.module(x).detach()
        torch.testing.assert_close(trainer.predict(x, ema=True), wanted, **_TOLERANCE)
        torch.testing.assert_close(trainer.evaluate(x, y, ema=True)[1], wanted, **_TOLERANCE)
        assert not torch.equal(trainer.predict(x), wanted)
        trainer.save(tmp_path / "a.ckpt")
        trainer.load_state_dict(start)
        _assert_state(trainer.state_dict(ema=True), start)
        trainer.load(tmp_path / "a.ckpt")
        assert torch.equal(trainer.state_dict(ema=True)["head.bias"], found["head.bias"])


def test_only_what_is_asked_costs_memory() -> None:
    """State holds accumulators and averages only where they are asked for."""
    plain = _compile(pe.SGD())
    assert plain.plan.state_bytes == 0
    rich = _compile(pe.SGD(), accumulate=2, ema=0.9)
    names = rich.plan.places
    state = {name for name, place in names.items() if place.region is Region.STATE}
    params = [name for name, place in names.items() if place.region is Region.PARAM]
    assert state == {
        "accumulated.count",
        *(f"accumulated.grad.{n}" for n in params),
        *(f"ema.{n}" for n in params),
    }


@pytest.mark.parametrize(
    ("run", "message"),
    [
        (pe.Clip, "Clip: no limit"),
        (lambda: pe.Clip(value=1.0, norm=1.0), "Clip: value, norm"),
        (lambda: pe.Clip(norm=0.0), r"Clip\(norm\): 0.0"),
        (lambda: pe.Accumulate(1), r"Accumulate\(steps\): 1"),
        (lambda: _compile(pe.SGD(), clip=1.0), r"compile\(clip\): 1.0"),
        (lambda: _compile(pe.SGD(), accumulate=0), r"Accumulate\(steps\): 0"),
        (lambda: _compile(pe.SGD(), ema=1.0), r"compile\(ema\): 1.0.*below 1"),
        (lambda: pe.Adam(betas=(0.9, 1.0)), r"Adam\(betas\[1\]\)"),
        (lambda: pe.Lion(weight_decay=-1), r"Lion\(weight_decay\)"),
        (lambda: pe.RMSprop(alpha=1.0), r"RMSprop\(alpha\)"),
        (lambda: pe.Adagrad(lr_decay=-1), r"Adagrad\(lr_decay\)"),
    ],
)
def test_mistakes(run: Callable[[], object], message: str) -> None:
    """Each is one error that names the argument."""
    with pytest.raises(InputError, match=message):
        run()


def test_no_average_to_read() -> None:
    """A trainer without averages says so."""
    with _compile(pe.SGD()) as trainer:
        for read in (trainer.state_dict, lambda ema: trainer.predict(_batches()[0][0], ema=ema)):
            with pytest.raises(InputError, match="keeps no average"):
                read(ema=True)


def test_groups_give_each_layer_its_rate() -> None:
    """Learning rates and weight decay by name, as PyTorch's parameter groups."""
    groups = (pe.ParamGroup("conv.*", lr_scale=0.1), pe.ParamGroup("*.bias", weight_decay=0.0))
    model = copy.deepcopy(_model())
    steps = torch.optim.Adam(
        [
            {"params": model.conv.parameters(), "lr": 1e-3},
            {"params": [model.head.weight]},
            {"params": [model.head.bias], "weight_decay": 0.0},
        ],
        lr=1e-2,
        weight_decay=0.1,
    )
    with _compile(pe.Adam(weight_decay=0.1, groups=groups)) as trainer:
        for x, y in _batches():
            trainer.step(x, y, lr=1e-2)
            nn.functional.cross_entropy(model(x), y).backward()  # type: ignore[no-untyped-call]
            steps.step()
            steps.zero_grad()
        _assert_state(trainer.state_dict(), model.state_dict())
