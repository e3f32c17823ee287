"""MobileNetV2 (Sandler et al. 2018) in plain PyTorch, with torchvision's names of parameters."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pockengine.errors import InputError
from pockengine.tasks import sources
from pockengine.tasks.payload import fetch
from pockengine.tasks.task import check_positive

IMAGENET_CLASSES = 1000

# Table 2 of the paper: expansion, output channels, repeats, stride of the first.
_BLOCKS = (
    *((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2)),
    *((6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)),
)


class MobileNetV2(nn.Module):
    """Images float32 ``(N, 3, H, W)`` to logits ``(N, classes)``.

    ``features.0`` is the stem, ``features.1`` to ``features.17`` are the inverted residual blocks,
    ``features.18`` is the last 1x1 convolution, ``classifier.1`` the head.
    """

    def __init__(self, width: float, classes: int) -> None:
        super().__init__()
        channels = _whole_eights(32 * width)
        layers: list[nn.Module] = [_convolution(3, channels, kernel=3, stride=2)]
        for expansion, base, repeats, stride in _BLOCKS:
            outputs = _whole_eights(base * width)
            for repeat in range(repeats):
                step = stride if repeat == 0 else 1
                layers.append(InvertedResidual(channels, outputs, step, expansion))
                channels = outputs
        last = _whole_eights(1280 * max(1.0, width))
        self.features = nn.Sequential(*layers, _convolution(channels, last, kernel=1))
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(last, classes))
        self.apply(_initialize)

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits."""
        logits: Tensor = self.classifier(self.features(images).mean(dim=(2, 3)))
        return logits


class InvertedResidual(nn.Module):
    """Expand by 1x1, filter by depthwise 3x3, project by 1x1; add the input where shapes allow."""

    def __init__(self, inputs: int, outputs: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = inputs * expansion
        expand = [_convolution(inputs, hidden, kernel=1)] if expansion != 1 else []
        self.conv = nn.Sequential(
            *expand,
            _convolution(hidden, hidden, kernel=3, stride=stride, groups=hidden),
            nn.Conv2d(hidden, outputs, 1, bias=False),
            nn.BatchNorm2d(outputs),
        )
        self.is_residual = stride == 1 and inputs == outputs

    def forward(self, images: Tensor) -> Tensor:
        """Return the block's output, ``(N, outputs, H / stride, W / stride)``."""
        filtered: Tensor = self.conv(images)
        return images + filtered if self.is_residual else filtered


def mobilenet_v2(
    width: float = 1.0, classes: int = IMAGENET_CLASSES, *, pretrained: bool = False
) -> MobileNetV2:
    """Return MobileNetV2 in training mode.

    Args:
        width: multiplier of all channels.
        classes: outputs; other than 1000, the head is fresh also in a pretrained model.
        pretrained: load torchvision's ImageNet weights (width 1.0 only); preprocess with
            ``IMAGENET``.

    Raises:
        InputError: no width or no classes, or pretrained weights of another width.
        PayloadError: the weights cannot be had.
    """
    check_positive("mobilenet_v2(classes)", classes)
    if not isinstance(width, (int, float)) or not 0 < width < float("inf"):
        raise InputError(
            where="mobilenet_v2(width)",
            found=repr(width),
            needed="a number above 0",
            remedy="Give a multiplier of the channels such as 0.35",
        )
    model = MobileNetV2(width, classes)
    if not pretrained:
        return model
    if width != 1.0:
        raise InputError(
            where="mobilenet_v2(pretrained=True)",
            found=f"width {width}",
            needed="pretrained weights exist for width 1.0",
            remedy="Use width=1.0 or pretrained=False",
        )
    weights = torch.load(fetch(sources.MOBILENET_V2), map_location="cpu", weights_only=True)
    if classes != IMAGENET_CLASSES:
        weights |= {k: v for k, v in model.state_dict().items() if k.startswith("classifier.")}
    model.load_state_dict(weights)
    return model


def _convolution(
    inputs: int, outputs: int, *, kernel: int, stride: int = 1, groups: int = 1
) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU6(),
    )


def _whole_eights(channels: float) -> int:
    """Round to a multiple of 8, never more than a tenth below."""
    rounded = max(8, int(channels + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * channels else rounded


def _initialize(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out")
    elif isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, std=0.01)
        nn.init.zeros_(module.bias)
