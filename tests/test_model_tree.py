"""Blocks and heads of module trees of several makes."""

from __future__ import annotations

from torch import nn

from pockengine.model_tree import blocks, head_names
from tests.oracles import ConvNet, Encoder, InvertedBlock, TiedMlp


class Pair(nn.Sequential):
    """A convolution and its activation, as a subclass of Sequential."""

    def __init__(self, width: int) -> None:
        super().__init__(nn.Conv2d(width, width, 1), nn.ReLU())


class Unit(nn.Module):
    """A block that holds pairs in a container of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(Pair(4), Pair(4))


def test_blocks_of_the_examples() -> None:
    """Inverted blocks, encoder layers, and layers where nothing repeats."""
    assert [type(block) for block in blocks(ConvNet())] == [InvertedBlock] * 3
    encoder = Encoder()
    assert blocks(encoder) == list(encoder.layers)
    assert len(blocks(TiedMlp())) == 5


def test_outer_blocks_win_over_what_repeats_inside() -> None:
    """The pairs are more than the units, but the units hold them."""
    model = nn.Sequential(Pair(4), *(Unit() for _ in range(3)), Pair(4))
    assert [type(block) for block in blocks(model)] == [Unit] * 3


def test_stages_are_looked_through() -> None:
    """Blocks in several containers, as in a ResNet, are counted together."""
    model = nn.Module()
    model.first = nn.Sequential(Unit(), Unit())
    model.second = nn.Sequential(Unit(), Unit(), Unit())
    assert len(blocks(model)) == 5


def test_head_is_the_last_linear_layer() -> None:
    """None where the model has no linear layer."""
    assert head_names(Encoder()) == ["classifier.weight", "classifier.bias"]
    assert head_names(Pair(4)) == []
