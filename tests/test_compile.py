"""``compile``: PyTorch's numbers for any scheme and optimizer; and what a scheme leaves alone."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from torch import nn

import pockengine as pe
from pockengine.compile import prepare
from pockengine.errors import InputError, SchemeError
from pockengine.ir.types import Region
from tests.eager import LOSS_TOLERANCE, train_eagerly
from tests.models import small_case
from tests.oracles import Example, InvertedBlock, tied_mlp

_OPTIMIZERS = [(pe.SGD(momentum=0.9), 0.01), (pe.AdamW(), 1e-3)]
_MIXED = pe.Scheme({"second.weight": 0.5, "last.weight": 0.25, "last.bias": 1.0})
_SLICED = pe.Scheme(
    {
        "blocks.0.layers.6.weight": 1.0,
        "blocks.1.layers.0.weight": 0.5,
        "blocks.1.layers.3.weight": 0.25,
        "blocks.1.layers.7.bias": 1.0,
        "head.weight": 0.5,
    }
)


class _ConvNet(nn.Module):
    """A stem, two inverted blocks and a head: a MobileNetV2 for (2, 3, 16, 16)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU6())
        self.blocks = nn.Sequential(InvertedBlock(8, 16, 8, 1), InvertedBlock(8, 24, 12, 2))
        self.head = nn.Linear(12, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, 3, 16, 16) -> (N, 5)."""
        return self.head(self.blocks(self.stem(x)).mean((2, 3)))  # type: ignore[no-any-return]


def _conv_net() -> tuple[nn.Module, tuple[Any, Any], str]:
    torch.manual_seed(0)
    model = _ConvNet()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            nn.init.uniform_(module.weight, 0.5, 1.5)
            module.running_mean.uniform_(-0.5, 0.5)
            module.running_var.uniform_(0.5, 1.5)
    return model.eval(), (torch.randn(2, 3, 16, 16), torch.tensor([1, 4])), "cross_entropy"


def _mlp() -> tuple[nn.Module, tuple[Any, Any], str]:
    case: Example = tied_mlp()
    return case.model, case.batch, case.loss


def _cases() -> Iterator[Any]:
    full, biases = pe.Scheme.full(), pe.Scheme.bias_only()
    schemes = {_mlp: (full, biases, _MIXED), _conv_net: (full, pe.Scheme.last_blocks(1), _SLICED)}
    for make, chosen in schemes.items():
        for scheme in chosen:
            for optimizer, lr in _OPTIMIZERS:
                yield make, scheme, optimizer, lr


@pytest.mark.parametrize(("make", "scheme", "optimizer", "lr"), list(_cases()))
def test_pytorchs_losses(make: Any, scheme: Any, optimizer: Any, lr: float) -> None:
    """Twenty losses are eager PyTorch's, and the regions are as large as the plan says."""
    model, batch, loss = make()
    wanted = train_eagerly(
        model, [batch] * 20, loss=loss, optimizer=optimizer, lr=lr, scheme=scheme
    )
    options = {"loss": loss, "optimizer": optimizer, "scheme": scheme, "threads": 1}
    with pe.compile(model, batch, **options) as trainer:
        losses = [trainer.step(*batch, lr=lr) for _ in range(20)]
        assert losses == pytest.approx(wanted.losses, rel=LOSS_TOLERANCE)
        sizes = tuple(region.nbytes for region in trainer.engine.regions)
        assert sizes == trainer.plan.region_bytes
        _assert_outside_unchanged(model, scheme, trainer)


def _assert_outside_unchanged(model: nn.Module, scheme: Any, trainer: pe.Trainer) -> None:
    """Frozen parameters and the frozen part of sliced ones keep every bit; the rest moved."""
    resolved, state = scheme.resolve(model), trainer.state_dict()
    parts = scheme.resolve(model).channels(model)
    for name, parameter in model.named_parameters():
        if name not in resolved:
            assert torch.equal(state[name], parameter)
        elif name in parts:
            part = parts[name]
            kept = parameter.shape[part.axis] - part.count
            tails = (t.narrow(part.axis, part.count, kept) for t in (state[name], parameter))
            assert torch.equal(*tails)
            heads = (t.narrow(part.axis, 0, part.count) for t in (state[name], parameter))
            assert not torch.equal(*heads)


def test_threads_agree() -> None:
    """One and two threads, and a second run, give the same bits."""
    model, batch, loss = _conv_net()
    states = []
    for threads in (1, 2, 2):
        options = {"loss": loss, "optimizer": pe.AdamW(), "threads": threads}
        with pe.compile(model, batch, **options) as trainer:
            for _ in range(3):
                trainer.step(*batch, lr=1e-3)
            states.append([region.tobytes() for region in trainer.engine.regions[:3]])
    assert states[0] == states[1] == states[2]


