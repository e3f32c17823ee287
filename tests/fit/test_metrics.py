"""Metrics beside numbers worked out by hand, which are scikit-learn's."""

from __future__ import annotations

from math import exp, isnan
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import pockengine as pe
from pockengine.errors import InputError
from pockengine.fit.labels import labels
from pockengine.fit.metrics import Meter
from pockengine.frontend.losses import LossKind, loss_kind
from tests.fit.nets import classifier, data

ALL = ("accuracy", "f1", "f1_micro", "confusion_matrix")


def _scores(classes: list[int], count: int) -> torch.Tensor:
    """Scores whose largest is at the class."""
    return torch.eye(count)[classes]


def _measured(batches: list[tuple[Any, Any]], loss: str = "cross_entropy") -> dict[str, Any]:
    meter = Meter(ALL, LossKind(loss))
    for outputs, targets in batches:
        meter.add(0.0, outputs, targets, len(targets))
    return meter.result()


def test_classes() -> None:
    """Four classes, one neither true nor predicted, over two batches.

    True 0 0 1 1 2, predicted 0 1 1 1 0: F1 of class 0 is 2*1/(2+2), of 1 2*2/(2+3), of 2 is 0;
    class 3 does not count.
    """
    first = _scores([0, 1, 1], 4), torch.tensor([0, 0, 1])
    second = _scores([1, 0], 4), torch.tensor([1, 2])
    found = _measured([first, second])
    assert found["accuracy"] == pytest.approx(3 / 5)
    assert found["f1"] == pytest.approx((1 / 2 + 4 / 5 + 0) / 3)
    assert found["f1_micro"] == pytest.approx(3 / 5)
    wanted = [[1, 1, 0, 0], [0, 2, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0]]
    assert found["confusion_matrix"].tolist() == wanted


def test_several_labels() -> None:
    """Three labels a sample: all have to be right; a label that never occurs has F1 0.

    Label 0: true 1 0, predicted 1 1. Label 1: true 1 1, predicted 1 0. Label 2: never.
    """
    scores = torch.tensor([[2.0, 1.0, -1.0], [3.0, -1.0, -2.0]])
    true = torch.tensor([[1.0, 1.0, 0.0], [0.0, 1.0, 0.0]])
    found = _measured([(scores, true)], "bce_with_logits")
    assert found["accuracy"] == pytest.approx(1 / 2)
    assert found["f1"] == pytest.approx((2 / 3 + 2 / 3 + 0) / 3)
    assert found["f1_micro"] == pytest.approx(2 * 2 / (2 * 2 + 1 + 1))
    wanted = [[[0, 1], [0, 1]], [[0, 0], [1, 1]], [[2, 0], [0, 0]]]
    assert found["confusion_matrix"].tolist() == wanted


@pytest.mark.parametrize("shape", [(4,), (4, 1)])
def test_one_score(shape: tuple[int, ...]) -> None:
    """A single score decides between two classes: true 0 1 1 0, predicted 1 1 0 0."""
    scores = torch.tensor([1.0, 2.0, -1.0, -3.0]).reshape(shape)
    true = torch.tensor([0.0, 1.0, 1.0, 0.0]).reshape(shape)
    found = _measured([(scores, true)], "bce_with_logits")
    assert found["accuracy"] == found["f1"] == pytest.approx(1 / 2)
    assert found["confusion_matrix"].tolist() == [[1, 1], [1, 1]]
    whole = _measured([(scores.reshape(-1, 1), true.reshape(-1).long())], "")
    assert whole["confusion_matrix"].tolist() == [[1, 1], [1, 1]]


@pytest.mark.parametrize(
    ("loss", "scores", "true", "predicted", "kept"),
    [
        ("token_cross_entropy", (2, 3, 4), (2, 3), lambda s: s.argmax(-1), None),
        ("cross_entropy", (2, 4, 3), (2, 3), lambda s: s.argmax(1), None),
        ("cross_entropy", (2, 3, 3), (2, 3), lambda s: s.argmax(1), None),
        ("token_cross_entropy", (2, 3, 3), (2, 3), lambda s: s.argmax(-1), None),
        ("cross_entropy", (2, 4, 3, 5), (2, 3, 5), lambda s: s.argmax(1), None),
        ("causal_lm", (2, 3, 4), (2, 3), lambda s: s[:, :-1].argmax(-1), lambda t: t[:, 1:]),
    ],
)
def test_layouts(loss: str, scores: Any, true: Any, predicted: Any, kept: Any) -> None:
    """Classes last or on axis 1, as the loss has them; ignored labels do not count."""
    made = torch.randn(scores)
    told = torch.randint(3, true)
    told[0, 1] = -100
    found = labels({"logits": made, "other": made}, told, LossKind(loss))
    assert found is not None
    wanted = told if kept is None else kept(told)
    keep = wanted != -100
    assert found.true.tolist() == wanted[keep].tolist()
    assert found.predicted.tolist() == predicted(made)[keep].tolist()


