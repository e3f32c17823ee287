"""Tasks as tensors, the way a model takes them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pockengine.tasks import Task, encode_texts, prepare_images


@dataclass(frozen=True, slots=True, kw_only=True)
class Data:
    """Inputs as the model takes them, one tensor for each of its arguments, and labels ``(N,)``."""

    train_inputs: tuple[Tensor, ...]
    train_labels: Tensor
    test_inputs: tuple[Tensor, ...]
    test_labels: Tensor
    classes: int


def image_data(task: Task, size: int) -> Data:
    """Return pictures as float32 ``(N, 3, size, size)``, with ImageNet's mean and deviation."""
    return _data(
        task,
        (prepare_images(task.train_inputs, size=size),),
        (prepare_images(task.test_inputs, size=size),),
    )


def text_data(task: Task, vocabulary: Mapping[str, int], tokens: int) -> Data:
    """Return texts as token ids and attention mask, int64 ``(N, tokens)`` each."""
    return _data(
        task,
        encode_texts(task.train_inputs, vocabulary, tokens),
        encode_texts(task.test_inputs, vocabulary, tokens),
    )


def _data(
    task: Task,
    train: tuple[np.ndarray, ...],
    test: tuple[np.ndarray, ...],
) -> Data:
    return Data(
        train_inputs=tuple(torch.from_numpy(part) for part in train),
        train_labels=torch.from_numpy(task.train_labels),
        test_inputs=tuple(torch.from_numpy(part) for part in test),
        test_labels=torch.from_numpy(task.test_labels),
        classes=len(task.classes),
    )
