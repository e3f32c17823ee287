"""Small captured models with float64 contents, and the comparisons that every pass is held to."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - the name everybody knows
from torch import Tensor, nn
from torch.fx import Graph
from torch.utils import _pytree as pytree

from pockengine.frontend.capture import Captured, canonical_batch, capture
from pockengine.frontend.losses import loss_function
from pockengine.ir.interpret import Result, interpret


class InvertedBlock(nn.Module):
    """Expand, depthwise, project: MobileNetV2's block, with a residual where shapes allow it."""

    def __init__(self, width: int, hidden: int, out: int, stride: int) -> None:
        super().__init__()
        self.residual = stride == 1 and width == out
        self.layers = nn.Sequential(
            nn.Conv2d(width, hidden, 1, bias=False),
            nn.BatchNorm2d(hidden),
            nn.ReLU6(),
            nn.Conv2d(hidden, hidden, 3, stride, 1, groups=hidden, bias=False),
            nn.BatchNorm2d(hidden),
            nn.ReLU6(),
            nn.Conv2d(hidden, out, 1, bias=False),
            nn.BatchNorm2d(out),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(N, width, H, W) -> (N, out, H / stride, W / stride)."""
        y: Tensor = self.layers(x)
        return x + y if self.residual else y


class ConvNet(nn.Module):
    """Convolutions of all kinds, BatchNorm, ReLU6, a residual, pooling, a linear head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU6()
        )
        self.blocks = nn.Sequential(
            InvertedBlock(8, 16, 8, 1), InvertedBlock(8, 16, 8, 1), InvertedBlock(8, 24, 12, 2)
        )
        self.grouped = nn.Conv2d(12, 16, 3, padding=1, groups=2)
        self.head = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) -> (N, 5)."""
        y = F.relu(self.grouped(self.blocks(self.stem(x))))
        return self.head(F.adaptive_avg_pool2d(y, 1).flatten(1))  # type: ignore[no-any-return]


class Layer(nn.Module):
    """A transformer encoder layer in BERT's order."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))
        self.up, self.down = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)
        self.first, self.second = nn.LayerNorm(width), nn.LayerNorm(width)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """(N, L, width) with a boolean (N, 1, 1, L)."""
        q, k, v = (
            part(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for part in (self.query, self.key, self.value)
        )
        seen = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        x = self.first(x + self.out(seen.transpose(1, 2).flatten(2)))
        return self.second(x + self.down(F.gelu(self.up(x))))  # type: ignore[no-any-return]


class Encoder(nn.Module):
    """A tiny BERT with an attention mask and a pooled classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(11, 8), nn.Embedding(6, 8)
        self.norm = nn.LayerNorm(8)
        self.layers = nn.ModuleList(Layer(8, 2) for _ in range(3))
        self.pooler, self.classifier = nn.Linear(8, 8), nn.Linear(8, 3)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Token ids (N, L) with a 0/1 mask -> (N, 3)."""
        places = torch.arange(input_ids.shape[1], device=input_ids.device)
        x = self.norm(self.words(input_ids) + self.places(places))
        mask = attention_mask[:, None, None, :].bool()
        for layer in self.layers:
            x = layer(x, mask)
        return self.classifier(torch.tanh(self.pooler(x[:, 0])))  # type: ignore[no-any-return]


class TiedMlp(nn.Module):
    """An MLP with a weight under two names, a frozen bias and parameters that nothing reads."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.third = nn.Linear(6, 8), nn.Linear(8, 8), nn.Linear(8, 8)
        self.third.weight = self.second.weight
        self.last = nn.Linear(8, 4)
        self.unused = nn.Linear(2, 2)
        self.first.bias.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 6) -> (N, 4)."""
        y = F.relu(self.second(torch.tanh(self.first(x))))
        return self.last(torch.sigmoid(self.third(y)))  # type: ignore[no-any-return]


@dataclass(frozen=True)
class Example:
    """A captured model and float64 contents of all of its graph's placeholders.

    Args:
        model: the module, in eval mode, with float32 parameters.
        batch: ``(inputs, targets)``.
        loss: the loss's name.
        captured: what capture made of it.
        values: by canonical name; integers keep their type.
    """

    model: nn.Module
    batch: tuple[Any, Any]
    loss: str
    captured: Captured
    values: Mapping[str, Tensor]

    @property
    def graph(self) -> Graph:
        """The joint graph as captured."""
        return self.captured.graph


@cache
def conv_net() -> Example:
    """The convolutional example: (2, 3, 16, 16) images, 5 classes."""
    torch.manual_seed(0)
    return _example(ConvNet(), (torch.randn(2, 3, 16, 16), torch.tensor([1, 4])), "cross_entropy")


@cache
def encoder() -> Example:
    """The encoder example: two sequences of six tokens, the second one padded; 3 classes."""
    torch.manual_seed(0)
    mask = torch.tensor([[1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 0, 0]])
    inputs = {"input_ids": torch.randint(0, 11, (2, 6)), "attention_mask": mask}
    return _example(Encoder(), (inputs, torch.tensor([2, 0])), "cross_entropy")


@cache
def tied_mlp() -> Example:
    """The tied example: regression of (3, 6) on (3, 4)."""
    torch.manual_seed(0)
    return _example(TiedMlp(), (torch.randn(3, 6), torch.randn(3, 4)), "mse")


EXAMPLES: tuple[Callable[[], Example], ...] = (conv_net, encoder, tied_mlp)


def _example(model: nn.Module, batch: tuple[Any, Any], loss: str) -> Example:
    for module in model.modules():
        if isinstance(module, (nn.BatchNorm2d, nn.LayerNorm)):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.5, 0.5)
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean.uniform_(-0.5, 0.5)
            module.running_var.uniform_(0.5, 1.5)
    model.eval()
    captured = capture(model, batch, loss)
    return Example(model, batch, loss, captured, doubles(captured, batch))