def test_other_ignored_label() -> None:
    """A loss module says which label it ignores."""
    kind = loss_kind(nn.CrossEntropyLoss(ignore_index=0))
    assert kind == ("CrossEntropyLoss", 0)
    found = labels(_scores([1, 2], 3), torch.tensor([0, 2]), kind)
    assert found is not None
    assert found.true.tolist() == [2]


@pytest.mark.parametrize(
    ("loss", "scores", "true"),
    [
        ("mse", torch.zeros(2, 3), torch.ones(2, 3)),
        ("", torch.zeros(2, 3), torch.ones(2, 3)),
        ("model", torch.zeros(2, 5, 3), torch.ones(2, 5).long()),
        ("mse", torch.zeros(2, 3), torch.full((2, 3), 0.5)),
        ("cross_entropy", torch.zeros(2, 3), torch.zeros(5).long()),
        ("cross_entropy", [torch.zeros(2, 3)] * 2, torch.zeros(2).long()),
        ("", torch.zeros(2, 3), torch.tensor([0, 3])),
        ("", torch.zeros(2, 1), torch.tensor([1, -1])),
    ],
)
def test_accuracy_is_no_guess(loss: str, scores: Any, true: Any) -> None:
    """Unasked, there is no accuracy where outputs may be something else."""
    meter = Meter(None, LossKind(loss))
    meter.add(1.0, scores, true, 2)
    assert meter.result() == {"loss": 1.0}


def test_accuracy_is_of_all_batches() -> None:
    """Where the labels of one batch are none after all, there is no accuracy of the others."""
    meter = Meter(None, LossKind(""))
    for true in ([0, 1], [3, 0], [1, 1]):  # ranks, with a score for each of the three steps between
        meter.add(1.0, torch.zeros(2, 3), torch.tensor(true), 2)
    assert meter.result() == {"loss": 1.0}


def test_trainer_metrics() -> None:
    """Of a trainer: the mean loss, its exponential, and PyTorch's accuracy; arrays do as well."""
    x, y = data(10)
    with classifier(partial=True) as trainer:
        scores = torch.cat(
            [trainer.predict(x[:4]), trainer.predict(x[4:8]), trainer.predict(x[8:])]
        )
        loss = float(torch.nn.functional.cross_entropy(scores, y))
        accuracy = float((scores.argmax(1) == y).float().mean())
        before = trainer.state_dict()
        found = trainer.metrics((x, y), metrics=("loss", "perplexity", "accuracy"))
        assert found == pytest.approx(
            {"loss": loss, "perplexity": exp(loss), "accuracy": accuracy}, rel=1e-5
        )
        assert trainer.metrics((x.numpy(), y.numpy())) == pytest.approx(
            {"loss": loss, "accuracy": accuracy}, rel=1e-5
        )
        assert all(torch.equal(t, before[name]) for name, t in trainer.state_dict().items())


def test_callable() -> None:
    """A callable sees outputs and targets of all samples at once, by its name."""
    x, y = data(10)

    def spread(outputs: Any, targets: Any) -> float:
        assert outputs.shape == (10, 3)
        assert np.array_equal(targets, y)
        return np.float32(outputs.max() - outputs.min())  # type: ignore[return-value]

    with classifier(partial=True) as trainer:
        found = trainer.metrics((x, y), metrics=("loss", spread))
        assert list(found) == ["loss", "spread"]
        assert found["spread"] > 0
        wrong: Any = lambda _outputs, _targets: "much"  # noqa: E731
        with pytest.raises(InputError, match=r"metric <lambda>: it gave str; a number"):
            trainer.metrics((x, y), metrics=(wrong,))


def test_unknown_and_unfit() -> None:
    """Names are checked ahead of the work; labels have to be labels."""
    x, y = data(8)
    with classifier() as trainer:
        with pytest.raises(InputError, match="metrics: 'recall'; one of loss, perplexity"):
            trainer.metrics((x, y), metrics=("recall",))
        with pytest.raises(InputError, match="metrics: 'recall'"):
            trainer.fit((x, y), metrics=("recall",))
    model = nn.Linear(2, 3)
    batch = torch.randn(2, 2), torch.randn(2, 3)
    with pe.compile(model, batch, loss="mse", optimizer=pe.SGD(), threads=1) as trainer:
        assert list(trainer.metrics(batch)) == ["loss"]
        message = r"metrics \(f1\): outputs \(2, 3\) and targets \(2, 3\); scores of classes"
        with pytest.raises(InputError, match=message):
            trainer.metrics(batch, metrics=("f1",))


def test_nothing_but_ignored() -> None:
    """Without a label that counts there is no accuracy."""
    found = _measured([(torch.zeros(2, 3), torch.tensor([-100, -100]))])
    assert isnan(found["accuracy"])
    assert isnan(found["f1"])


def test_large_confusion_matrix() -> None:
    """A matrix of a vocabulary is refused ahead of its memory."""
    with pytest.raises(InputError, match="a confusion matrix of 5000 classes; at most 4096"):
        _measured([(torch.zeros(1, 5000), torch.tensor([1]))])


def test_perplexity_overflows() -> None:
    """To infinity."""
    meter = Meter(("perplexity",), LossKind())
    meter.add(1e4, None, None, 1)
    assert meter.result() == {"perplexity": float("inf")}
