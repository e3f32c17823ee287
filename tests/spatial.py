"""Small modules of every spatial op, normalization and random op, and their shapes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812 - the name everybody knows
from torch import Tensor, nn

IMAGE, SIGNAL, ROW = (2, 3, 7, 6), (2, 3, 11), (6, 3)


class Apply(nn.Module):
    """A function as a module."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        """Whatever the function makes of it."""
        return self.function(x)


@dataclass(frozen=True, slots=True)
class Row:
    """A case: what follows a layer of four channels, and the shape of the input."""

    make: Callable[[], nn.Module]
    shape: tuple[int, ...]

    def model(self) -> nn.Module:
        """The layer, then the module, in train mode."""
        first = {2: nn.Linear(3, 4), 3: nn.Conv1d(3, 4, 1), 4: nn.Conv2d(3, 4, 1)}
        return nn.Sequential(first[len(self.shape)], self.make())


def _image(make: Callable[[], nn.Module]) -> Row:
    return Row(make, IMAGE)


def _signal(make: Callable[[], nn.Module]) -> Row:
    return Row(make, SIGNAL)


def _on_image(function: Callable[[Tensor], Tensor]) -> Row:
    return Row(lambda: Apply(function), IMAGE)


CONVOLUTIONS = {
    "stride": _signal(lambda: nn.Conv1d(4, 6, 3, stride=2, padding=1)),
    "dilation, groups": _signal(lambda: nn.Conv1d(4, 6, 3, dilation=2, groups=2, bias=False)),
    "multiplier 1d": _signal(lambda: nn.Conv1d(4, 8, 3, padding=1, groups=4)),
    "asymmetric": _image(lambda: nn.Conv2d(4, 6, (3, 5), stride=(2, 1), padding=(0, 2))),
    "dilation": _image(lambda: nn.Conv2d(4, 6, 3, dilation=(2, 1), padding=2, groups=2)),
    "depthwise": _image(lambda: nn.Conv2d(4, 4, 3, stride=2, padding=1, groups=4)),
    "multiplier": _image(lambda: nn.Conv2d(4, 8, 3, padding=1, groups=4, bias=False)),
    "same": _image(lambda: nn.Conv2d(4, 6, (2, 3), padding="same", dilation=(3, 1))),
    "reflect": _image(lambda: nn.Conv2d(4, 4, 3, padding=(1, 2), padding_mode="reflect")),
    "replicate": _image(lambda: nn.Conv2d(4, 4, 3, padding=(1, 2), padding_mode="replicate")),
    "circular": _image(lambda: nn.Conv2d(4, 4, 3, padding=(1, 2), padding_mode="circular")),
    "replicate 1d": _signal(lambda: nn.Conv1d(4, 4, 3, padding=2, padding_mode="replicate")),
    "transposed 1d": _signal(
        lambda: nn.ConvTranspose1d(4, 6, 3, stride=2, padding=1, output_padding=1)
    ),
    "transposed": _image(
        lambda: nn.ConvTranspose2d(4, 6, 3, stride=2, padding=1, output_padding=1)
    ),
    "transposed, groups": _image(
        lambda: nn.ConvTranspose2d(4, 6, 3, stride=(2, 1), groups=2, dilation=(1, 2), bias=False)
    ),
    "transposed, depthwise": _image(
        lambda: nn.ConvTranspose2d(4, 4, 4, stride=2, padding=1, groups=4)
    ),
}
POOLINGS = {
    "max 1d": _signal(lambda: nn.MaxPool1d(3, 2, padding=1, dilation=2, ceil_mode=True)),
    "max": _image(lambda: nn.MaxPool2d(2)),
    "max, padding": _image(lambda: nn.MaxPool2d(3, 2, padding=1)),
    "max, ceil": _image(lambda: nn.MaxPool2d((3, 2), 2, 1, dilation=(1, 2), ceil_mode=True)),
    "max, large": _image(lambda: nn.MaxPool2d(5, 1, padding=2)),
    "max, indices": _on_image(
        lambda x: torch.mul(*F.max_pool2d(x, 3, 2, padding=1, return_indices=True))
    ),
    "average 1d": _signal(lambda: nn.AvgPool1d(3, 2, padding=1)),
    "average": _image(lambda: nn.AvgPool2d(3, 2, padding=1, count_include_pad=False)),
    "average, ceil": _image(lambda: nn.AvgPool2d(3, 2, padding=1, ceil_mode=True)),
    "average, divisor": _image(lambda: nn.AvgPool2d((2, 3), divisor_override=5)),
    "adaptive": _image(lambda: nn.AdaptiveAvgPool2d((3, 4))),
    "adaptive, one": _image(lambda: nn.AdaptiveAvgPool2d(1)),
    "adaptive, larger": _image(lambda: nn.AdaptiveAvgPool2d((9, 8))),
    "adaptive 1d": _signal(lambda: nn.AdaptiveAvgPool1d(4)),
    "adaptive max": _image(lambda: nn.AdaptiveMaxPool2d((3, 4))),
    "adaptive max, one": _image(lambda: nn.AdaptiveMaxPool2d(1)),
    "adaptive max 1d": _signal(lambda: nn.AdaptiveMaxPool1d(4)),
    "global max": _on_image(lambda x: x.amax((2, 3))),
    "power": _image(lambda: nn.LPPool2d(2, 2)),
}
NORMALIZATIONS = {
    "batch": _image(lambda: nn.BatchNorm2d(4)),
    "batch, rows": Row(lambda: nn.BatchNorm1d(4, eps=1e-3), ROW),
    "batch 1d": _signal(lambda: nn.BatchNorm1d(4, momentum=0.5)),
    "batch, averages": _image(lambda: nn.BatchNorm2d(4, momentum=None)),
    "batch, own": _image(lambda: nn.BatchNorm2d(4, track_running_stats=False)),
    "batch, plain": _image(lambda: nn.BatchNorm2d(4, affine=False)),
    "batch, frozen": _image(lambda: nn.BatchNorm2d(4).eval()),
    "group": _image(lambda: nn.GroupNorm(2, 4)),
    "group, plain": _signal(lambda: nn.GroupNorm(2, 4, affine=False)),
    "instance": _image(lambda: nn.InstanceNorm2d(4)),
    "instance 1d": _signal(lambda: nn.InstanceNorm1d(4, affine=True)),
    "instance, running": _image(
        lambda: nn.InstanceNorm2d(4, affine=True, track_running_stats=True)
    ),
    "layer": Row(lambda: nn.LayerNorm(4, bias=False), ROW),
    "layer, image": _image(lambda: nn.LayerNorm((4, 7, 6))),
    "layer, plain": _image(lambda: nn.LayerNorm((7, 6), elementwise_affine=False)),
    "rms": Row(lambda: nn.RMSNorm(4), ROW),
    "rms, plane": _image(lambda: nn.RMSNorm((7, 6), eps=1e-3, elementwise_affine=False)),
    "local response": _image(lambda: nn.LocalResponseNorm(3)),
}
RANDOM = {
    "dropout": Row(lambda: nn.Dropout(0.3), ROW),
    "dropout, all": Row(lambda: nn.Dropout(1.0), ROW),
    "dropout 1d": _signal(lambda: nn.Dropout1d(0.5)),
    "dropout 2d": _image(lambda: nn.Dropout2d(0.5)),
    "alpha": _image(lambda: nn.AlphaDropout(0.2)),
    "two": _image(lambda: nn.Sequential(nn.Dropout(0.5), nn.Tanh(), nn.Dropout(0.1))),
    "attention": Row(
        lambda: Apply(lambda x: F.scaled_dot_product_attention(x, x, x, dropout_p=0.4)), SIGNAL
    ),
}
RESIZING = {
    "nearest": _image(lambda: nn.Upsample(scale_factor=2)),
    "nearest, size": _on_image(lambda x: F.interpolate(x, size=(9, 4))),
    "nearest, exact": _on_image(lambda x: F.interpolate(x, size=(9, 4), mode="nearest-exact")),
    "bilinear": _image(lambda: nn.Upsample(scale_factor=2, mode="bilinear")),
    "bilinear, corners": _image(lambda: nn.UpsamplingBilinear2d(size=(9, 5))),
    "bilinear, down": _on_image(
        lambda x: F.interpolate(x, scale_factor=(0.6, 1.5), mode="bilinear")
    ),
    "linear": _signal(lambda: nn.Upsample(scale_factor=2, mode="linear")),
    "bicubic": _on_image(lambda x: F.interpolate(x, scale_factor=2, mode="bicubic")),
    "area": _on_image(lambda x: F.interpolate(x, size=(3, 4), mode="area")),
    "shuffle": _image(lambda: nn.PixelShuffle(2)),
    "unshuffle": Row(lambda: nn.PixelUnshuffle(2), (2, 3, 4, 6)),
    "channels": _image(lambda: nn.ChannelShuffle(2)),
    "unfold": _image(lambda: nn.Unfold(3, padding=1, stride=2)),
    "fold": Row(lambda: nn.Fold((4, 5), (2, 1)), (2, 3, 15)),
    "reflection": _image(lambda: nn.ReflectionPad2d((1, 2, 0, 1))),
    "replication": _image(lambda: nn.ReplicationPad2d((1, 2, 0, 1))),
    "circular": _on_image(lambda x: F.pad(x, (1, 2, 0, 1), mode="circular")),
    "crop": _on_image(lambda x: F.pad(x, (1, -1, -2, 1), value=2.0)),
}
FAMILIES = {
    "convolution": CONVOLUTIONS,
    "pooling": POOLINGS,
    "normalization": NORMALIZATIONS,
    "random": RANDOM,
    "resizing": RESIZING,
}


class Heads(nn.Module):
    """Models side by side on one input: captured and compiled at once."""

    def __init__(self, rows: Mapping[str, Row]) -> None:
        super().__init__()
        for name, row in rows.items():
            self.add_module(name, row.model())

    def forward(self, x: Tensor) -> Tensor:
        """All outputs, flat, one behind the other."""
        return torch.cat([head(x).flatten() for head in self.children()])


def groups(most: int) -> dict[str, dict[str, Row]]:
    """The cases of each family by the shape of their input, at most so many at once."""
    found: dict[str, dict[str, Row]] = {}
    for family, rows in FAMILIES.items():
        for shape in dict.fromkeys(row.shape for row in rows.values()):
            alike = [(name, row) for name, row in rows.items() if row.shape == shape]
            for start in range(0, len(alike), most):
                label = "x".join(map(str, shape))
                found[f"{family} {label} {start // most}"] = dict(alike[start : start + most])
    return found
