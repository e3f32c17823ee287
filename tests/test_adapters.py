"""Adapters: those that a scheme adds, those of peft, and heads that are replaced."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - the name everybody knows
from torch import Tensor, nn

import pockengine as pe
from pockengine.adapters import adapt
from pockengine.errors import SchemeError
from pockengine.scheme import Lora, Scheme

RANK, ALPHA, RATE, STEPS = 2, 6.0, 0.05, 5


class Net(nn.Module):
    """A 1 x 1 convolution, two linear layers and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 1, stride=2)
        self.q_proj, self.v_proj = nn.Linear(8, 8), nn.Linear(8, 8, bias=False)
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) -> (N, 4)."""
        x = F.relu(self.conv(x)).mean((2, 3))
        return self.head(torch.tanh(self.q_proj(x)) + self.v_proj(x))  # type: ignore[no-any-return]


def model_and_batches() -> tuple[Net, list[tuple[Tensor, Tensor]]]:
    """A seeded model and a batch a step."""
    torch.manual_seed(0)
    batches = [(torch.randn(4, 3, 6, 6), torch.randint(0, 4, (4,))) for _ in range(STEPS)]
    return Net(), batches


def steps(
    model: nn.Module, trained: Iterable[nn.Parameter], batches: list[tuple[Tensor, Tensor]]
) -> list[float]:
    """PyTorch's losses of SGD with momentum on some parameters; the model is changed."""
    optimizer = torch.optim.SGD(trained, lr=RATE, momentum=0.9)
    losses = []
    for x, y in batches:
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        losses.append(loss.item())
    return losses


def compiled_losses(trainer: Any, batches: list[tuple[Tensor, Tensor]]) -> list[float]:
    """The trainer's."""
    return [trainer.step(x, y, lr=RATE) for x, y in batches]


class ByHand(nn.Module):
    """W x + b + alpha / rank B A x, written out."""

    def __init__(self, base: Any, down: Tensor) -> None:
        super().__init__()
        self.base = base
        self.a = nn.Parameter(down.clone())
        self.b = nn.Parameter(torch.zeros(base.weight.shape[0], RANK, *down.shape[2:]))

    def forward(self, x: Tensor) -> Tensor:
        """As the layer."""
        if isinstance(self.base, nn.Conv2d):
            part = F.conv2d(F.conv2d(x, self.a, stride=self.base.stride), self.b)
        else:
            part = x @ self.a.T @ self.b.T
        return self.base(x) + ALPHA / RANK * part  # type: ignore[no-any-return]


def test_equals_lora_by_hand() -> None:
    """Losses, adapters and the merged weights are those of LoRA written in PyTorch."""
    model, batches = model_and_batches()
    before = copy.deepcopy(model.state_dict())
    scheme = pe.Scheme.lora(RANK, ["*_proj", "conv"], alpha=ALPHA, head=True)
    options: Any = {"loss": "cross_entropy", "optimizer": pe.SGD(momentum=0.9)}
    with pe.compile(model, batches[0], scheme=scheme, **options) as trainer:
        start = trainer.state_dict()
        found = compiled_losses(trainer, batches)
        state, merged = trainer.state_dict(), trainer.state_dict(merge=True)
        logits = trainer.predict(batches[0][0])
    assert model.state_dict().keys() == before.keys()
    assert all(torch.equal(model.state_dict()[name], before[name]) for name in before)

    by_hand = copy.deepcopy(model).requires_grad_(False)
    for name in ("conv", "q_proj", "v_proj"):
        setattr(by_hand, name, ByHand(getattr(by_hand, name), start[f"{name}.lora_a"]))
    by_hand.head.requires_grad_(True)
    trained = [p for p in by_hand.parameters() if p.requires_grad]
    assert found == pytest.approx(steps(by_hand, trained, batches), rel=1e-4)
    torch.testing.assert_close(state["q_proj.lora_b"], by_hand.q_proj.b.data)  # type: ignore[arg-type]
    torch.testing.assert_close(state["q_proj.weight"], before["q_proj.weight"])
    model.load_state_dict(merged)
    torch.testing.assert_close(model(batches[0][0]), logits, rtol=1e-4, atol=1e-5)


