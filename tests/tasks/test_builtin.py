"""The tasks that need no download."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from pockengine.tasks import IMAGENET, encode_texts, load_task, prepare_images, word_vocabulary


def test_shapes() -> None:
    """Four balanced classes of pictures, the same for the same seed."""
    task = load_task("shapes", size=24, limit=20)
    assert task.train_inputs.shape == (64, 24, 24, 3)
    assert np.bincount(task.test_labels).tolist() == [4] * 4
    assert (task.train_inputs == load_task("shapes", size=24, limit=20).train_inputs).all()
    assert (task.train_inputs != load_task("shapes", size=24, limit=20, seed=1).train_inputs).any()


def test_shapes_are_learnable() -> None:
    """A small network learns to tell the drawn shapes apart far better than chance."""
    task = load_task("shapes", size=16, limit=150)
    inputs = torch.from_numpy(prepare_images(task.train_inputs, IMAGENET, size=16))
    convolve = nn.Conv2d(3, 24, 5, 2, 2), nn.ReLU(), nn.Conv2d(24, 32, 5, 2, 2), nn.ReLU()
    model = nn.Sequential(*convolve, nn.Flatten(), nn.Linear(512, 4))
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    labels = torch.from_numpy(task.train_labels)
    for batch in np.array_split(np.tile(np.arange(len(labels)), 4), 60):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(inputs[batch]), labels[batch])
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    unseen = torch.from_numpy(prepare_images(task.test_inputs, IMAGENET, size=16))
    assert (model(unseen).argmax(1).numpy() == task.test_labels).mean() > 0.5


def test_phrases() -> None:
    """Sentences of two classes, whose sense a negation turns round."""
    task = load_task("phrases")
    both = zip(task.train_inputs, task.train_labels, strict=True)
    negated = {int(label) for text, label in both if " not good" in text}
    assert negated == {0}
    assert task.classes == ("negative", "positive")
    assert len(task.train_inputs) == 800


def test_phrases_have_a_vocabulary() -> None:
    """Texts without a payload are encoded by their own words, all of them known."""
    task = load_task("phrases", limit=50)
    vocabulary = word_vocabulary(task.train_inputs)
    ids, mask = encode_texts(task.train_inputs, vocabulary, 16)
    assert (ids[mask == 1] != vocabulary["[UNK]"]).all()
