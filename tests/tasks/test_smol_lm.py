"""SmolLM2's definition: positions, causality, GGUF's row order, missing packages."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest
import torch
from torch import Tensor

from pockengine.errors import InputError
from pockengine.tasks import DecoderShape, smol_lm
from pockengine.tasks.smol_lm import _half_split, _reader, _rotated, _rotation

_SHAPE = DecoderShape(
    layers=2, width=32, heads=4, key_heads=2, intermediate=48, vocabulary=50, rope_theta=100.0
)


def test_no_token_sees_a_later_one() -> None:
    """Another last token changes the last logits only."""
    torch.manual_seed(0)
    model = smol_lm(shape=_SHAPE).eval()
    ids = torch.randint(0, 50, (2, 7))
    other = ids.clone()
    other[:, -1] = (other[:, -1] + 1) % 50
    with torch.no_grad():
        before, after = model(ids), model(other)
    assert torch.equal(before[:, :-1], after[:, :-1])
    assert not torch.allclose(before[:, -1], after[:, -1])


def test_attention_sees_distances_only() -> None:
    """Rotated products of a query and a key depend on how far apart they are."""
    torch.manual_seed(0)
    query, key = torch.randn(1, 1, 1, 8).expand(1, 1, 6, 8), torch.randn(1, 1, 1, 8)
    rotation = _rotation(_SHAPE, 6)
    products = (_rotated(query, rotation) @ _rotated(key.expand(1, 1, 6, 8), rotation).mT)[0, 0]
    for distance in range(-5, 6):
        diagonal = products.diagonal(distance)
        torch.testing.assert_close(diagonal, diagonal[:1].expand_as(diagonal))
    assert products.diagonal(0)[0] != products.diagonal(1)[0]


def test_row_order_of_the_file() -> None:
    """Turning neighbours as the file's rows mean it equals turning halves of the reordered rows."""
    torch.manual_seed(0)
    weight, states = torch.randn(32, 32), torch.randn(1, 5, 32)
    rotation = _rotation(_SHAPE, 5)

    def heads(rows: Tensor) -> Tensor:
        return (states @ rows.T).unflatten(2, (4, 8)).transpose(1, 2)

    halves = _rotated(heads(_half_split(weight, 8)), rotation)
    cosines, sines = (half[:, :4] for half in rotation)
    even, odd = heads(weight)[..., 0::2], heads(weight)[..., 1::2]
    neighbours = torch.cat((even * cosines - odd * sines, odd * cosines + even * sines), dim=3)
    torch.testing.assert_close(halves, neighbours)


def test_tied_and_named_as_hugging_face_does() -> None:
    """One table for tokens in and out; names that LlamaForCausalLM has too."""
    model = smol_lm(shape=_SHAPE)
    assert model.lm_head.weight is model.model.embed_tokens.weight
    names = set(model.state_dict())
    assert {"lm_head.weight", "model.embed_tokens.weight", "model.norm.weight"} < names
    assert "model.layers.1.self_attn.k_proj.weight" in names
    assert model.state_dict()["model.layers.1.self_attn.k_proj.weight"].shape == (16, 32)


def test_pretrained_weights_have_one_shape() -> None:
    """Other sizes are refused before anything is fetched."""
    with pytest.raises(InputError, match="pretrained weights exist for DecoderShape"):
        smol_lm(pretrained=True, shape=_SHAPE)


def test_missing_package(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is named, with the command that installs it."""

    def missing(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(InputError, match=r"gguf is not installed.*pip install gguf tokenizers"):
        _reader(Path("anything.gguf"))
