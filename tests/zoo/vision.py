"""Image models: convolutional classifiers, a segmenter, a vision transformer."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F  # noqa: N812 - the name everybody knows
from torch import Tensor, nn


def _normed(
    width: int,
    out: int,
    kernel: int,
    stride: int = 1,
    groups: int = 1,
    act: nn.Module | None = None,
) -> nn.Sequential:
    """Convolution that keeps the extent (but for its stride), BatchNorm, activation."""
    conv = nn.Conv2d(width, out, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(out), *([act] if act is not None else []))


def _pooled(x: Tensor) -> Tensor:
    """(N, C, H, W) -> (N, C), the mean over places."""
    return F.adaptive_avg_pool2d(x, 1).flatten(1)


class _InvertedResidual(nn.Module):
    def __init__(self, width: int, out: int, expand: int, kernel: int, stride: int) -> None:
        super().__init__()
        inner = width * expand
        self.residual = stride == 1 and width == out
        self.layers = nn.Sequential(
            *([_normed(width, inner, 1, act=nn.ReLU6())] if expand > 1 else []),
            _normed(inner, inner, kernel, stride, inner, nn.ReLU6()),
            _normed(inner, out, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(N, width, H, W) -> (N, out, H / stride, W / stride)."""
        y: Tensor = self.layers(x)
        return x + y if self.residual else y


class EfficientNetLite(nn.Module):
    """Inverted residuals with kernels of 3 and 5, ReLU6, no squeeze-and-excitation.

    Source: Tan & Le, EfficientNet (2019), as simplified for edge devices.
    """

    def __init__(self, stem: int, stages: Sequence[Sequence[int]], head: int, classes: int) -> None:
        super().__init__()
        layers: list[nn.Module] = [_normed(3, stem, 3, 2, act=nn.ReLU6())]
        width = stem
        for expand, kernel, stride, out, count in stages:
            for place in range(count):
                layers.append(
                    _InvertedResidual(width, out, expand, kernel, stride if place == 0 else 1)
                )
                width = out
        self.features = nn.Sequential(*layers, _normed(width, head, 1, act=nn.ReLU6()))
        self.classifier = nn.Linear(head, classes)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) -> (N, classes)."""
        logits: Tensor = self.classifier(_pooled(self.features(x)))
        return logits


class _Fire(nn.Module):
    def __init__(self, width: int, squeeze: int, expand: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(width, squeeze, 1)
        self.narrow = nn.Conv2d(squeeze, expand, 1)
        self.wide = nn.Conv2d(squeeze, expand, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(N, width, H, W) -> (N, 2 expand, H, W)."""
        x = F.relu(self.squeeze(x))
        return torch.cat([F.relu(self.narrow(x)), F.relu(self.wide(x))], 1)


class SqueezeNet(nn.Module):
    """Fire modules between overlapping max pools; the classifier is a convolution.

    Source: Iandola et al., SqueezeNet (2016), version 1.1.
    """

    def __init__(
        self, stem: int, stages: Sequence[Sequence[tuple[int, int]]], classes: int
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(3, stem, 3, 2), nn.ReLU()]
        width = stem
        for stage in stages:
            layers.append(nn.MaxPool2d(3, 2, ceil_mode=True))
            for squeeze, expand in stage:
                layers.append(_Fire(width, squeeze, expand))
                width = 2 * expand
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Conv2d(width, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) -> (N, classes)."""
        return _pooled(F.relu(self.classifier(self.features(x))))


class _ResidualBlock(nn.Module):
    def __init__(self, width: int, out: int, stride: int, bottleneck: int) -> None:
        super().__init__()
        inner = out // bottleneck
        self.layers = (
            nn.Sequential(
                _normed(width, inner, 1, act=nn.ReLU()),
                _normed(inner, inner, 3, stride, act=nn.ReLU()),
                _normed(inner, out, 1),
            )
            if bottleneck > 1
            else nn.Sequential(_normed(width, out, 3, stride, act=nn.ReLU()), _normed(out, out, 3))
        )
        same = stride == 1 and width == out
        self.shortcut = nn.Identity() if same else _normed(width, out, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        """(N, width, H, W) -> (N, out, H / stride, W / stride)."""
        return F.relu(self.layers(x) + self.shortcut(x))


class ResNet(nn.Module):
    """Basic (``bottleneck=1``) or bottleneck (``4``) residual blocks.

    Source: He et al., Deep residual learning (2015); the stride is in the 3x3 convolution.
    """

    def __init__(
        self, stem: int, widths: Sequence[int], depths: Sequence[int], bottleneck: int, classes: int
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = [_normed(3, stem, 7, 2, act=nn.ReLU()), nn.MaxPool2d(3, 2, 1)]
        width = stem
        for stage, (out, depth) in enumerate(zip(widths, depths, strict=True)):
            for place in range(depth):
                stride = 2 if stage and not place else 1
                layers.append(_ResidualBlock(width, out, stride, bottleneck))
                width = out
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) -> (N, classes)."""
        logits: Tensor = self.classifier(_pooled(self.features(x)))
        return logits


