"""Models of every shape of inputs, outputs and losses, compiled, beside PyTorch eager."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - the name everybody knows
from torch import Tensor, nn

import pockengine as pe
from pockengine.errors import CaptureError, InputError
from tests.training import TOLERANCE, call, check_training


class Head(nn.Module):
    """(B, T) tokens -> scores of (B, T, C), or anything made of them."""

    def __init__(self, make: Callable[[Tensor, Tensor], Any] = lambda scores, _: scores) -> None:
        super().__init__()
        self.table = nn.Embedding(7, 6)
        self.score = nn.Linear(6, 5)
        self.make = make

    def forward(self, ids: Tensor) -> Any:
        """Scores and the tokens' vectors, as ``make`` wants them."""
        hidden = self.table(ids)
        return self.make(torch.tanh(self.score(hidden)), hidden)


_IDS = [torch.randint(0, 5, (2, 4), generator=torch.Generator().manual_seed(i)) for i in range(2)]
_LABELS = [ids.where(ids != 1, -100) for ids in _IDS]


def _over_classes(scores: Tensor, labels: Tensor) -> Tensor:
    return F.cross_entropy(scores.transpose(1, 2), labels)


def _next_token(scores: Tensor, labels: Tensor) -> Tensor:
    return F.cross_entropy(scores[:, :-1].reshape(-1, 5), labels[:, 1:].reshape(-1))


@pytest.mark.parametrize(
    ("loss", "labels", "reference"),
    [
        ("token_cross_entropy", _LABELS, _over_classes),
        ("causal_lm", _IDS, _next_token),
        ("bce_with_logits", [torch.rand(2, 4, 5) for _ in range(2)], None),
        ("smooth_l1", [torch.randn(2, 4, 5) for _ in range(2)], F.smooth_l1_loss),
        (_over_classes, _LABELS, _over_classes),
    ],
)
def test_sequence_losses(loss: Any, labels: list[Tensor], reference: Any) -> None:
    """Labels for each token, the next token, several at once, and numbers."""
    reference = reference or F.binary_cross_entropy_with_logits
    batches = list(zip(_IDS, labels, strict=True))
    check_training(Head(), batches, loss, lambda m, x, y: reference(m(x), y)).close()


def test_dense_prediction() -> None:
    """A class for each pixel: (B, C, H, W) scores, (B, H, W) labels of which some do not count."""
    model = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.Conv2d(6, 4, 1))
    labels = torch.randint(0, 4, (2, 5, 6))
    labels[0, :2] = 255
    batches = [(torch.randn(2, 3, 5, 6), labels) for _ in range(2)]
    loss = nn.CrossEntropyLoss(ignore_index=255)
    check_training(model, batches, loss, lambda m, x, y: loss(m(x), y)).close()


def _distil(output: Tensor, targets: dict[str, Any]) -> Tensor:
    """Soft targets of a teacher beside hard ones."""
    log_p = F.log_softmax(output[:, 0] / 2.0, -1)
    soft = F.kl_div(log_p, F.softmax(targets["teacher"] / 2.0, -1), reduction="batchmean")
    return 4.0 * soft + F.cross_entropy(output[:, 0], targets["hard"][0])


def _info_nce(output: Tensor, _: None) -> Tensor:
    """Each sequence's ends are to find each other in the batch."""
    one, other = F.normalize(output[:, 0], dim=-1), F.normalize(output[:, -1], dim=-1)
    return F.cross_entropy(one @ other.T / 0.1, torch.arange(len(output)))


def _triplet(output: Tensor, _: None) -> Tensor:
    return F.triplet_margin_loss(output[:, 0], output[:, 1], output[:, 2], margin=0.7)


def _cosine(output: Tensor, sign: Tensor) -> Tensor:
    return F.cosine_embedding_loss(output[:, 0], output[:, 1], sign, margin=0.1)


