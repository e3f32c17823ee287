"""Every family of rules against autograd in float64: loss and all gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - the name everybody knows
from torch import Tensor, nn

from pockengine.errors import CaptureError
from pockengine.frontend.capture import capture
from tests.oracles import Example, check_against_autograd, doubles

_BATCH, _LENGTH, _WIDTH = 2, 5, 8


class Wrapped(nn.Module):
    """A linear layer, then anything; further modules by name."""

    def __init__(self, function: Callable[..., Tensor], **modules: nn.Module) -> None:
        super().__init__()
        self.function = function
        self.first = nn.Linear(_WIDTH, _WIDTH)
        for name, module in modules.items():
            self.add_module(name, module)

    def forward(self, x: Tensor) -> Tensor:
        """(N, L, width) -> whatever the function makes of it."""
        return self.function(
            self.first(x),
            **{name: module for name, module in self.named_children() if name != "first"},
        )


class Llama(nn.Module):
    """A decoder layer with RMSNorm, rotary positions, grouped queries and SwiGLU."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.out = nn.Linear(8, 8, bias=False), nn.Linear(8, 8, bias=False)
        self.k, self.v = nn.Linear(8, 4, bias=False), nn.Linear(8, 4, bias=False)
        self.gate, self.up = nn.Linear(8, 16, bias=False), nn.Linear(8, 16, bias=False)
        self.down = nn.Linear(16, 8, bias=False)
        self.first, self.second = nn.RMSNorm(8, eps=1e-5), nn.RMSNorm(8, eps=1e-5)
        angles = torch.arange(_LENGTH)[:, None] * torch.tensor([1.0, 0.1, 1.0, 0.1])
        self.register_buffer("angles", angles)

    def rotate(self, x: Tensor) -> Tensor:
        """Rotary position embedding of (N, heads, L, 4)."""
        a, b = x.chunk(2, -1)
        return x * self.angles.cos() + torch.cat([-b, a], -1) * self.angles.sin()

    def forward(self, x: Tensor) -> Tensor:
        """(N, L, 8) -> (N, L, 8)."""
        y = self.first(x)
        q = self.rotate(self.q(y).unflatten(2, (2, 4)).transpose(1, 2))
        k = self.rotate(self.k(y).unflatten(2, (1, 4)).transpose(1, 2))
        v = self.v(y).unflatten(2, (1, 4)).transpose(1, 2).repeat_interleave(2, 1)
        mixed = F.scaled_dot_product_attention(q, k.expand(-1, 2, -1, -1), v, is_causal=True)
        x = x + self.out(mixed.transpose(1, 2).flatten(2))
        y = self.second(x)
        return x + self.down(F.silu(self.gate(y)) * self.up(y))  # type: ignore[no-any-return]


def _attention(**how: Any) -> nn.Module:
    def mix(x: Tensor) -> Tensor:
        heads = x.unflatten(2, (2, 4)).transpose(1, 2)
        mixed = F.scaled_dot_product_attention(heads, heads, heads, **how)
        return mixed.transpose(1, 2).flatten(2)

    return Wrapped(mix)


def _encoder(**how: Any) -> nn.Module:
    return nn.TransformerEncoderLayer(_WIDTH, 2, 16, batch_first=True, **how)


def _padded() -> nn.Module:
    def run(x: Tensor, layer: nn.Module) -> Tensor:
        padding = torch.tensor([[False] * 5, [False, False, False, True, True]])
        return layer(x, src_key_padding_mask=padding)  # type: ignore[no-any-return]

    return Wrapped(run, layer=_encoder(activation="gelu"))


def _write_in_place(x: Tensor) -> Tensor:
    x = x.clone()
    x[:, 1:3] = 0.5
    x[:, 0] *= 2
    x[..., 2] = x[..., 1]
    return x


_SEEN = torch.tensor([[False] * 5, *[[True, False, True, True, False]] * 4])
_PLACES = (torch.arange(5)[:, None] - torch.arange(8)).abs()