def doubles(captured: Captured, batch: tuple[Any, Any]) -> dict[str, Tensor]:
    """Contents of a captured graph's placeholders, floating-point ones in float64."""
    values = {name: _double(tensor) for name, tensor in captured.tensors.items()}
    leaves = pytree.tree_leaves(canonical_batch(batch))
    for name, leaf in zip((*captured.inputs, *captured.targets), leaves, strict=True):
        values[name] = _double(leaf)
    return values


def _double(tensor: Tensor) -> Tensor:
    return tensor.detach().double() if tensor.is_floating_point() else tensor.detach()


def autograd(example: Example) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss and every parameter's gradient by PyTorch in float64; zeros where there is none."""
    model = copy.deepcopy(example.model).double()
    for parameter in model.parameters():
        parameter.requires_grad_(True)
    inputs, targets = pytree.tree_map(_double, canonical_batch(example.batch))
    output = model(**inputs) if isinstance(inputs, dict) else model(*inputs)
    loss = loss_function(example.loss)(output, targets)
    loss.backward()  # type: ignore[no-untyped-call]
    found = {
        name: torch.zeros_like(p) if p.grad is None else p.grad
        for name, p in model.named_parameters()
    }
    return loss.detach(), found


def check_against_autograd(
    example: Example,
    graph: Graph | None = None,
    values: Mapping[str, Tensor] | None = None,
    tolerance: float = 1e-10,
) -> Result:
    """Assert that a graph's loss and gradients are autograd's; gradients may be fewer.

    Args:
        example: what the graph was captured from.
        graph: the graph as a pass left it; the captured one by default.
        values: contents of its placeholders, where they are not the example's.
        tolerance: allowed relative difference in norm.
    """
    chosen = example.graph if graph is None else graph
    found = interpret(chosen, example.values if values is None else values)
    loss, gradients = autograd(example)
    if found.loss is not None:
        _close("loss", found.loss, loss, tolerance)
    for name, gradient in found.gradients.items():
        _close(f"gradient of {name}", gradient, gradients[name], tolerance)
    return found


def assert_same(
    before: Graph,
    after: Graph,
    values: Mapping[str, Tensor],
    tolerance: float = 1e-12,
    after_values: Mapping[str, Tensor] | None = None,
) -> None:
    """Assert that two graphs yield the same loss, outputs, gradients and updates, by name.

    Args:
        before: the graph ahead of a pass.
        after: the graph that the pass made.
        values: contents of the placeholders, float64.
        tolerance: allowed relative difference in norm.
        after_values: contents for ``after``, where the pass changes them.
    """
    old = interpret(before, values)
    new = interpret(after, values if after_values is None else after_values)
    assert (old.loss is None) == (new.loss is None)
    if old.loss is not None and new.loss is not None:
        _close("loss", new.loss, old.loss, tolerance)
    for place, (found, wanted) in enumerate(zip(new.outputs, old.outputs, strict=True)):
        _close(f"output {place}", found, wanted, tolerance)
    for kind in ("gradients", "updates"):
        found_by_name, wanted_by_name = getattr(new, kind), getattr(old, kind)
        assert sorted(found_by_name) == sorted(wanted_by_name)
        for name, wanted in wanted_by_name.items():
            _close(f"{kind} of {name}", found_by_name[name], wanted, tolerance)


def _close(what: str, found: Tensor, wanted: Tensor, tolerance: float) -> None:
    assert found.shape == wanted.shape, f"{what}: shape {found.shape}, not {wanted.shape}"
    assert found.dtype == wanted.dtype, f"{what}: {found.dtype}, not {wanted.dtype}"
    found, wanted = found.double(), wanted.double()
    # a gradient that is zero but for rounding (attention's key bias) is compared absolutely
    error, size = (found - wanted).norm().item(), max(wanted.norm().item(), 1e-3)
    assert error <= tolerance * size, f"{what}: relative difference {error / size:.3g}"