class _Words(nn.Module):
    """Words to classes; ``tied``: to words, by the same table."""

    def __init__(self, *, tied: bool) -> None:
        super().__init__()
        self.table, self.head = nn.Embedding(3000, 24), nn.Linear(24, 3000 if tied else 3)
        if tied:
            self.head.weight = self.table.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, L) -> (N, classes)."""
        return self.head(self.table(x).tanh().mean(1))  # type: ignore[no-any-return]


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize(("optimizer", "rate"), _OPTIMIZERS)
def test_a_table_has_no_dense_gradient(
    optimizer: pe.SGD | pe.AdamW, rate: float, *, tied: bool
) -> None:
    """The arena is smaller than the table; numbers are PyTorch's, bits the same on two threads."""
    torch.manual_seed(0)
    model = _Words(tied=tied).eval()
    x, y = torch.randint(0, 3000, (2, 9)), torch.tensor([2, 0])
    x[:, 4:] = 7
    options: dict[str, Any] = {"loss": "cross_entropy", "optimizer": optimizer}
    full, states = pe.Scheme.full(), []
    for threads in (1, 2):
        with pe.compile(model, (x, y), **options, threads=threads) as trainer:
            assert trainer.plan.arena_bytes < model.table.weight.nbytes
            losses = [trainer.step(x, y, lr=rate) for _ in range(4)]
            states.append(trainer.state_dict())
    wanted = train_eagerly(
        model, [(x, y)] * 4, loss="cross_entropy", optimizer=optimizer, lr=rate, scheme=full
    )
    assert losses == pytest.approx(wanted.losses, rel=LOSS_TOLERANCE)
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_second_scheme_starts_no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """With all kernels cached, a scheme is compiled without a compiler or any other process."""
    model, batch, loss = _mlp()
    options = {"loss": loss, "optimizer": pe.SGD(), "scheme": _MIXED, "threads": 1}
    pe.compile(model, batch, **options).close()

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("a process was started")

    monkeypatch.setattr(subprocess, "Popen", refuse)
    monkeypatch.setattr("os.fork", refuse)
    monkeypatch.setattr("os.posix_spawn", refuse)
    with pe.compile(model, batch, **options) as trainer:
        assert trainer.step(*batch, lr=0.1) > 0


def test_default_scheme_is_requires_grad() -> None:
    """Without a scheme, what the model wants to train is updated."""
    model, batch, loss = _mlp()
    found = prepare(model, batch, loss=loss, optimizer=pe.SGD())
    assert "first.bias" not in found.scheme
    assert found.plan.places["first.bias"].region is Region.CONST
    assert found.plan.places["first.weight"].region is Region.PARAM


def test_recompute_trades_time_for_memory() -> None:
    """What may be computed again is not kept if that pays; losses are the same."""
    case = small_case("bert", "full", "sgd")
    kept, losses = [], []
    for part in (0.0, 0.02, 0.3):
        options: Any = {"loss": case.loss, "optimizer": case.optimizer, "recompute": part}
        with pe.compile(case.model, case.batches[0], **options) as trainer:
            kept.append(trainer.plan.arena_bytes)
            losses.append([trainer.step(*batch, lr=case.lr) for batch in case.batches])
    assert kept[0] > kept[1] > kept[2]
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)
    assert losses[2] == pytest.approx(losses[0], rel=1e-5)


def test_observer_sees_every_pass() -> None:
    """Whoever asks is shown the graph after each pass of each entry point."""
    model, batch, loss = _mlp()
    seen: list[tuple[str, str]] = []
    prepare(
        model,
        batch,
        loss=loss,
        optimizer=pe.SGD(),
        observe=lambda entry, name, _: seen.append((entry, name)),
    )
    assert seen[0] == ("step", "prune_backward")
    assert ("predict", "fuse") in seen
    assert len(set(seen)) == len(seen)


def test_errors() -> None:
    """A scheme that trains nothing, a group that matches nothing, an unknown target, no threads."""
    model, batch, loss = _mlp()
    options: dict[str, Any] = {"loss": loss, "optimizer": pe.SGD()}
    with pytest.raises(SchemeError, match=r"parameters without a gradient: unused.weight"):
        pe.compile(model, batch, **options, scheme=pe.Scheme({"unused.weight": 1.0}))
    optimizer = pe.SGD(groups=(pe.ParamGroup("nothing.*"),))
    with pytest.raises(InputError, match="no parameter of that name"):
        pe.compile(model, batch, loss=loss, optimizer=optimizer)
    with pytest.raises(InputError, match="cray-1"):
        pe.compile(model, batch, **options, target="cray-1")
    with pytest.raises(InputError, match=r"threads=.*: 0; .*a whole number"):
        pe.compile(model, batch, **options, threads=0)


class _Counting(nn.Linear):
    """Notes how many threads trace at once."""

    inside, most = 0, 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, 2) -> (N, 2)."""
        _Counting.inside += 1
        _Counting.most = max(_Counting.most, _Counting.inside)
        time.sleep(0.05)
        _Counting.inside -= 1
        return super().forward(x)


def test_threads_take_turns() -> None:
    """Threads that compile do not meet in the modes that tracing sets for all of them."""
    batch = torch.randn(3, 2), torch.randn(3, 2)

    def compiled(_: int) -> bool:
        return bool(prepare(_Counting(2, 2), batch, loss="mse", optimizer=pe.SGD()).kernels)

    with ThreadPoolExecutor(2) as pool:
        assert all(pool.map(compiled, range(2)))
    assert _Counting.most == 1


def test_import_is_cheap() -> None:
    """``import pockengine`` loads neither torch nor TVM, and ``compile`` stays the function."""
    code = (
        "import sys, pockengine\n"
        "assert not {'torch', 'tvm', 'numpy'} & set(sys.modules)\n"
        "import pockengine.compile\n"
        "assert callable(pockengine.compile) and 'tvm' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
