"""A zoo of architectures: the same definitions tiny, for tests, and at sizes that people train."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - the name everybody knows
from torch import Tensor, nn

from pockengine.frontend.losses import Loss
from tests.zoo.sequence import (
    DropoutMlp,
    LongConvolution,
    Mamba,
    Recurrent,
    SignalNet,
    TiedAutoencoder,
    Whisper,
)
from tests.zoo.text import T5, Bert, Llama
from tests.zoo.vision import (
    ConvNext,
    DenseNet,
    EfficientNetLite,
    ResNet,
    SqueezeNet,
    UNet,
    VisionTransformer,
)

Batch = tuple[Any, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """A model and its batches at one size."""

    model: Callable[[], nn.Module]
    batch: Callable[[], Batch]


@dataclass(frozen=True, slots=True, kw_only=True)
class Exhibit:
    """An architecture.

    Args:
        tiny: as tests run it.
        natural: as people train it.
        loss: by name, or as a function.
        train: whether it is trained in train mode; else in eval mode.
        schemes: names of those that it is tried with.
    """

    tiny: Size
    natural: Size
    loss: Loss = "cross_entropy"
    train: bool = False
    schemes: tuple[str, ...] = ("full", "bias_only", "mixed")

    def build(self, size: Size) -> nn.Module:
        """A model in its mode; running statistics and biases not trivial, as of a trained one."""
        model = size.model()
        for parameter in model.parameters():
            if not parameter.any():
                nn.init.uniform_(parameter, -0.1, 0.1)
        for module in model.modules():
            if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
                assert module.running_mean is not None
                assert module.running_var is not None
                module.running_mean.uniform_(-0.1, 0.1)
                module.running_var.uniform_(0.8, 1.2)
        return model.train(self.train)


def token_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Cross entropy of (N, L, vocabulary) by (N, L), places of -100 not counted."""
    return F.cross_entropy(logits.flatten(0, 1), targets.flatten())


def _labelled(*shape: int, classes: int) -> Batch:
    return torch.randn(shape), torch.randint(0, classes, shape[:1])


def _pixels(*shape: int, classes: int) -> Batch:
    return torch.randn(shape), torch.randint(0, classes, (shape[0], *shape[2:]))


def _reconstructed(*shape: int) -> Batch:
    x = torch.rand(shape)
    return x, x


