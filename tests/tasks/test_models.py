"""The model definitions: names, sizes and behaviour, without their pretrained weights."""

from __future__ import annotations

import pytest
import torch

from pockengine.errors import InputError
from pockengine.tasks import EncoderShape, mini_lm, mobilenet_v2

_SMALL = EncoderShape(layers=2, width=24, heads=3, intermediate=48, vocabulary=50, positions=16)


def test_mobilenet_v2_has_torchvisions_names() -> None:
    """Parameters are those of torchvision's MobileNetV2: 3,504,872 of them, in its places."""
    model = mobilenet_v2()
    shapes = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    assert sum(parameter.numel() for parameter in model.parameters()) == 3_504_872
    assert len(shapes) == 314
    assert shapes["features.0.0.weight"] == (32, 3, 3, 3)
    assert shapes["features.1.conv.1.weight"] == (16, 32, 1, 1)
    assert shapes["features.17.conv.1.0.weight"] == (960, 1, 3, 3)
    assert shapes["features.18.1.running_var"] == (1280,)
    assert shapes["classifier.1.weight"] == (1000, 1280)


@pytest.mark.parametrize(("width", "stem", "last"), [(0.35, 16, 1280), (1.4, 48, 1792)])
def test_mobilenet_v2_width(width: float, stem: int, last: int) -> None:
    """Channels scale to multiples of eight; the last layer never gets narrower."""
    model = mobilenet_v2(width, classes=7)
    state = model.state_dict()
    assert state["features.0.0.weight"].shape[0] == stem
    assert state["features.18.0.weight"].shape[0] == last
    assert model(torch.zeros(2, 3, 32, 32)).shape == (2, 7)


def test_mini_lm_has_hugging_faces_names() -> None:
    """Parameters are those of a six-layer BertModel without its pooler, and a head."""
    state = mini_lm(2).state_dict()
    assert len(state) == 103
    assert state["embeddings.word_embeddings.weight"].shape == (30522, 384)
    assert state["encoder.layer.5.attention.self.value.bias"].shape == (384,)
    assert state["encoder.layer.0.attention.output.LayerNorm.weight"].shape == (384,)
    assert state["encoder.layer.0.output.dense.weight"].shape == (384, 1536)


def test_padding_changes_nothing() -> None:
    """A sentence gives the same logits however much padding follows it."""
    model = mini_lm(3, shape=_SMALL)
    ids = torch.tensor([[2, 7, 9, 3]])
    padded = torch.nn.functional.pad(ids, (0, 4), value=11)
    mask = torch.tensor([[1, 1, 1, 1, 0, 0, 0, 0]])
    torch.testing.assert_close(model(padded, mask), model(ids, torch.ones_like(ids)))


def test_words_and_their_order_matter() -> None:
    """Different tokens, and the same tokens in another order, give other logits."""
    model = mini_lm(3, shape=_SMALL)
    ids = torch.tensor([[2, 7, 9, 3], [2, 9, 7, 3], [2, 8, 9, 3]])
    logits = model(ids, torch.ones_like(ids))
    assert torch.pdist(logits).min() > 1e-6


def test_pretrained_shapes_are_fixed() -> None:
    """Pretrained weights of other sizes than the published ones are refused before any fetch."""
    with pytest.raises(InputError, match=r"width 0\.5; pretrained weights exist for width 1\.0"):
        mobilenet_v2(0.5, pretrained=True)
    with pytest.raises(InputError, match="pretrained weights exist for EncoderShape"):
        mini_lm(2, pretrained=True, shape=_SMALL)
