"""The analytic memory model against the published MCUNet schemes."""

from __future__ import annotations

from pathlib import Path

import pytest

from pockengine.contribution.analytic import (
    ConvLayer,
    Widths,
    analytic_bytes,
    analytic_memory,
    last_biases,
    read_layers,
)
from pockengine.errors import InputError

TABLE = Path(__file__).parents[1] / "data" / "mcunet_5fps_convs.csv"


@pytest.mark.parametrize(
    ("biases", "weights", "published_bytes"),
    [
        (20, {24: 0.25, 27: 0.5, 30: 0.5}, 50_944),
        (21, {21: 1, 24: 1, 27: 0.5, 30: 1}, 76_608),
        (22, {21: 1, 24: 1, 27: 1, 30: 1, 36: 0.125, 39: 0.25}, 102_240),
        (24, {21: 0.25, 24: 1, 27: 1, 30: 1, 33: 0.5, 39: 0.5}, 127_968),
        (23, {21: 1, 24: 1, 27: 1, 30: 1, 36: 1, 39: 0.5}, 151_968),
    ],
)
def test_published_schemes_cost_their_published_bytes(
    biases: int, weights: dict[int, float], published_bytes: int
) -> None:
    """The five MCUNet schemes cost exactly the bytes behind their labels."""
    layers = read_layers(TABLE)
    scheme = last_biases(layers, biases) | {f"{i}.weight": r for i, r in weights.items()}
    assert analytic_bytes(layers, scheme) == published_bytes


def test_updating_the_last_twelve_layers_costs_the_published_memory() -> None:
    """MCUNet's last 12 layers cost 448.0 KiB, activations and masks included."""
    layers = read_layers(TABLE)
    scheme = last_biases(layers, 12) | {f"{x.name}.weight": 1.0 for x in layers[-12:]}
    assert round(analytic_bytes(layers, scheme) / 1024, 1) == 448.0


def test_updating_everything_counts_every_parameter() -> None:
    """MCUNet's convolutions have 463,216 weights, a byte each."""
    layers = read_layers(TABLE)
    scheme = {f"{layer.name}.weight": 1.0 for layer in layers}
    assert analytic_memory(layers, scheme).weight_bytes == 463_216


def test_depthwise_counts_its_channels() -> None:
    """Half of a depthwise weight takes k * k numbers a channel and half of the input."""
    layer = ConvLayer(name="d", cin=8, cout=8, k=3, groups=8, hin=4, hout=4)
    found = analytic_memory([layer], {"d.weight": 0.5})
    assert found.weight_bytes == 4 * 9
    assert found.activation_bytes == 4 * 16 + 8
    assert found.mask_bytes == 8 * 16 // 8


def test_float_training_scales_the_bytes() -> None:
    """In float32 the updated weights take four times the bytes of int8."""
    layers, scheme = read_layers(TABLE), {"24.weight": 0.5}
    float32 = Widths(activation_bits=32, weight_bits=32)
    assert (
        analytic_memory(layers, scheme, float32).weight_bytes
        == 4 * analytic_memory(layers, scheme).weight_bytes
    )


def test_unknown_layer_is_refused() -> None:
    """A scheme entry outside the table is an error that names it."""
    with pytest.raises(InputError, match=r"'99\.weight'.*layers 0 to 41"):
        analytic_bytes(read_layers(TABLE), {"99.weight": 1.0})


def test_table_without_numbers_is_refused(tmp_path: Path) -> None:
    """A cell that is no whole number is an error that names the line."""
    path = tmp_path / "layers.csv"
    path.write_text("idx,cin,cout,k,groups,hin,hout\n0,3,many,3,1,8,8\n", encoding="utf-8")
    with pytest.raises(InputError, match="line 2"):
        read_layers(path)
