"""Small models of the three kinds that the spine carries, with a batch for each step."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import nn

from pockengine.optimizer import Optimizer
from pockengine.scheme import Rule, Scheme
from pockengine.tasks import EncoderShape, mini_lm, mobilenet_v2
from tests.eager import Batches
from tests.spine import ADAMW, SGD_MOMENTUM, Case, mixed_scheme

STEPS = 4
_ENCODER = EncoderShape(layers=3, width=32, heads=4, intermediate=64, vocabulary=50, positions=16)


def mlp() -> tuple[nn.Module, Batches]:
    """(16, 32) -> 10 classes with ReLU, GELU and LayerNorm."""
    model = nn.Sequential(
        *(nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 64), nn.GELU()),
        *(nn.LayerNorm(64), nn.Linear(64, 10)),
    )
    return model, [(torch.randn(16, 32), torch.randint(0, 10, (16,))) for _ in range(STEPS)]


def mobile() -> tuple[nn.Module, Batches]:
    """MobileNetV2 0.35 on (4, 3, 32, 32), 10 classes, BatchNorm in eval mode."""
    model = mobilenet_v2(width=0.35, classes=10).eval()
    return model, [(torch.randn(4, 3, 32, 32), torch.randint(0, 10, (4,))) for _ in range(STEPS)]


def bert() -> tuple[nn.Module, Batches]:
    """Three layers of MiniLM, width 32, on (4, 8) tokens of which some are padding; 2 classes."""
    mask = (torch.arange(8) < torch.tensor([[8], [5], [7], [2]])).long()
    batches = [
        ((torch.randint(0, 50, (4, 8)), mask), torch.randint(0, 2, (4,))) for _ in range(STEPS)
    ]
    return mini_lm(2, shape=_ENCODER), batches


MODELS: Mapping[str, Callable[[], tuple[nn.Module, Batches]]] = {
    "mlp": mlp,
    "mobile": mobile,
    "bert": bert,
}
SCHEMES: Mapping[str, Callable[[nn.Module], Scheme | Rule]] = {
    "full": lambda _: Scheme.full(),
    "bias_only": lambda _: Scheme.bias_only(),
    "last_blocks": lambda _: Scheme.last_blocks(2),
    "mixed": mixed_scheme,
}
OPTIMIZERS: Mapping[str, tuple[Optimizer, float]] = {
    "sgd": (SGD_MOMENTUM, 1e-2),
    "adamw": (ADAMW, 1e-3),
}
"""Each with its learning rate."""


def small_case(model: str, scheme: str, optimizer: str) -> Case:
    """A case by its names; the same from call to call."""
    torch.manual_seed(0)
    module, batches = MODELS[model]()
    settings, lr = OPTIMIZERS[optimizer]
    chosen = SCHEMES[scheme](module)
    return Case(model=module, batches=batches, scheme=chosen, optimizer=settings, lr=lr)


class Asserting(nn.Module):
    """Asserts something of a number out of a tensor (pytest rewrites the asserts of tests)."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, 4) -> (N, 4)."""
        assert (x > 0).sum(1).max().item() <= x.shape[1]
        return self.layer(x)  # type: ignore[no-any-return]