def _masked_text(
    count: int, length: int, vocabulary: int, classes: int, *, segments: bool
) -> Batch:
    lengths = torch.randint(length // 2, length + 1, (count, 1))
    mask = (torch.arange(length) < lengths).long()
    ids = torch.randint(0, vocabulary, (count, length))
    extra = ((torch.arange(length) >= lengths // 2).long(),) if segments else ()
    return (ids, mask, *extra), torch.randint(0, classes, (count,))


def _translation(count: int, source: int, target: int, vocabulary: int) -> Batch:
    wanted = torch.randint(0, vocabulary, (count, target))
    wanted[0, -2:] = -100
    inputs = tuple(torch.randint(0, vocabulary, (count, n)) for n in (source, target))
    return inputs, wanted


def _next_token(count: int, length: int, vocabulary: int) -> Batch:
    ids = torch.randint(0, vocabulary, (count, length + 1))
    return ids[:, :-1], ids[:, 1:]


def _recurrent(kind: type[nn.GRU | nn.LSTM], *, both: bool) -> Exhibit:
    return Exhibit(
        tiny=Size(
            model=partial(Recurrent, kind, 5, 8, 2, 3, both=both),
            batch=partial(_labelled, 4, 6, 5, classes=3),
        ),
        natural=Size(
            model=partial(Recurrent, kind, 40, 128, 2, 12, both=both),
            batch=partial(_labelled, 16, 64, 40, classes=12),
        ),
    )


_LITE = ((1, 3, 1, 8, 1), (4, 3, 2, 12, 2), (4, 5, 2, 16, 1))
_LITE0 = (
    *((1, 3, 1, 16, 1), (6, 3, 2, 24, 2), (6, 5, 2, 40, 2), (6, 3, 2, 80, 3)),
    *((6, 5, 1, 112, 3), (6, 5, 2, 192, 4), (6, 3, 1, 320, 1)),
)
_FIRES = (((4, 8), (4, 8)), ((6, 12),))
_FIRES11 = (
    *(((16, 64), (16, 64)), ((32, 128), (32, 128))),
    ((48, 192), (48, 192), (64, 256), (64, 256)),
)

ZOO: Mapping[str, Exhibit] = {
    "efficientnet_lite": Exhibit(
        tiny=Size(
            model=partial(EfficientNetLite, 8, _LITE, 24, 5),
            batch=partial(_labelled, 2, 3, 24, 24, classes=5),
        ),
        natural=Size(
            model=partial(EfficientNetLite, 32, _LITE0, 1280, 10),
            batch=partial(_labelled, 4, 3, 160, 160, classes=10),
        ),
    ),
    "squeezenet": Exhibit(
        tiny=Size(
            model=partial(SqueezeNet, 8, _FIRES, 5),
            batch=partial(_labelled, 2, 3, 32, 32, classes=5),
        ),
        natural=Size(
            model=partial(SqueezeNet, 64, _FIRES11, 10),
            batch=partial(_labelled, 4, 3, 160, 160, classes=10),
        ),
    ),
    "resnet18": Exhibit(
        tiny=Size(
            model=partial(ResNet, 8, (8, 12), (1, 2), 1, 5),
            batch=partial(_labelled, 2, 3, 32, 32, classes=5),
        ),
        natural=Size(
            model=partial(ResNet, 64, (64, 128, 256, 512), (2, 2, 2, 2), 1, 10),
            batch=partial(_labelled, 4, 3, 128, 128, classes=10),
        ),
    ),
    "resnet50": Exhibit(
        tiny=Size(
            model=partial(ResNet, 8, (16, 24), (2, 1), 4, 5),
            batch=partial(_labelled, 2, 3, 32, 32, classes=5),
        ),
        natural=Size(
            model=partial(ResNet, 64, (256, 512, 1024, 2048), (3, 4, 6, 3), 4, 10),
            batch=partial(_labelled, 2, 3, 96, 96, classes=10),
        ),
    ),
    "densenet": Exhibit(
        tiny=Size(
            model=partial(DenseNet, 8, 4, (2, 2), 5),
            batch=partial(_labelled, 2, 3, 16, 16, classes=5),
        ),
        natural=Size(
            model=partial(DenseNet, 32, 16, (6, 12, 8), 10),
            batch=partial(_labelled, 4, 3, 64, 64, classes=10),
        ),
    ),
    "convnext": Exhibit(
        tiny=Size(
            model=partial(ConvNext, (8, 12), (1, 2), 5),
            batch=partial(_labelled, 2, 3, 32, 32, classes=5),
        ),
        natural=Size(
            model=partial(ConvNext, (40, 80, 160, 320), (2, 2, 6, 2), 10),
            batch=partial(_labelled, 4, 3, 128, 128, classes=10),
        ),
    ),
    "unet": Exhibit(
        tiny=Size(
            model=partial(UNet, (6, 8, 12), 3), batch=partial(_pixels, 2, 3, 16, 12, classes=3)
        ),
        natural=Size(
            model=partial(UNet, (16, 32, 64, 128), 4),
            batch=partial(_pixels, 2, 3, 96, 96, classes=4),
        ),
    ),
    "vit": Exhibit(
        tiny=Size(
            model=partial(VisionTransformer, 16, 4, 24, 2, 3, 5),
            batch=partial(_labelled, 2, 3, 16, 16, classes=5),
        ),
        natural=Size(
            model=partial(VisionTransformer, 96, 16, 192, 6, 3, 10),
            batch=partial(_labelled, 4, 3, 96, 96, classes=10),
        ),
    ),
    "bert": Exhibit(
        tiny=Size(
            model=partial(Bert, 31, 12, 16, 2, 2, 3, segments=True),
            batch=partial(_masked_text, 4, 7, 31, 3, segments=True),
        ),
        natural=Size(
            model=partial(Bert, 8000, 128, 256, 4, 4, 4, segments=True),
            batch=partial(_masked_text, 8, 64, 8000, 4, segments=True),
        ),
    ),
    "distilbert": Exhibit(
        tiny=Size(
            model=partial(Bert, 31, 12, 16, 2, 4, 3, segments=False),
            batch=partial(_masked_text, 4, 7, 31, 3, segments=False),
        ),
        natural=Size(
            model=partial(Bert, 8000, 128, 384, 3, 6, 4, segments=False),
            batch=partial(_masked_text, 4, 48, 8000, 4, segments=False),
        ),
    ),
    "t5": Exhibit(
        tiny=Size(model=partial(T5, 31, 16, 2, 2, 8), batch=partial(_translation, 2, 7, 5, 31)),
        natural=Size(
            model=partial(T5, 4000, 256, 3, 4, 32), batch=partial(_translation, 4, 48, 32, 4000)
        ),
        loss=token_loss,
    ),
    "llama": Exhibit(
        tiny=Size(
            model=partial(Llama, 31, 8, 24, 2, 4, 2, 40), batch=partial(_next_token, 2, 8, 31)
        ),
        natural=Size(
            model=partial(Llama, 4000, 96, 288, 4, 6, 2, 768),
            batch=partial(_next_token, 2, 96, 4000),
        ),
        loss=token_loss,
    ),
    "mamba": Exhibit(
        tiny=Size(
            model=partial(Mamba, 5, 8, 4, 2, 3), batch=partial(_labelled, 2, 6, 5, classes=3)
        ),
        natural=Size(
            model=partial(Mamba, 16, 64, 8, 2, 10), batch=partial(_labelled, 8, 64, 16, classes=10)
        ),
    ),
    "long_convolution": Exhibit(
        tiny=Size(
            model=partial(LongConvolution, 5, 8, 9, 2, 3),
            batch=partial(_labelled, 2, 9, 5, classes=3),
        ),
        natural=Size(
            model=partial(LongConvolution, 16, 64, 128, 2, 10),
            batch=partial(_labelled, 8, 128, 16, classes=10),
        ),
    ),
    "whisper": Exhibit(
        tiny=Size(
            model=partial(Whisper, 6, 14, 16, 2, 2, 3),
            batch=partial(_labelled, 2, 6, 14, classes=3),
        ),
        natural=Size(
            model=partial(Whisper, 80, 200, 192, 4, 4, 10),
            batch=partial(_labelled, 2, 80, 200, classes=10),
        ),
    ),
    "signal_net": Exhibit(
        tiny=Size(
            model=partial(SignalNet, 3, (8, 12), 4), batch=partial(_labelled, 4, 3, 33, classes=4)
        ),
        natural=Size(
            model=partial(SignalNet, 6, (32, 64, 128), 8),
            batch=partial(_labelled, 16, 6, 256, classes=8),
        ),
    ),
    "gru": _recurrent(nn.GRU, both=False),
    "gru_both": _recurrent(nn.GRU, both=True),
    "lstm": _recurrent(nn.LSTM, both=False),
    "lstm_both": _recurrent(nn.LSTM, both=True),
    "autoencoder": Exhibit(
        tiny=Size(model=partial(TiedAutoencoder, 13, (9, 4)), batch=partial(_reconstructed, 4, 13)),
        natural=Size(
            model=partial(TiedAutoencoder, 784, (256, 64)), batch=partial(_reconstructed, 32, 784)
        ),
        loss="mse",
    ),
    "dropout_mlp": Exhibit(
        tiny=Size(
            model=partial(DropoutMlp, 13, (16, 8), 3, 0.0),
            batch=partial(_labelled, 4, 13, classes=3),
        ),
        natural=Size(
            model=partial(DropoutMlp, 128, (256, 128), 10, 0.0),
            batch=partial(_labelled, 64, 128, classes=10),
        ),
        train=True,
    ),
}