@pytest.mark.parametrize(
    ("loss", "targets"),
    [
        (_distil, {"teacher": torch.randn(2, 5), "hard": [torch.tensor([1, 4])]}),
        (_info_nce, None),
        (_triplet, None),
        (_cosine, torch.tensor([1, -1])),
    ],
)
def test_losses_of_any_structure(loss: Any, targets: Any) -> None:
    """Distillation and contrastive losses are callables, of targets that nest, or of none."""
    batches = [(ids, targets) for ids in _IDS]
    check_training(Head(), batches, loss, lambda m, x, y: loss(m(x), y), lr=0.05).close()


def _first(output: Any) -> Tensor:
    """The scores among an output of any structure."""
    found: Tensor = output["scores"] if isinstance(output, dict) else output[0]
    return found


@pytest.mark.parametrize(
    "make",
    [
        lambda scores, hidden: {"scores": scores, "more": [hidden, (scores[:, 0], None)]},
        lambda scores, hidden: (scores, {"hidden": hidden}, None, "words", 3),
        lambda scores, hidden: [scores, hidden],
    ],
)
def test_structured_outputs(make: Callable[[Tensor, Tensor], Any]) -> None:
    """``predict`` and ``evaluate`` return what the model returns, of arrays or tensors."""
    model = Head(make)
    loss = lambda output, y: F.mse_loss(_first(output), y)  # noqa: E731 - as a user writes it
    batches = [(ids, torch.randn(2, 4, 5)) for ids in _IDS]
    with check_training(model, batches, loss, lambda m, x, y: loss(m(x), y)) as trainer:
        model.load_state_dict(trainer.state_dict())
        wanted = torch.utils._pytree.tree_map_only(Tensor, Tensor.detach, model(_IDS[0]))
        found = torch.utils._pytree.tree_leaves(trainer.predict(_IDS[0]))
        for one, other in zip(found, torch.utils._pytree.tree_leaves(wanted), strict=True):
            if isinstance(other, Tensor):
                torch.testing.assert_close(one, other, **TOLERANCE)
            else:
                assert one == other
        arrays = trainer.evaluate(_IDS[0].numpy(), batches[0][1])[1]
        assert type(arrays) is type(wanted)
        assert isinstance(_first(arrays), np.ndarray)


class Optional(nn.Module):
    """Keyword inputs, of which some may be missing, and a flag."""

    def __init__(self) -> None:
        super().__init__()
        self.lin = nn.Linear(3, 4)

    def forward(
        self, x: Tensor, scale: Tensor | None = None, mask: Tensor | None = None, flip: bool = False
    ) -> Tensor:
        """(B, 3) -> (B, 4)."""
        out: Tensor = self.lin(x) * (1 if scale is None else scale)
        out = out if mask is None else out * mask
        return -out if flip else out


@pytest.mark.parametrize(
    "inputs",
    [
        {"x": torch.randn(2, 3), "scale": None, "mask": torch.rand(2, 1), "flip": True},
        (torch.randn(2, 3), torch.rand(2, 4), None),
        {"mask": torch.rand(2, 4), "x": torch.randn(2, 3)},
    ],
)
def test_optional_inputs(inputs: Any) -> None:
    """None and flags are compiled in; what is None in the example may be left out later."""
    batches = [(inputs, torch.randn(2, 4)) for _ in range(2)]
    reference = lambda m, x, y: F.mse_loss(call(m, x), y)  # noqa: E731 - as a user writes it
    with check_training(Optional(), batches, "mse", reference) as trainer:
        wanted = trainer.predict(inputs)
        if isinstance(inputs, dict):
            less = {key: x for key, x in reversed(inputs.items()) if x is not None}
            assert torch.equal(trainer.predict(less), wanted)
            with pytest.raises(InputError, match=r"where the example|a dict with"):
                trainer.predict({**inputs, "flip": False})