MODULES: dict[str, Callable[[], nn.Module]] = {
    "TransformerEncoderLayer": _encoder,
    "TransformerEncoderLayer, norm first": lambda: _encoder(norm_first=True, activation="gelu"),
    "TransformerEncoderLayer with padding": _padded,
    "MultiheadAttention": lambda: Wrapped(
        lambda x, m: m(x, x, x)[0], m=nn.MultiheadAttention(_WIDTH, 2, batch_first=True)
    ),
    "Llama": Llama,
    "attention, causal": lambda: _attention(is_causal=True),
    "attention, boolean mask with an empty row": lambda: _attention(attn_mask=_SEEN),
    "attention, scale": lambda: _attention(scale=0.3),
    "RMSNorm": lambda: Wrapped(lambda x, norm: norm(x), norm=nn.RMSNorm(_WIDTH, eps=1e-5)),
    "GroupNorm": lambda: Wrapped(
        lambda x, norm: norm(x.transpose(1, 2)).transpose(1, 2), norm=nn.GroupNorm(2, _WIDTH)
    ),
    "Dropout": lambda: Wrapped(lambda x, drop: drop(x), drop=nn.Dropout(0.5)),
    "SiLU": lambda: Wrapped(F.silu),
    "GELU, tanh": lambda: Wrapped(lambda x: F.gelu(x, approximate="tanh")),
    "ELU": lambda: Wrapped(F.elu),
    "LeakyReLU": lambda: Wrapped(F.leaky_relu),
    "Hardswish": lambda: Wrapped(F.hardswish),
    "Softplus": lambda: Wrapped(F.softplus),
    "PReLU": lambda: Wrapped(lambda x, act: act(x), act=nn.PReLU()),
    "softmax over the first axis": lambda: Wrapped(lambda x: x.softmax(1) * x),
    "logsumexp": lambda: Wrapped(lambda x: x.logsumexp(-1, keepdim=True) * x),
    "normalize": lambda: Wrapped(lambda x: F.normalize(x, dim=-1)),
    "std": lambda: Wrapped(lambda x: x / x.std(-1, keepdim=True)),
    "max": lambda: Wrapped(lambda x: x.max(1, keepdim=True).values * x),
    "write in place": lambda: Wrapped(_write_in_place),
    "every other element": lambda: Wrapped(
        lambda x: torch.stack([x[..., 1::2], x[..., :7:2]], -1).flatten(2)
    ),
    "roll": lambda: Wrapped(lambda x: x.roll((2, -1), (1, 2)) + x.roll(3)),
    "repeat": lambda: Wrapped(lambda x: x.repeat(2, 1, 1)[1:3]),
    "index an axis": lambda: Wrapped(lambda x: x[:, [0, 2, 1, -1, 3]]),
    "index two axes": lambda: Wrapped(
        lambda x: x[torch.arange(2), torch.tensor([1, -1])][:, None] * x
    ),
    "relative positions": lambda: Wrapped(
        lambda x, table: x + table.weight[_PLACES].squeeze(-1), table=nn.Embedding(9, 1)
    ),
    "Conv1d": lambda: Wrapped(lambda x, conv: conv(x), conv=nn.Conv1d(5, 5, 3, padding=1)),
    "patches": lambda: Wrapped(
        lambda x, conv: conv(x[:, None, :4]).flatten(2).mean(2)[:, None] * x,
        conv=nn.Conv2d(1, 8, 2, 2),
    ),
    "class token": lambda: Wrapped(
        lambda x, token: torch.cat([token.weight.expand(2, 1, -1), x[:, 1:]], 1),
        token=nn.Embedding(1, _WIDTH),
    ),
    "einsum": lambda: Wrapped(lambda x: torch.einsum("bld,bmd->blm", x, x)[..., :1] * x),
    "pad and crop": lambda: Wrapped(lambda x: F.pad(x, (2, -2))),
}


def _check(model: nn.Module, x: Tensor) -> None:
    batch = (x, torch.randn(_BATCH, _LENGTH, _WIDTH))
    captured = capture(model.eval(), batch, "mse")
    check_against_autograd(
        Example(model, batch, "mse", captured, doubles(captured, batch)), tolerance=1e-9
    )


@pytest.mark.parametrize("name", MODULES)
def test_module(name: str) -> None:
    """A small module's loss and gradients are autograd's."""
    _check(MODULES[name](), torch.randn(_BATCH, _LENGTH, _WIDTH))


def test_padding_of_an_embedding_gets_no_gradient() -> None:
    """An Embedding's padding row has no gradient, and its ids are bounded."""
    model = nn.Embedding(7, _WIDTH, padding_idx=0)
    ids = torch.tensor([[1, 0, 3, 0, 2], [6, 5, 0, 1, 1]])
    _check(model, ids)


@pytest.mark.parametrize(
    ("function", "found"),
    [
        (lambda x: x[x > 0].sum() * x, "value"),
        (lambda x: x.index_put((x > 0,), x), "mask as index"),
    ],
)
def test_form_that_cannot_be_said(function: Callable[[Tensor], Tensor], found: str) -> None:
    """A known op in an unknown form is refused with the form."""
    batch = (torch.randn(_BATCH, _LENGTH, _WIDTH), torch.randn(_BATCH, _LENGTH, _WIDTH))
    with pytest.raises(CaptureError, match=found):
        capture(Wrapped(function), batch, "mse")