def test_adapted_model_starts_as_the_model() -> None:
    """B is zero, tensors are shared, and the seed decides A."""
    model, batches = model_and_batches()
    first, same, other = (
        adapt(model, rank=RANK, targets=["q_proj"], alpha=1.0, seed=seed) for seed in (0, 0, 1)
    )
    assert torch.equal(first(batches[0][0]), model(batches[0][0]))
    assert first.get_parameter("q_proj.weight") is model.q_proj.weight
    assert torch.equal(first.get_parameter("q_proj.lora_a"), same.get_parameter("q_proj.lora_a"))
    assert not torch.equal(
        first.get_parameter("q_proj.lora_a"), other.get_parameter("q_proj.lora_a")
    )


def test_rule_is_written_and_read() -> None:
    """A rule survives JSON; only adapters are in its table."""
    rule = pe.Scheme.lora(4, "q_proj", alpha=8)
    assert Scheme.from_json(rule.to_json()) == rule == Lora(4, ("q_proj",), 8)
    model, _ = model_and_batches()
    assert set(rule.resolve(rule.prepared(model))) == {"q_proj.lora_a", "q_proj.lora_b"}


class Tied(nn.Module):
    """What cannot be adapted: a wide convolution, attention's own layer and tied weights."""

    def __init__(self) -> None:
        super().__init__()
        self.wide = nn.Conv2d(3, 3, 3)
        self.attention = nn.MultiheadAttention(4, 2)
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)
        self.second.weight = self.first.weight


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("third", r"nothing that 'third' names.*Name some of wide, attention\.out_proj"),
        ("wide", r"lora: wide: a convolution of \(3, 3\)"),
        ("out_proj", "MultiheadAttention reads past it"),
        ("second", "tied to another"),
    ],
)
def test_what_cannot_be_adapted(target: str, message: str) -> None:
    """A target that does not exist or cannot take an adapter is refused."""
    with pytest.raises(SchemeError, match=message):
        adapt(Tied(), rank=1, targets=[target], alpha=1.0, seed=0)


def test_peft_model() -> None:
    """A model that peft wrapped compiles as it is, and trains what peft left trainable."""
    peft = pytest.importorskip("peft")
    model, batches = model_and_batches()
    config = peft.LoraConfig(r=RANK, lora_alpha=4, target_modules=["q_proj", "v_proj", "conv"])
    wrapped = peft.get_peft_model(model, config).eval()
    options: Any = {"loss": "cross_entropy", "optimizer": pe.SGD(momentum=0.9)}
    with pe.compile(wrapped, batches[0], **options) as trainer:
        found = compiled_losses(trainer, batches)
        state = trainer.state_dict()
    trained = [p for p in wrapped.parameters() if p.requires_grad]
    assert found == pytest.approx(steps(wrapped, trained, batches), rel=1e-4)
    for name, tensor in wrapped.state_dict().items():
        torch.testing.assert_close(state[name], tensor, rtol=1e-4, atol=1e-5)


def test_head_with_one_more_class() -> None:
    """Logits of the kept classes stay; the new one is there."""
    model, batches = model_and_batches()
    before = model(batches[0][0])
    assert pe.replace_head(model, classes=5, keep=[3, 0, 1, 2]) == "head"
    after = model(batches[0][0])
    assert after.shape == (4, 5)
    torch.testing.assert_close(after[:, :4], before[:, [3, 0, 1, 2]])
    frozen = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 2, bias=False).requires_grad_(False))
    assert pe.replace_head(frozen, classes=7) == "1"
    assert not frozen[1].weight.requires_grad


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"classes": 2, "keep": [0, 1, 2]}, "2 classes, keeping"),
        ({"classes": 4, "keep": [4]}, "of 0 to 3"),
        ({"classes": 0}, "one class or more"),
        ({"classes": 3, "name": "tail"}, "no linear layer 'tail'"),
    ],
)
def test_heads_that_do_not_fit(options: Any, message: str) -> None:
    """Classes that do not exist or do not fit are refused."""
    with pytest.raises(SchemeError, match=message):
        pe.replace_head(Net(), **options)


def test_tied_head() -> None:
    """A head that is tied to another weight is refused."""
    model = Tied()
    with pytest.raises(SchemeError, match=r"replace_head: second: .*tied to first\.weight"):
        pe.replace_head(model, classes=3)
