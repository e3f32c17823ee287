"""The real payloads: each task's size, and that the pretrained weights know what they should."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import numpy as np
import pytest
import torch

from pockengine.errors import PayloadError
from pockengine.tasks import (
    bert_vocabulary,
    encode_texts,
    load_task,
    mini_lm,
    mobilenet_v2,
    prepare_images,
    take,
)

pytestmark = [pytest.mark.network, pytest.mark.slow]

_Value = TypeVar("_Value")


def _or_skip(load: Callable[[], _Value]) -> _Value:
    try:
        return load()
    except PayloadError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize(
    ("name", "limit", "train", "test", "classes"),
    [
        ("fashion-mnist", None, 60000, 10000, 10),
        ("openclipart", 60, 384, 96, 8),
        ("openclipart-topics", 60, 624, 156, 13),
        ("elpv", 50, 80, 20, 2),
        ("digits", None, 1438, 359, 10),
        ("sentiment-movie", None, 8453, 2113, 2),
        ("sentiment-amazon", None, 2880, 720, 2),
        ("sentiment-tweets", None, 3357, 839, 2),
        ("sentiment-nyt", None, 3907, 977, 2),
        ("bbc-news", None, 1699, 426, 5),
    ],
)
def test_tasks(name: str, limit: int | None, train: int, test: int, classes: int) -> None:
    """Each public data set has the size it should; all classes are in both parts."""
    task = _or_skip(lambda: load_task(name, limit=limit))
    assert (len(task.train_inputs), len(task.test_inputs)) == (train, test)
    assert len(np.unique(task.train_labels)) == len(np.unique(task.test_labels)) == classes
    assert len(task.classes) == classes
    if task.kind == "text":
        assert not set(task.train_inputs) & set(task.test_inputs)


def test_mini_lm_knows_paraphrases() -> None:
    """Pretrained MiniLM puts a paraphrase near its sentence and another topic far from it."""
    model = _or_skip(lambda: mini_lm(2, pretrained=True))
    sentences = (
        "A man is playing a guitar.",
        "Someone plays the guitar on stage.",
        "The stock market fell sharply today.",
    )
    ids, mask = encode_texts(sentences, bert_vocabulary(), 16)
    with torch.no_grad():
        means = model.embed(torch.from_numpy(ids), torch.from_numpy(mask))
    near, far = torch.cosine_similarity(means[:1], means[1:])
    assert near > 0.6
    assert far < 0.1


def test_mobilenet_v2_features_tell_clothing_apart() -> None:
    """The nearest class mean of pretrained features is right far more often than chance (1/10)."""
    model = _or_skip(lambda: mobilenet_v2(classes=2, pretrained=True)).eval()
    task = take(_or_skip(lambda: load_task("fashion-mnist")), train=200, test=100)
    with torch.no_grad():
        train, test = (
            model.features(torch.from_numpy(prepare_images(part, size=64))).mean((2, 3))
            for part in (task.train_inputs, task.test_inputs)
        )
    labels = torch.from_numpy(task.train_labels)
    means = torch.stack([train[labels == label].mean(0) for label in range(10)])
    nearest = torch.cdist(test, means).argmin(1)
    assert (nearest.numpy() == task.test_labels).mean() > 0.5


def test_pretrained_head_is_kept_for_imagenet() -> None:
    """With ImageNet's 1000 classes the pretrained head is loaded, otherwise it is fresh."""
    whole = _or_skip(lambda: mobilenet_v2(pretrained=True)).state_dict()
    fresh = mobilenet_v2(classes=1001, pretrained=True).state_dict()
    assert whole["classifier.1.weight"].std() > 0.03 > fresh["classifier.1.weight"].std()
    assert torch.equal(whole["features.18.0.weight"], fresh["features.18.0.weight"])
