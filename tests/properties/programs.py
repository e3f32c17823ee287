"""Random small PyTorch programs: a sequence of functions and modules on (N, C, L) values."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - the name everybody knows
from hypothesis import strategies as st
from torch import Tensor, nn

Step = Callable[[Tensor], Tensor]
Made = Callable[[tuple[int, ...]], Step]


def _plain(function: Step) -> Made:
    return lambda _: function


class _Binary(nn.Module):
    """A function of the value and a parameter of its last axis."""

    def __init__(
        self, shape: tuple[int, ...], function: Callable[[Tensor, Tensor], Tensor]
    ) -> None:
        super().__init__()
        self.other = nn.Parameter(torch.randn(shape[-1]))
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        """Of x's shape."""
        return self.function(x, self.other)


STEPS: dict[str, Made] = {
    **{
        name: _plain(getattr(F, name))
        for name in "relu gelu silu softplus hardswish elu mish tanh logsigmoid softsign".split()
    },
    "sin": _plain(torch.sin),
    "square": _plain(lambda x: x.clamp(-3, 3) ** 2),
    "root": _plain(lambda x: (x.abs() + 0.5).sqrt()),
    "log": _plain(lambda x: (x.abs() + 0.5).log()),
    "exp": _plain(lambda x: x.clamp(max=2.0).exp()),
    "softmax": _plain(lambda x: x.softmax(-1)),
    "log_softmax": _plain(lambda x: x.log_softmax(1)),
    "layer_norm": lambda shape: nn.LayerNorm(shape[-1]),
    "group_norm": lambda shape: nn.GroupNorm(1, shape[1]),
    "batch_norm": lambda shape: nn.BatchNorm1d(shape[1]),
    "linear": lambda shape: nn.Linear(shape[-1], 5),
    "conv": lambda shape: nn.Conv1d(shape[1], 4, 3, padding=1),
    "depthwise": lambda shape: nn.Conv1d(shape[1], shape[1], 3, padding=1, groups=shape[1]),
    "max_pool": _plain(lambda x: F.max_pool1d(x, 2, 1, padding=1)),
    "avg_pool": _plain(lambda x: F.avg_pool1d(x, 3, 1, padding=1)),
    "cumsum": _plain(lambda x: x.cumsum(-1) * 0.3),
    "amax": _plain(lambda x: x - x.amax(-1, keepdim=True)),
    "mean": _plain(lambda x: x - x.mean(1, keepdim=True)),
    "std": _plain(lambda x: x / (x.var(-1, keepdim=True, correction=0) + 1.0).sqrt()),
    "norm": _plain(lambda x: F.normalize(x + 2.0, dim=-1)),
    "transpose": _plain(lambda x: x.transpose(1, 2)),
    "turned": _plain(lambda x: x.permute(2, 0, 1).flip(0).permute(1, 2, 0)),
    "roll": _plain(lambda x: x.roll(1, -1)),
    "pad": _plain(lambda x: F.pad(x, (1, 0))[..., :8]),
    "halves": _plain(lambda x: torch.cat([x[..., ::2], x[..., 1::2]], -1)),
    "strided": _plain(lambda x: x[..., ::2].repeat_interleave(2, -1)[..., : x.shape[-1]]),
    "flat": _plain(lambda x: x.flatten(1).reshape(x.shape[0], x.shape[2], -1)),
    "gather": _plain(lambda x: x[:, :, torch.arange(x.shape[-1] - 1, -1, -1)]),
    "tril": _plain(torch.tril),
    "sorted": _plain(lambda x: x.sort(-1).values),
    "gram": _plain(lambda x: (x @ x.transpose(1, 2)).tanh() @ x),
    "attention": _plain(lambda x: F.scaled_dot_product_attention(x, x, x)),
    "where": _plain(lambda x: torch.where(x > 0.1, x, 0.5 * x)),
    "add": lambda shape: _Binary(shape, torch.add),
    "one_more": lambda shape: _Binary(shape, lambda x, y: x * (1 + y)),
    "across": _plain(lambda x: x.tanh() + x.logsumexp(-1).unsqueeze(1)),
    "mul": lambda shape: _Binary(shape, torch.mul),
    "maximum": lambda shape: _Binary(shape, torch.maximum),
    "atan2": lambda shape: _Binary(shape, lambda x, y: torch.atan2(x, y.abs() + 0.5)),
}
"""What makes the next value; a step that PyTorch refuses for a shape is left out."""


class Program(nn.Module):
    """Steps one after the other, some of them beside what they were given.

    Args:
        names: of the steps and whether each is added to its operand where the shapes agree.
        shape: of the input.
    """

    def __init__(self, names: Sequence[tuple[str, bool]], shape: tuple[int, ...]) -> None:
        super().__init__()
        self.shape = shape
        self.first = nn.Linear(shape[-1], shape[-1])  # so that there is something to train
        self.names: list[str] = []
        self.steps: list[tuple[Step, bool]] = []
        x = torch.randn(shape)
        for name, beside in names:
            try:
                step = STEPS[name](tuple(x.shape))
                x = step(x).detach()
            except (RuntimeError, ValueError):
                continue
            if isinstance(step, nn.Module):
                self.add_module(f"step_{len(self.steps)}", step)
            self.names.append(name)
            self.steps.append((step, beside))

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, L) -> three axes."""
        x = self.first(x)
        for step, beside in self.steps:
            y = step(x)
            x = x + y if beside and x.shape == y.shape else y
        return x


@st.composite
def programs(draw: Callable[[st.SearchStrategy[Any]], Any], most: int = 8) -> Program:
    """A program of up to so many steps."""
    last = draw(st.sampled_from((1, 3, 6, 8)))
    alike = draw(st.booleans())  # so that axes cannot be told by their extents
    shape = (last,) * 3 if alike else (2, draw(st.integers(1, 4)), last)
    step = st.tuples(st.sampled_from(sorted(STEPS)), st.booleans())
    return Program(draw(st.lists(step, min_size=1, max_size=most)), shape)
