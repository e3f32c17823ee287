"""What is timed: models, batches and goals."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F  # noqa: N812 - the name everybody knows
from torch import Tensor, nn

from pockengine.model_tree import blocks, head_names
from pockengine.scheme import Scheme
from pockengine.tasks import mini_lm, mobilenet_v2
from tests.zoo import token_loss
from tests.zoo.text import Llama
from tests.zoo.vision import ResNet

IMAGE_SIZE = 128
TOKENS = 128
VOCABULARY = 30522
DECODER_TOKENS = 256
DECODER_VOCABULARY = 32000

Batch = tuple[tuple[Tensor, ...], Tensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A model with random weights, and what the compiled step is to reach.

    Attributes:
        model: makes the model, in eval mode: BatchNorm uses its running statistics.
        batch: makes ``(inputs, labels)``.
        speed_goal: PyTorch's time over ours.
        peer_goal: the time of the best peer over ours.
        memory_goal: our transient bytes over what PyTorch saves for the backward pass.
        loss: of the model's output and the targets.
        micro_batches: parts of a batch that our step runs in turn.
        recompute: part of our step's time for computing values again; None for the default.
    """

    model: Callable[[], nn.Module]
    batch: Callable[[], Batch]
    speed_goal: float
    peer_goal: float
    memory_goal: float = 0.45
    loss: Callable[[Tensor, Tensor], Tensor] = F.cross_entropy
    micro_batches: int = 1
    recompute: float | None = None


def _images(count: int, side: int) -> Batch:
    return (torch.randn(count, 3, side, side),), torch.randint(0, 10, (count,))


def _texts(count: int) -> Batch:
    ids = torch.randint(0, VOCABULARY, (count, TOKENS))
    mask = torch.ones(count, TOKENS, dtype=torch.int64)
    return (ids, mask), torch.randint(0, 2, (count,))


def _next_tokens(count: int) -> Batch:
    ids = torch.randint(0, DECODER_VOCABULARY, (count, DECODER_TOKENS + 1))
    return (ids[:, :-1].contiguous(),), ids[:, 1:].contiguous()


def _decoder() -> nn.Module:
    """LLaMA-style, 8 layers of width 512, with a head of its own."""
    model = Llama(DECODER_VOCABULARY, DECODER_TOKENS, 512, 8, 8, 8, 1376)
    model.head = nn.Linear(512, DECODER_VOCABULARY, bias=False)
    return model


CASES: dict[str, Case] = {
    "mobilenet_v2-b8": Case(
        model=lambda: mobilenet_v2(classes=10).eval(),
        batch=partial(_images, 8, 128),
        speed_goal=3.0,
        peer_goal=2.2,
    ),
    "mobilenet_v2-b1": Case(
        model=lambda: mobilenet_v2(classes=10).eval(),
        batch=partial(_images, 1, 128),
        speed_goal=4.5,
        peer_goal=3.5,
    ),
    "resnet18-b8": Case(
        model=lambda: ResNet(64, (64, 128, 256, 512), (2, 2, 2, 2), 1, 10).eval(),
        batch=partial(_images, 8, 128),
        speed_goal=1.6,
        peer_goal=1.5,
    ),
    "mini_lm-b8": Case(
        model=lambda: mini_lm(2).eval(),
        batch=partial(_texts, 8),
        speed_goal=1.35,
        peer_goal=1.3,
        micro_batches=2,
        recompute=0.02,
    ),
    "mobilenet_v2-035-b1": Case(
        model=lambda: mobilenet_v2(0.35, classes=10).eval(),
        batch=partial(_images, 1, 96),
        speed_goal=7.0,
        peer_goal=5.0,
    ),
    "llama-b1": Case(
        model=_decoder,
        batch=partial(_next_tokens, 1),
        speed_goal=1.6,
        peer_goal=1.4,
        memory_goal=0.7,
        recompute=0.02,
        loss=token_loss,
    ),
}

START_CASE = "mobilenet_v2-b8"
START_GOALS_S = {"cold": 30.0, "warm": 6.0}
"""Seconds from the module to the end of the first step, without and with a kernel cache."""

FMA_GOAL = 0.85
"""Share of the arithmetic peak that counts as any goal of speed."""

LARGE = ("mobilenet_v2-b8", "resnet18-b8", "mini_lm-b8", "llama-b1")
THREADS_GOAL = 0.85
"""Gain of a second thread over that of a second core in the multiply-add loop; on these cases."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sparse:
    """A sparse scheme of a case, by the model's repeated blocks.

    Attributes:
        biases: all biases of so many last blocks are updated.
        weights: some weights of so many last blocks.
        matrices: which, by their names in a block.
        head: whether the classifier is updated.
        memory_goal: our transient bytes over what PyTorch saves when everything is trained.
        micro_batches: parts of a batch, of the sparse step and of the full one beside it.
    """

    biases: int
    weights: int
    matrices: tuple[str, ...]
    head: bool
    memory_goal: float
    micro_batches: int = 1

    def scheme(self, model: nn.Module) -> Scheme:
        """For a model."""
        known = {id(parameter): name for name, parameter in model.named_parameters()}
        found = blocks(model)
        own = [dict(block.named_parameters()) for block in found]
        chosen = [p for each in own[-self.biases :] for n, p in each.items() if n.endswith("bias")]
        chosen += [each[name] for each in own[-self.weights :] for name in self.matrices]
        names = [known[id(parameter)] for parameter in chosen]
        return Scheme(dict.fromkeys([*names, *(head_names(model) if self.head else ())], 1.0))


_SELF = "attention.self."
SPARSE: dict[str, Sparse] = {
    "mobilenet_v2-b8": Sparse(
        biases=7, weights=7, matrices=("conv.0.0.weight",), head=True, memory_goal=0.12
    ),
    "resnet18-b8": Sparse(
        biases=4, weights=2, matrices=("layers.0.0.weight",), head=True, memory_goal=0.2
    ),
    "mini_lm-b8": Sparse(
        biases=3,
        weights=2,
        matrices=(
            *(f"{_SELF}{part}.weight" for part in ("query", "key", "value")),
            "attention.output.dense.weight",
            "intermediate.dense.weight",
        ),
        head=True,
        memory_goal=0.12,
        micro_batches=4,
    ),
    "llama-b1": Sparse(biases=4, weights=2, matrices=("q.weight",), head=False, memory_goal=0.3),
}
"""The decoder has no biases, and its head is half of the model."""

SPARSE_FLOP_GOAL = 0.95
SPARSE_TIME_GOAL = 1.05
"""A sparse step's gain over that in operations; its kernels' time over theirs in the full step."""
