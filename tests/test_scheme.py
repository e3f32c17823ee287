"""Schemes: names, fractions, rules and JSON."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from pockengine.errors import SchemeError
from pockengine.scheme import BiasOnly, Channels, Full, LastBlocks, Rule, Scheme
from tests.oracles import ConvNet, Encoder, TiedMlp


def test_is_a_mapping_that_hashes_by_content() -> None:
    """Equal tables are equal schemes."""
    scheme = Scheme({"a": 1, "b": 0.5})
    assert dict(scheme) == {"a": 1.0, "b": 0.5}
    assert {scheme: 1}[Scheme({"b": 0.5, "a": 1.0})] == 1


@pytest.mark.parametrize("fraction", [0, -0.5, 1.5, float("nan"), True, "half"])
def test_fraction_outside_its_range_is_refused(fraction: float) -> None:
    """A fraction is a number greater than 0 and at most 1."""
    with pytest.raises(SchemeError, match=r"'head\.weight': fraction"):
        Scheme({"head.weight": fraction})


def test_unknown_name_suggests_near_ones() -> None:
    """A misspelt name is an error that names what was perhaps meant."""
    with pytest.raises(SchemeError, match=r"no such parameter.*Did you mean head\.weight"):
        Scheme({"head.wieght": 1.0}).resolve(ConvNet())


def test_buffer_and_integer_are_refused() -> None:
    """Neither a buffer nor an integer parameter can be trained."""
    model = ConvNet()
    model.steps = nn.Parameter(torch.zeros(2, dtype=torch.int64), requires_grad=False)
    with pytest.raises(SchemeError, match="a buffer"):
        Scheme({"stem.1.running_mean": 1.0}).resolve(model)
    with pytest.raises(SchemeError, match=r"dtype torch\.int64"):
        Scheme({"steps": 1.0}).resolve(model)


@pytest.mark.parametrize("name", ["head.bias", "stem.1.weight"])
def test_part_of_something_without_channels_is_refused(name: str) -> None:
    """A fraction below 1 needs the weight of a convolution or linear layer."""
    with pytest.raises(SchemeError, match="input channels"):
        Scheme({name: 0.5}).resolve(ConvNet())


def test_nothing_to_update_is_refused() -> None:
    """A scheme that trains nothing is an error, however it came about."""
    model = ConvNet().requires_grad_(False)
    with pytest.raises(SchemeError, match="no parameter to update"):
        Scheme.from_requires_grad(model).resolve(model)
    with pytest.raises(SchemeError, match="no parameter to update"):
        Scheme.bias_only(head=False).resolve(nn.Linear(2, 2, bias=False))


def test_tied_parameter_has_its_first_name() -> None:
    """Either name of a tied parameter is accepted; two different fractions are not."""
    model = TiedMlp()
    assert dict(Scheme({"third.weight": 0.5}).resolve(model)) == {"second.weight": 0.5}
    with pytest.raises(SchemeError, match="tied"):
        Scheme({"third.weight": 0.5, "second.weight": 1.0}).resolve(model)


def test_channels_are_the_leading_input_channels() -> None:
    """A part is max(1, round(r C)) input channels; of a depthwise weight, channels."""
    model = ConvNet()
    scheme = Scheme(
        {
            "blocks.0.layers.0.weight": 0.01,
            "blocks.0.layers.3.weight": 0.25,
            "grouped.weight": 0.5,
            "stem.0.weight": 0.9,
            "head.weight": 0.25,
            "head.bias": 1.0,
        }
    )
    assert scheme.channels(model) == {
        "blocks.0.layers.0.weight": Channels(1, 1),
        "blocks.0.layers.3.weight": Channels(0, 4),
        "grouped.weight": Channels(1, 3),
        "head.weight": Channels(1, 4),
    }


def test_channels_of_transposed_and_multiplied_convolutions() -> None:
    """Axis 0 of a transposed weight; a depthwise channel may have several outputs."""
    model = nn.Sequential(nn.ConvTranspose2d(8, 4, 2), nn.Conv2d(4, 12, 3, groups=4))
    found = Scheme({"0.weight": 0.25, "1.weight": 0.5}).channels(model)
    assert found == {"0.weight": Channels(0, 2), "1.weight": Channels(0, 6)}


def test_full_takes_every_parameter_once() -> None:
    """Full updates all parameters under their first names, whatever requires_grad says."""
    model = TiedMlp()
    assert set(Scheme.full().resolve(model)) == {name for name, _ in model.named_parameters()}


def test_from_requires_grad_takes_what_the_model_trains() -> None:
    """A parameter that the model froze is left out."""
    assert "first.bias" not in Scheme.from_requires_grad(TiedMlp())


def test_bias_only_takes_shifts_and_the_head() -> None:
    """Biases and normalization shifts; the last linear layer whole unless told otherwise."""
    model = ConvNet()
    found = Scheme.bias_only().resolve(model)
    assert [name for name in found if name.endswith("weight")] == ["head.weight"]
    assert len(found) == 10 + 1 + 2  # BatchNorms, the grouped convolution, the head
    last = Scheme.bias_only(last=2, head=False).resolve(model)
    assert list(last) == ["grouped.bias", "head.bias"]


def test_bias_only_does_not_count_the_head() -> None:
    """``last`` counts modules with a bias ahead of the head."""
    found = Scheme.bias_only(last=2).resolve(ConvNet())
    assert list(found) == ["blocks.2.layers.7.bias", "grouped.bias", "head.weight", "head.bias"]


@pytest.mark.parametrize(
    ("model", "count", "first"),
    [
        (ConvNet(), 2, "blocks.1.layers.0.weight"),
        (Encoder(), 1, "layers.2.query.weight"),
        (TiedMlp(), 2, "last.weight"),
        (nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 2)), 1, "2.weight"),
    ],
)
def test_last_blocks_takes_all_from_a_block_on(model: nn.Module, count: int, first: str) -> None:
    """The last blocks and everything registered after them."""
    names = [name for name, _ in model.named_parameters()]
    assert list(Scheme.last_blocks(count).resolve(model)) == names[names.index(first) :]


def test_more_blocks_than_there_are_is_refused() -> None:
    """The error says how many there are."""
    with pytest.raises(SchemeError, match="a model of 3 blocks"):
        Scheme.last_blocks(4).resolve(ConvNet())
    with pytest.raises(SchemeError, match="at least 1"):
        Scheme.last_blocks(0)


@pytest.mark.parametrize(
    "scheme", [Scheme({"a": 1, "b": 0.125}), Full(), BiasOnly(3, head=False), LastBlocks(4)]
)
def test_json_gives_back_the_same(scheme: Scheme | Rule, tmp_path: Path) -> None:
    """What is saved is loaded."""
    scheme.save(tmp_path / "scheme.json")
    assert Scheme.load(tmp_path / "scheme.json") == scheme


@pytest.mark.parametrize(
    "source",
    [
        "nonsense",
        "[]",
        '{"format": "pockengine.scheme", "version": 2, "fractions": {}}',
        '{"format": "pockengine.scheme", "version": 1}',
        '{"format": "pockengine.scheme", "version": 1, "rule": {"kind": "best"}}',
        '{"format": "pockengine.scheme", "version": 1, "rule": {"kind": "full", "last": 2}}',
    ],
)
def test_foreign_json_is_refused(source: str) -> None:
    """Anything but a document of this version is an error."""
    with pytest.raises(SchemeError, match="scheme JSON"):
        Scheme.from_json(source)
