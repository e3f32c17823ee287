"""Fine-tune the demo's two models in plain PyTorch, to find settings that a scheme can be held to.

    python experiments/demo/baseline.py            both models, every scheme of the demo
    python experiments/demo/baseline.py --model mini_lm --scheme last_2 --lr 5e-3

BatchNorm stays in eval mode with trained affine; the learning rate falls linearly to 0.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - the name everybody knows
from data import Data, image_data, text_data
from torch import nn

from pockengine.tasks import bert_vocabulary, load_task, mini_lm, mobilenet_v2, take

BATCH = 8
IMAGE_SIZE = 128
TOKENS = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """One run: accuracy on the test set before and after each epoch, and milliseconds a step."""

    model: str
    scheme: str
    lr: float
    epochs: int
    accuracy: list[float]
    step_ms: float


def openclipart_data() -> Data:
    """Return clip-art drawings of eight topics at 128 px."""
    return image_data(load_task("openclipart", size=IMAGE_SIZE), IMAGE_SIZE)


def movie_data() -> Data:
    """Return 600 + 200 film snippets, negative and positive, 64 tokens each."""
    task = take(load_task("sentiment-movie"), train=600, test=200)
    return text_data(task, bert_vocabulary(), TOKENS)


MODELS: dict[str, tuple[Callable[[], Data], Callable[[int], nn.Module], str, int]] = {
    "mobilenet_v2": (
        openclipart_data,
        lambda classes: mobilenet_v2(classes=classes, pretrained=True),
        "features",
        19,
    ),
    "mini_lm": (movie_data, lambda classes: mini_lm(classes, pretrained=True), "encoder.layer", 6),
}
"""Model -> its data, its maker, where its blocks are, and how many there are."""

SETTINGS: dict[tuple[str, str], tuple[float, int]] = {
    ("mobilenet_v2", "head"): (3e-3, 4),
    ("mobilenet_v2", "last_4"): (1e-3, 4),
    ("mobilenet_v2", "full"): (1e-3, 4),
    ("mini_lm", "head"): (1e-1, 4),
    ("mini_lm", "last_2"): (1e-2, 3),
    ("mini_lm", "full"): (3e-3, 3),
}
"""Model and scheme -> learning rate of SGD with momentum 0.9, epochs."""


def freeze(model: nn.Module, scheme: str, blocks: str, count: int) -> None:
    """Leave gradients on the head and, of ``last_N``, on the last N blocks; or on all ("full")."""
    last = int(scheme.removeprefix("last_")) if scheme.startswith("last_") else 0
    kept = tuple(f"{blocks}.{index}." for index in range(count - last, count))
    for name, parameter in model.named_parameters():
        is_kept = scheme == "full" or name.startswith(("classifier.", *kept))
        parameter.requires_grad_(is_kept)


def accuracy(model: nn.Module, data: Data) -> float:
    """Return the share of test examples that the model classifies rightly."""
    right = 0
    with torch.no_grad():
        for start in range(0, len(data.test_labels), 50):
            inputs = [part[start : start + 50] for part in data.test_inputs]
            labels = data.test_labels[start : start + 50]
            right += int((model(*inputs).argmax(dim=1) == labels).sum())
    return right / len(data.test_labels)


def fine_tune(name: str, scheme: str, lr: float, epochs: int, data: Data, seed: int = 0) -> Result:
    """Train for some epochs and measure after each."""
    _, make, blocks, count = MODELS[name]
    torch.manual_seed(seed)
    model = make(data.classes).eval()
    freeze(model, scheme, blocks, count)
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(trained, lr=lr, momentum=0.9)
    steps = len(data.train_labels) // BATCH
    accuracies, seconds = [accuracy(model, data)], 0.0
    random = np.random.default_rng(seed)
    for epoch in range(epochs):
        order = torch.from_numpy(random.permutation(len(data.train_labels)))
        started = time.perf_counter()
        for step in range(steps):
            optimizer.param_groups[0]["lr"] = lr * (1 - (epoch * steps + step) / (epochs * steps))
            batch = order[step * BATCH : (step + 1) * BATCH]
            logits = model(*(part[batch] for part in data.train_inputs))
            loss = F.cross_entropy(logits, data.train_labels[batch])
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            optimizer.zero_grad()
        seconds += time.perf_counter() - started
        accuracies.append(accuracy(model, data))
    return Result(
        model=name,
        scheme=scheme,
        lr=lr,
        epochs=epochs,
        accuracy=[round(value, 3) for value in accuracies],
        step_ms=round(seconds * 1e3 / (steps * epochs), 1),
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Run what the command line asks for; one JSON line a run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", choices=sorted(MODELS))
    parser.add_argument("--scheme", help="head, last_N or full")
    parser.add_argument("--lr", type=float)
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    for name in [options.model] if options.model else MODELS:
        data = MODELS[name][0]()
        schemes = [scheme for model, scheme in SETTINGS if model == name]
        for scheme in [options.scheme] if options.scheme else schemes:
            lr, epochs = SETTINGS.get((name, scheme), (1e-3, 4))
            result = fine_tune(name, scheme, options.lr or lr, options.epochs or epochs, data)
            print(json.dumps(asdict(result)), flush=True)


if __name__ == "__main__":
    main()
