"""The long matrix: three models by four schemes by two optimizers, and the zoo, full-sized."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from itertools import product

import torch
from torch import Tensor, nn

from pockengine.tasks import (
    bert_vocabulary,
    encode_texts,
    load_task,
    mini_lm,
    mobilenet_v2,
    prepare_images,
)
from tests.eager import Batches
from tests.models import SCHEMES
from tests.spine import ADAMW, SGD_MOMENTUM, Case
from tests.zoo import ZOO
from tests.zoo.cases import zoo_case

STEPS = 20
ZOO_STEPS = 5
BATCH = 8
IMAGE_SIZE = 128
TOKENS = 64
RATES: Mapping[tuple[str, str], float] = {
    ("mlp", "sgd"): 1e-2,
    ("mlp", "adamw"): 1e-3,
    ("mobilenet_v2", "sgd"): 1e-5,
    ("mobilenet_v2", "adamw"): 3e-7,
    ("mini_lm", "sgd"): 3e-3,
    ("mini_lm", "adamw"): 2e-5,
}
"""Learning rates, fixed over the run.

Those of MobileNetV2 are a hundredth of the usual ones and less. A gradient of PyTorch in float32 is
off by about 6e-4 from float64 there: elements near a bound of ReLU6 fall on its other side; with
all weights trained at a tenth of the usual rate, 20 steps carry that to 5e-3 of the loss. AdamW
divides by a gradient's own size, so that the sign of a small one decides a whole step.
"""
ZOO_RATES: Mapping[str, float] = {"sgd": 1e-3, "adamw": 1e-5}
"""Learning rates of the zoo at its natural sizes, for the same reasons."""


@dataclass(frozen=True, slots=True)
class Small:
    """How to cut a batch so that float64 graphs run in seconds, op by op."""

    examples: int
    extent: int  # of the last axes: pixels or tokens


SMALL: Mapping[str, Small] = {
    "mlp": Small(4, 0),
    "mobilenet_v2": Small(2, 32),
    "mini_lm": Small(2, 8),
}


def mlp() -> tuple[nn.Module, Batches]:
    """(64, 128) -> 10 classes with ReLU, GELU, tanh, sigmoid and LayerNorm, on random numbers."""
    model = nn.Sequential(
        *(nn.Linear(128, 256), nn.ReLU(), nn.Linear(256, 256), nn.GELU(), nn.LayerNorm(256)),
        *(nn.Linear(256, 256), nn.Tanh(), nn.Linear(256, 128), nn.Sigmoid(), nn.Linear(128, 10)),
    )
    return model, [(torch.randn(64, 128), torch.randint(0, 10, (64,))) for _ in range(STEPS)]


def pretrained_mobilenet_v2() -> tuple[nn.Module, Batches]:
    """Pretrained MobileNetV2 on photos of solar cells, 128 px, two classes, BatchNorm in eval mode.

    Clip art would not do: on its even areas thousands of equal elements cross a bound at once.
    """
    task = load_task("elpv", size=IMAGE_SIZE)
    count = STEPS * BATCH
    images = torch.from_numpy(prepare_images(task.train_inputs[:count], size=IMAGE_SIZE))
    model = mobilenet_v2(classes=len(task.classes), pretrained=True).eval()
    return model, _batches((images,), torch.from_numpy(task.train_labels[:count]))


def pretrained_mini_lm() -> tuple[nn.Module, Batches]:
    """Pretrained MiniLM on film snippets, 64 tokens, two classes."""
    task = load_task("sentiment-movie")
    count = STEPS * BATCH
    encoded = encode_texts(task.train_inputs[:count], bert_vocabulary(), TOKENS)
    inputs = tuple(torch.from_numpy(part) for part in encoded)
    model = mini_lm(len(task.classes), pretrained=True)
    return model, _batches(inputs, torch.from_numpy(task.train_labels[:count]))


MODELS: Mapping[str, Callable[[], tuple[nn.Module, Batches]]] = {
    "mlp": mlp,
    "mobilenet_v2": pretrained_mobilenet_v2,
    "mini_lm": pretrained_mini_lm,
}
OPTIMIZERS = {"sgd": SGD_MOMENTUM, "adamw": ADAMW}
TRIPLES = (
    *product(MODELS, SCHEMES, OPTIMIZERS),
    *(
        (f"zoo/{name}", scheme, optimizer)
        for name, exhibit in ZOO.items()
        for scheme in exhibit.schemes
        for optimizer in OPTIMIZERS
    ),
)


def long_case(model: str, scheme: str, optimizer: str) -> Case:
    """A case by its names; the same from run to run."""
    if model.startswith("zoo/"):
        return _zoo_case(model, scheme, optimizer, tiny=False)
    torch.manual_seed(0)
    module, batches = MODELS[model]()
    return Case(
        model=module,
        batches=batches,
        scheme=SCHEMES[scheme](module),
        optimizer=OPTIMIZERS[optimizer],
        lr=RATES[model, optimizer],
    )


def short_case(model: str, scheme: str, optimizer: str) -> Case:
    """The same model with one small batch; of the zoo, a tiny model."""
    if model.startswith("zoo/"):
        return _zoo_case(model, scheme, optimizer, tiny=True)
    case = long_case(model, scheme, optimizer)
    small = SMALL[model]
    inputs, targets = case.batches[0]
    several = inputs if isinstance(inputs, tuple) else (inputs,)
    cut = tuple(_cut(each, small) for each in several)
    return replace(case, batches=[(cut, targets[: small.examples])])


def _zoo_case(model: str, scheme: str, optimizer: str, *, tiny: bool) -> Case:
    steps = 1 if tiny else ZOO_STEPS
    case = zoo_case(model.removeprefix("zoo/"), scheme, optimizer, steps=steps, tiny=tiny)
    return case if tiny else replace(case, lr=ZOO_RATES[optimizer])


def _cut(batch: Tensor, small: Small) -> Tensor:
    axes = range(1 if batch.dim() == 2 else 2, batch.dim())
    cut = batch[: small.examples]
    for axis in axes if small.extent else ():
        cut = cut.narrow(axis, 0, small.extent)
    return cut.contiguous()


def _batches(inputs: tuple[Tensor, ...], labels: Tensor) -> Batches:
    parts = zip(*(each.split(BATCH) for each in inputs), strict=True)
    return list(zip(parts, labels.split(BATCH), strict=True))
