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

Part = tuple[Any, Tensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """A model and a task.

    Args:
        model: "mobilenet_v2" or "mini_lm".
        task: of ``pockengine.tasks``.
        train: examples that candidates are trained on.
        test: examples that they are measured on.
        lr: of a profile.
        lrs: that whole schemes are tuned over.
        size: pixels of a picture's side, or tokens of a text.
        limit: pictures of a class that are read.
    """

    model: str
    task: str
    train: int
    test: int
    lr: float
    lrs: tuple[float, ...]
    size: int
    limit: int | None = None


_PICTURES = partial(
    Pair,
    model="mobilenet_v2",
    test=1000,
    lr=1e-3,
    lrs=(1.25e-4, 2.5e-4, 5e-4, 1e-3, 2e-3),
    size=128,
)
_TEXTS = partial(
    Pair, model="mini_lm", test=1000, lr=5e-3, lrs=(1.25e-3, 2.5e-3, 5e-3, 1e-2), size=32
)
PAIRS: Mapping[str, Pair] = MappingProxyType(
    {
        f"{each.model}-{each.task}": each
        for each in (
            _PICTURES(task="fashion-mnist", train=2000, limit=1000),
            _PICTURES(task="elpv", train=1600),
            _TEXTS(task="sentiment-movie", train=1600),
            _TEXTS(task="sentiment-tweets", train=1600),
        )
    }
)


def load(pair: Pair) -> tuple[nn.Module, tuple[Part, Part]]:
    """The model in eval mode, and its task as ``profile`` takes it."""
    torch.manual_seed(0)  # of the head
    if pair.model == "mobilenet_v2":
        task = _task(load_task(pair.task, size=pair.size, limit=pair.limit), pair)
        model: nn.Module = mobilenet_v2(classes=len(task.classes), pretrained=True)
        parts = [
            (
                torch.from_numpy(prepare_images(images, IMAGENET, size=pair.size)),
                torch.from_numpy(labels),
            )
            for images, labels in _parts(task)
        ]
    else:
        task = _task(load_task(pair.task), pair)
        model, vocabulary = mini_lm(len(task.classes), pretrained=True), bert_vocabulary()
        parts = [
            (_encoded(texts, vocabulary, pair.size), torch.from_numpy(labels))
            for texts, labels in _parts(task)
        ]
    return model.eval(), (parts[0], parts[1])


def _task(task: Task, pair: Pair) -> Task:
    """As many examples as are wanted; a test part that has too few takes some of the others."""
    if len(task.test_labels) < pair.test:
        task = _resplit(task, pair.test)
    return take(task, train=pair.train, test=pair.test)


def _parts(task: Task) -> tuple[tuple[Any, Any], tuple[Any, Any]]:
    return (task.train_inputs, task.train_labels), (task.test_inputs, task.test_labels)


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