class OwnLoss(nn.Module):
    """Returns its loss, in one of the usual ways, where it is given targets."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.lin = nn.Linear(3, 4)
        self.how = how

    def forward(self, x: Tensor, labels: Tensor | None = None) -> Any:
        """(B, 3) -> (B, 4) scores, with the loss or without."""
        scores = self.lin(x)
        if labels is None:
            return scores
        loss = F.cross_entropy(scores, labels)
        return {
            "alone": loss,
            "tuple": (scores, loss),
            "dict": {"loss": loss, "scores": scores},
        }[self.how]


@pytest.mark.parametrize("how", ["alone", "tuple", "dict"])
@pytest.mark.parametrize("by_keyword", [True, False])
def test_the_models_own_loss(how: str, by_keyword: bool) -> None:
    """It is found in what the model returns, and is no output; targets go in as keywords."""
    labels = torch.tensor([0, 3])
    batches = [(torch.randn(2, 3), {"labels": labels} if by_keyword else labels) for _ in range(2)]
    reference = lambda m, x, _: F.cross_entropy(m(x), labels)  # noqa: E731 - as a user writes it
    model = OwnLoss(how)
    with check_training(model, batches, "model", reference) as trainer:
        x = batches[0][0]
        model.load_state_dict(trainer.state_dict())
        scores = model(x).detach()
        wanted = {"alone": (), "tuple": (scores,), "dict": {"scores": scores}}[how]
        torch.testing.assert_close(trainer.predict(x), wanted, **TOLERANCE)


def test_outputs_that_need_targets() -> None:
    """A model that makes outputs from targets trains and evaluates; predict says why not."""

    class Echo(OwnLoss):
        def forward(self, x: Tensor, labels: Tensor | None = None) -> Any:
            assert labels is not None
            scores = self.lin(x) + labels[:, None]
            return scores.square().mean(), scores

    labels = torch.tensor([0, 3])
    trainer = pe.compile(
        Echo(""), (torch.randn(2, 3), labels), loss="model", optimizer=pe.SGD(), threads=1
    )
    with trainer:
        x = torch.randn(2, 3)
        loss, (scores,) = trainer.evaluate(x, labels)
        assert loss == pytest.approx(float(scores.square().mean()), rel=1e-5)
        with pytest.raises(InputError, match="computes its outputs from the targets"):
            trainer.predict(x)


@pytest.mark.parametrize(
    ("model", "loss", "message"),
    [
        (Optional(), "model", "a loss that gives a scalar"),
        (Head(lambda scores, hidden: (scores, hidden)), "mse", "2 tensors in tuple"),
        (Head(lambda scores, hidden: (scores, hidden)), "model", "keyword|without a loss"),
    ],
)
def test_no_loss_to_be_found(model: nn.Module, loss: str, message: str) -> None:
    """One error says what was found and what to pass."""
    x = torch.randn(2, 3) if isinstance(model, Optional) else _IDS[0]
    with pytest.raises(CaptureError, match=message):
        pe.compile(model, (x, {"mask": torch.ones(2, 4)}), loss=loss, optimizer=pe.SGD())


_BERT: dict[str, Any] = {
    "vocab_size": 11,
    "hidden_size": 8,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 12,
    "max_position_embeddings": 8,
    "num_labels": 3,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
}


@pytest.mark.parametrize("kind", ["TokenClassification", "SequenceClassification"])
def test_hugging_face(kind: str) -> None:
    """Its own loss from labels; predict returns its output class, without the loss."""
    transformers = pytest.importorskip("transformers")
    model = getattr(transformers, f"BertFor{kind}")(transformers.BertConfig(**_BERT)).eval()
    shape = (2, 5) if kind.startswith("Token") else (2,)
    ids, mask = torch.randint(0, 11, (2, 5)), torch.ones(2, 5, dtype=torch.long)
    inputs = {
        "input_ids": ids,
        "attention_mask": mask,
        "token_type_ids": 0 * ids,
        "position_ids": None,
    }
    batches = [(inputs, {"labels": torch.randint(0, 3, shape)}) for _ in range(2)]
    with check_training(model, batches, "model", lambda m, x, y: m(**x, **y).loss) as trainer:
        model.load_state_dict(trainer.state_dict())
        found, wanted = trainer.predict(inputs), model(**inputs)
        assert type(found) is type(wanted)
        torch.testing.assert_close(found.logits, wanted.logits.detach(), **TOLERANCE)
    name = "token_cross_entropy" if kind.startswith("Token") else "cross_entropy"
    plain = [(inputs, y["labels"]) for _, y in batches]
    check_training(model, plain, name, lambda m, x, y: m(**x, labels=y).loss).close()
