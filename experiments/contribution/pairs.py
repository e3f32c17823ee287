"""The pairs of a pretrained model and a task that are profiled, as tensors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pockengine.tasks import (
    IMAGENET,
    Task,
    bert_vocabulary,
    encode_texts,
    load_task,
    mini_lm,
    mobilenet_v2,
    prepare_images,
    take,
)
from pockengine.tasks.task import balanced

Part = tuple[Any, Tensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """A model and a task.

    Args:
        model: "mobilenet_v2" or "mini_lm".
        task: of ``pockengine.tasks``.
        train: examples that candidates are trained on.
        test: examples that they are measured on, and learning rates chosen by.
        held: further ones, for schemes that were chosen so.
        lr: of a profile.
        lrs: that whole schemes are tuned over.
        epochs: passes over the training examples.
        warmup: steps at the start of these runs over which the rate rises.
        size: pixels of a picture's side, or tokens of a text.
        limit: pictures of a class that are read.
        alike: whether test and held have as many of each class; else as many as there are.
    """

    model: str
    task: str
    train: int
    test: int
    held: int
    lr: float
    lrs: tuple[float, ...]
    size: int
    epochs: int = 1
    warmup: int = 0
    limit: int | None = None
    alike: bool = True


_PICTURES = partial(
    Pair,
    model="mobilenet_v2",
    lr=2.5e-4,
    lrs=(1.25e-4, 2.5e-4, 5e-4, 1e-3, 2e-3),
    size=128,
)
_TEXTS = partial(
    Pair, model="mini_lm", lr=5e-3, lrs=(2.5e-3, 5e-3, 1e-2, 2e-2, 4e-2), warmup=20, size=32
)
PAIRS: Mapping[str, Pair] = MappingProxyType(
    {
        f"{each.model}-{each.task}": each
        for each in (
            _PICTURES(task="fashion-mnist", train=2000, test=1000, held=2000, limit=1000),
            _PICTURES(task="elpv", train=1120, test=500, held=1000, alike=False),
            _PICTURES(
                task="openclipart-topics",
                lr=1.25e-4,
                train=1200,
                test=1000,
                held=1500,
                epochs=2,
                limit=600,
                alike=False,
            ),
            _TEXTS(task="sentiment-movie", train=1600, test=1000, held=2000),
            _TEXTS(task="sentiment-tweets", train=1600, test=1000, held=1500, alike=False),
        )
    }
)


def load(pair: Pair) -> tuple[nn.Module, tuple[Part, Part], Part]:
    """The model in eval mode, its task as ``profile`` takes it, and what is held out of both."""
    torch.manual_seed(0)  # of the head
    if pair.model == "mobilenet_v2":
        task = load_task(pair.task, size=pair.size, limit=pair.limit)
        model: nn.Module = mobilenet_v2(classes=len(task.classes), pretrained=True)
        parts = [
            (
                torch.from_numpy(prepare_images(images, IMAGENET, size=pair.size)),
                torch.from_numpy(labels),
            )
            for images, labels in _parts(task, pair)
        ]
    else:
        task = load_task(pair.task)
        model, vocabulary = mini_lm(len(task.classes), pretrained=True), bert_vocabulary()
        parts = [
            (_encoded(texts, vocabulary, pair.size), torch.from_numpy(labels))
            for texts, labels in _parts(task, pair)
        ]
    return model.eval(), (parts[0], parts[1]), parts[2]


def _parts(task: Task, pair: Pair) -> tuple[tuple[Any, Any], ...]:
    """Train, test and held; a test part that has too few examples takes some of the others."""
    untrained = pair.test + pair.held
    if len(task.test_labels) < untrained:
        task = _resplit(task, untrained)
    labels, random = task.test_labels, np.random.default_rng(0)
    order = balanced(labels, random) if pair.alike else random.permutation(len(labels))
    seen = take(task, train=pair.train)
    parts = random.permutation(order[: pair.test]), order[pair.test : untrained]
    return (
        (seen.train_inputs, seen.train_labels),
        *((task.test_inputs[part], labels[part]) for part in parts),
    )


def _encoded(texts: Any, vocabulary: Mapping[str, int], length: int) -> dict[str, Tensor]:
    ids, mask = encode_texts(texts, vocabulary, length)
    return {"input_ids": torch.from_numpy(ids), "attention_mask": torch.from_numpy(mask)}


def _resplit(task: Task, test: int) -> Task:
    """The same examples with a larger test part, which the shuffled training part begins with."""
    inputs = np.concatenate([task.test_inputs, task.train_inputs])
    labels = np.concatenate([task.test_labels, task.train_labels])
    return replace(
        task,
        train_inputs=inputs[test:],
        train_labels=labels[test:],
        test_inputs=inputs[:test],
        test_labels=labels[:test],
    )