class _DenseLayer(nn.Module):
    def __init__(self, width: int, growth: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            *(nn.BatchNorm2d(width), nn.ReLU(), nn.Conv2d(width, 4 * growth, 1, bias=False)),
            *(nn.BatchNorm2d(4 * growth), nn.ReLU()),
            nn.Conv2d(4 * growth, growth, 3, padding=1, bias=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(N, width, H, W) -> (N, width + growth, H, W)."""
        return torch.cat([x, self.layers(x)], 1)


class DenseNet(nn.Module):
    """Every layer of a block reads all earlier ones; BatchNorm ahead of the convolution.

    Source: Huang et al., Densely connected convolutional networks (2016).
    """

    def __init__(self, stem: int, growth: int, depths: Sequence[int], classes: int) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(3, stem, 3, 2, 1, bias=False)]
        width = stem
        for block, depth in enumerate(depths):
            if block:
                layers += [nn.BatchNorm2d(width), nn.ReLU()]
                layers += [nn.Conv2d(width, width // 2, 1, bias=False), nn.AvgPool2d(2)]
                width //= 2
            for _ in range(depth):
                layers.append(_DenseLayer(width, growth))
                width += growth
        self.features = nn.Sequential(*layers, nn.BatchNorm2d(width), nn.ReLU())
        self.classifier = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) -> (N, classes)."""
        logits: Tensor = self.classifier(_pooled(self.features(x)))
        return logits


class _ChannelNorm(nn.LayerNorm):
    def forward(self, x: Tensor) -> Tensor:
        """LayerNorm over the channels of (N, C, H, W)."""
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class _ConvNextBlock(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.spatial = nn.Conv2d(width, width, 7, padding=3, groups=width)
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.scale = nn.Parameter(torch.full((width,), 0.1))

    def forward(self, x: Tensor) -> Tensor:
        """(N, width, H, W) -> the same."""
        y = self.norm(self.spatial(x).permute(0, 2, 3, 1))
        y = self.scale * self.down(F.gelu(self.up(y)))
        return x + y.permute(0, 3, 1, 2)


class ConvNext(nn.Module):
    """Depthwise 7x7, LayerNorm over channels, a scaled MLP. Source: Liu et al., ConvNeXt (2022)."""

    def __init__(self, widths: Sequence[int], depths: Sequence[int], classes: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        width = 3
        for stage, (out, depth) in enumerate(zip(widths, depths, strict=True)):
            size = 2 if stage else 4
            shrink: list[nn.Module] = [nn.Conv2d(width, out, size, size)]
            norm = _ChannelNorm(width if stage else out, eps=1e-6)
            layers += [norm, *shrink] if stage else [*shrink, norm]
            layers += [_ConvNextBlock(out) for _ in range(depth)]
            width = out
        self.features = nn.Sequential(*layers)
        self.norm, self.classifier = nn.LayerNorm(width, eps=1e-6), nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) -> (N, classes)."""
        logits: Tensor = self.classifier(self.norm(_pooled(self.features(x))))
        return logits


class UNet(nn.Module):
    """An encoder and a decoder with skips: max pools down, transposed convolutions up.

    Source: Ronneberger et al., U-Net (2015), with padded convolutions.
    """

    def __init__(self, widths: Sequence[int], classes: int) -> None:
        super().__init__()
        pairs = list(zip((3, *widths[:-1]), widths, strict=True))
        self.down = nn.ModuleList(self._double(a, b) for a, b in pairs)
        back = list(reversed(pairs[1:]))
        self.grow = nn.ModuleList(nn.ConvTranspose2d(b, a, 2, 2) for a, b in back)
        self.up = nn.ModuleList(self._double(2 * a, a) for a, _ in back)
        self.head = nn.Conv2d(widths[0], classes, 1)

    @staticmethod
    def _double(width: int, out: int) -> nn.Sequential:
        return nn.Sequential(
            _normed(width, out, 3, act=nn.ReLU()), _normed(out, out, 3, act=nn.ReLU())
        )

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) -> (N, classes, H, W)."""
        skips: list[Tensor] = []
        for place, block in enumerate(self.down):
            x = block(F.max_pool2d(x, 2) if place else x)
            skips.append(x)
        skips.pop()
        for grow, block in zip(self.grow, self.up, strict=True):
            x = block(torch.cat([skips.pop(), grow(x)], 1))
        logits: Tensor = self.head(x)
        return logits


class VisionTransformer(nn.Module):
    """Patches and a class token through pre-norm encoder layers with fused projections.

    Source: Dosovitskiy et al., An image is worth 16x16 words (2020).
    """

    def __init__(
        self, pixels: int, patch: int, width: int, layers: int, heads: int, classes: int
    ) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, width, patch, patch)
        self.token = nn.Parameter(torch.randn(1, 1, width) * 0.02)
        self.places = nn.Parameter(torch.randn(1, (pixels // patch) ** 2 + 1, width) * 0.02)
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(
                width, heads, 4 * width, 0.0, F.gelu, batch_first=True, norm_first=True
            )
            for _ in range(layers)
        )
        self.norm, self.classifier = nn.LayerNorm(width), nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, pixels, pixels) -> (N, classes)."""
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(len(x), -1, -1), x], 1) + self.places
        for layer in self.layers:
            x = layer(x)
        logits: Tensor = self.classifier(self.norm(x[:, 0]))
        return logits
