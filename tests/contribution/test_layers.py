"""Layers are found from the graph, with their biases, blocks and roles."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn

from pockengine.contribution.layers import Layer, find_layers
from pockengine.errors import InputError
from pockengine.frontend.capture import capture
from pockengine.tasks import MobileNetV2, small_encoder
from tests.zoo import ZOO


def found(model: nn.Module, inputs: object) -> tuple[Sequence[Layer], tuple[str, ...]]:
    """The layers of a classifier of two samples."""
    captured = capture(model.eval(), (inputs, torch.tensor([0, 1])), "cross_entropy")
    return find_layers(captured.graph, model)


def of_zoo(name: str) -> tuple[Sequence[Layer], tuple[str, ...]]:
    """The layers of an exhibit."""
    size = ZOO[name].tiny
    model = size.model().eval()
    return find_layers(capture(model, size.batch(), ZOO[name].loss).graph, model)


def test_inverted_blocks() -> None:
    """MobileNetV2 has 52 convolutions; each has the shift of its BatchNorm."""
    layers, head = found(MobileNetV2(0.25, 3), torch.zeros(2, 3, 32, 32))
    assert len(layers) == 52
    assert head == ("classifier.1.weight", "classifier.1.bias")
    roles = [layer.role for layer in layers]
    assert roles[:6] == [
        "convolution",
        *("depthwise", "second point-wise"),
        *("first point-wise", "depthwise", "second point-wise"),
    ]
    assert roles.count("first point-wise") == 16
    assert roles[-1] == "point-wise"
    assert layers[3].name == "features.2.conv.0.0"
    assert layers[3].biases == ("features.2.conv.0.1.bias",)
    assert layers[3].block == "features.2"
    assert layers[0].block == ""


def test_an_encoder() -> None:
    """Attention and feed-forward layers have their names; LayerNorms belong to what they follow."""
    tokens = torch.ones(2, 8, dtype=torch.long)
    layers, _ = found(
        small_encoder(2, 50), {"input_ids": tokens, "attention_mask": torch.ones_like(tokens)}
    )
    roles = ["query", "key", "value", "attention output", "first FFN", "second FFN"]
    assert [layer.role for layer in layers] == roles * 2
    assert layers[5].biases == (
        "encoder.layer.0.output.dense.bias",
        "encoder.layer.0.output.LayerNorm.bias",
    )
    assert layers[0].biases[0] == "embeddings.LayerNorm.bias"


@pytest.mark.parametrize(
    ("name", "roles"),
    [
        ("llama", {"query", "key", "value", "attention output", "first FFN", "second FFN"}),
        ("vit", {"convolution", "query, key and value", "attention output"}),
        ("gru", {"linear"}),
        ("squeezenet", {"convolution", "point-wise"}),
    ],
)
def test_other_models(name: str, roles: set[str]) -> None:
    """Roles come from the flow of data, whatever the model calls its layers."""
    layers, _ = of_zoo(name)
    assert roles <= {layer.role for layer in layers}


def test_gates_are_first_layers_of_their_network() -> None:
    """A gate beside the layer that widens is one of the first ones, too."""
    layers, _ = of_zoo("llama")
    assert [layer.role for layer in layers[4:7]] == ["first FFN", "first FFN", "second FFN"]


def test_the_head_may_be_a_convolution() -> None:
    """Without a linear layer, the last layer is the head, with its bias."""
    layers, head = of_zoo("squeezenet")
    assert head == ("classifier.weight", "classifier.bias")
    assert all(len(layer.biases) == 1 for layer in layers)


def test_every_bias_has_one_layer() -> None:
    """The biases of all layers and of the head are all biases of the model."""
    model = ZOO["bert"].tiny.model().eval()
    layers, head = find_layers(
        capture(model, ZOO["bert"].tiny.batch(), ZOO["bert"].loss).graph, model
    )
    listed = [*head, *(name for layer in layers for name in layer.biases)]
    biases = [name for name, _ in model.named_parameters() if name.endswith("bias")]
    assert sorted(name for name in listed if name.endswith("bias")) == sorted(biases)


def test_weights_used_twice_are_one_layer() -> None:
    """The first use of a tied weight counts."""

    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inside = nn.Linear(4, 4)
            self.head = nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            found: Tensor = self.head(torch.tanh(self.inside(torch.tanh(self.inside(x)))))
            return found

    layers, _ = found(Twice(), torch.zeros(2, 4))
    assert [layer.name for layer in layers] == ["inside"]


def test_a_head_alone_is_refused() -> None:
    """There is nothing to choose where only a head is."""
    with pytest.raises(InputError, match="none is ahead of the head"):
        found(nn.Linear(4, 2), torch.zeros(2, 4))


def test_plain_values() -> None:
    """A layer comes back from its plain values."""
    layers, _ = of_zoo("squeezenet")
    assert Layer.from_dict(layers[0].to_dict()) == layers[0]
