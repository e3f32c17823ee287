"""Models of signals and sequences: recurrent, convolutional, state-space; and plain MLPs."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F  # noqa: N812 - the name everybody knows
from torch import Tensor, nn


class Mamba(nn.Module):
    """Blocks of a gated causal convolution and a selective scan, unrolled over time.

    Source: Gu & Dao, Mamba (2023), algorithm 2, by the recurrence as written.
    """

    def __init__(self, features: int, width: int, states: int, layers: int, classes: int) -> None:
        super().__init__()
        self.stem = nn.Linear(features, width)
        self.blocks = nn.ModuleList(_SelectiveScan(width, states) for _ in range(layers))
        self.classifier = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        """(N, L, features) -> (N, classes)."""
        x = self.stem(x)
        for block in self.blocks:
            x = x + block(x)
        return self.classifier(x.mean(1))  # type: ignore[no-any-return]


class _SelectiveScan(nn.Module):
    def __init__(self, width: int, states: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.inside, self.out = nn.Linear(width, 2 * width), nn.Linear(width, width)
        self.conv = nn.Conv1d(width, width, 4, padding=3, groups=width)
        self.select = nn.Linear(width, 2 * states + 1)
        self.step = nn.Parameter(torch.zeros(width))
        self.rates = nn.Parameter(torch.log(torch.arange(1.0, states + 1)).repeat(width, 1))
        self.skip = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        """(N, L, width) -> the same."""
        length, states = x.shape[1], self.rates.shape[1]
        x, gate = self.inside(self.norm(x)).chunk(2, -1)
        x = F.silu(self.conv(x.transpose(1, 2))[..., :length].transpose(1, 2))
        delta, into, out = self.select(x).split([1, states, states], -1)
        delta = F.softplus(delta + self.step)  # (N, L, width)
        keep = torch.exp(-delta[..., None] * self.rates.exp())  # (N, L, width, states)
        add = (delta * x)[..., None] * into[:, :, None]
        state, ys = torch.zeros_like(add[:, 0]), []
        for time in range(length):
            state = keep[:, time] * state + add[:, time]
            ys.append((state * out[:, time, None]).sum(-1))
        return self.out((torch.stack(ys, 1) + x * self.skip) * F.silu(gate))  # type: ignore[no-any-return]


class LongConvolution(nn.Module):
    """Gated causal depthwise convolutions as long as the sequence, kernels decaying in time.

    Source: Poli et al., Hyena (2023), with explicit kernels.
    """

    def __init__(self, features: int, width: int, length: int, layers: int, classes: int) -> None:
        super().__init__()
        self.length = length
        self.stem = nn.Linear(features, width)
        self.inside = nn.ModuleList(nn.Linear(width, 3 * width) for _ in range(layers))
        self.kernels = nn.ParameterList(
            nn.Parameter(torch.randn(width, 1, length) / math.sqrt(length)) for _ in range(layers)
        )
        self.out = nn.ModuleList(nn.Linear(width, width) for _ in range(layers))
        self.classifier = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        """(N, length, features) -> (N, classes)."""
        x = self.stem(x)
        decay = torch.exp(torch.arange(-self.length + 1, 1, dtype=x.dtype) / 8.0)
        for inside, kernel, out in zip(self.inside, self.kernels, self.out, strict=True):
            a, b, v = (part.transpose(1, 2) for part in inside(x).chunk(3, -1))
            padded = F.pad(b * v, (self.length - 1, 0))
            y = a * F.conv1d(padded, kernel * decay, groups=kernel.shape[0])
            x = x + out(y.transpose(1, 2))
        return self.classifier(x.mean(1))  # type: ignore[no-any-return]


class Whisper(nn.Module):
    """An audio encoder: two strided 1-D convolutions, sinusoids, pre-norm encoder layers.

    Source: Radford et al., Whisper (2022).
    """

    def __init__(
        self, mels: int, frames: int, width: int, layers: int, heads: int, classes: int
    ) -> None:
        super().__init__()
        self.first = nn.Conv1d(mels, width, 3, padding=1)
        self.second = nn.Conv1d(width, width, 3, 2, 1)
        scale = torch.exp(-math.log(10000) / (width // 2 - 1) * torch.arange(width // 2))
        angles = torch.arange(frames // 2)[:, None] * scale
        self.register_buffer("places", torch.cat([angles.sin(), angles.cos()], 1))
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(
                width, heads, 4 * width, 0.0, F.gelu, batch_first=True, norm_first=True
            )
            for _ in range(layers)
        )
        self.norm, self.classifier = nn.LayerNorm(width), nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        """(N, mels, frames) -> (N, classes)."""
        x = F.gelu(self.second(F.gelu(self.first(x)))).transpose(1, 2)
        x = x + self.get_buffer("places")
        for layer in self.layers:
            x = layer(x)
        return self.classifier(self.norm(x).mean(1))  # type: ignore[no-any-return]


class SignalNet(nn.Module):
    """A 1-D convolutional classifier: strided and dilated convolutions with BatchNorm."""

    def __init__(self, channels: int, widths: Sequence[int], classes: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        width = channels
        for place, out in enumerate(widths):
            reach = 2**place
            layers.append(nn.Conv1d(width, out, 5, 2, 2 * reach, dilation=reach))
            layers += [nn.BatchNorm1d(out), nn.LeakyReLU(0.1)]
            width = out
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        """(N, channels, L) -> (N, classes)."""
        return self.classifier(self.features(x).mean(-1))  # type: ignore[no-any-return]


class Recurrent(nn.Module):
    """A GRU or LSTM over time and a linear classifier of its last outputs.

    Args:
        kind: ``nn.GRU`` or ``nn.LSTM``.
        features: of an element of the sequence.
        hidden: width of the state.
        layers: stacked.
        classes: of the classifier.
        both: whether it runs in both directions.
    """

    def __init__(
        self,
        kind: type[nn.GRU | nn.LSTM],
        features: int,
        hidden: int,
        layers: int,
        classes: int,
        *,
        both: bool,
    ) -> None:
        super().__init__()
        self.rnn = kind(features, hidden, layers, batch_first=True, bidirectional=both)
        self.classifier = nn.Linear(hidden * (1 + both), classes)

    def forward(self, x: Tensor) -> Tensor:
        """(N, L, features) -> (N, classes)."""
        y, _ = self.rnn(x)
        return self.classifier(y[:, -1])  # type: ignore[no-any-return]


class TiedAutoencoder(nn.Module):
    """The decoder uses the encoder's weights, transposed."""

    def __init__(self, features: int, widths: Sequence[int]) -> None:
        super().__init__()
        pairs = zip((features, *widths[:-1]), widths, strict=True)
        self.encoder = nn.ModuleList(nn.Linear(a, b) for a, b in pairs)
        self.biases = nn.ParameterList(
            nn.Parameter(torch.zeros(width)) for width in (features, *widths[:-1])
        )

    def forward(self, x: Tensor) -> Tensor:
        """(N, features) -> the same."""
        for layer in self.encoder:
            x = torch.sigmoid(layer(x))
        for place in reversed(range(len(self.biases))):
            x = F.linear(x, self.encoder[place].weight.T, self.biases[place])  # type: ignore[arg-type]
            x = torch.sigmoid(x) if place else x
        return x


class DropoutMlp(nn.Sequential):
    """Linear layers with BatchNorm over the batch and dropout, to be trained in train mode."""

    def __init__(self, features: int, widths: Sequence[int], classes: int, rate: float) -> None:
        layers: list[nn.Module] = []
        width = features
        for out in widths:
            layers += [nn.Linear(width, out), nn.BatchNorm1d(out), nn.ReLU(), nn.Dropout(rate)]
            width = out
        super().__init__(*layers, nn.Linear(width, classes))
