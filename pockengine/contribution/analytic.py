"""The analytic memory of a scheme, as the Tiny Training Engine counts it without compiling.

Source: Lin et al., "On-device training under 256 KB of memory" (NeurIPS 2022), section 3.2, with
what its release counts: one image; the input of the classifier, but not the classifier itself,
which is small and always updated.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from pockengine.errors import InputError


@dataclass(frozen=True, slots=True, kw_only=True)
class ConvLayer:
    """A row of a layer table: a square convolution in the order of the forward pass.

    Args:
        name: names the layer in a scheme: ``<name>.weight`` and ``<name>.bias``.
        cin: input channels.
        cout: output channels.
        k: rows and columns of the kernel.
        groups: channel groups; ``cin`` of them make it depthwise.
        hin: rows and columns of the input.
        hout: rows and columns of the output.
    """

    name: str
    cin: int
    cout: int
    k: int
    groups: int
    hin: int
    hout: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Widths:
    """Bits an element takes; the defaults are those of int8 training."""

    activation_bits: int = 8
    mask_bits: int = 1
    weight_bits: int = 8
    bias_bits: int = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class AnalyticMemory:
    """What a scheme keeps for and during the backward pass.

    Args:
        activation_bytes: inputs of updated weights (only the updated channels) and of the
            classifier.
        mask_bytes: truncation masks of the layers that the backward pass goes through.
        weight_bytes: updated weights.
        bias_bytes: updated biases.
    """

    activation_bytes: int
    mask_bytes: int
    weight_bytes: int
    bias_bytes: int

    @property
    def total_bytes(self) -> int:
        """The sum of all four."""
        return self.activation_bytes + self.mask_bytes + self.weight_bytes + self.bias_bytes


def read_layers(path: str | Path) -> tuple[ConvLayer, ...]:
    """The layers of a CSV table.

    Its columns are idx, cin, cout, k, groups, hin and hout; others are ignored.

    Raises:
        InputError: a column is missing, or a cell is no whole number.
    """
    with Path(path).open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return tuple(_layer(str(path), number, row) for number, row in enumerate(rows, start=2))


def _layer(path: str, line: int, row: Mapping[str, str]) -> ConvLayer:
    columns = [field.name for field in fields(ConvLayer) if field.name != "name"]
    try:
        return ConvLayer(name=row["idx"], **{column: int(row[column]) for column in columns})
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            where=f"{path}, line {line}",
            found=f"{type(error).__name__}: {error}",
            needed=f"columns idx, {', '.join(columns)} with whole numbers",
            remedy="Give one row a convolution, in the order of the forward pass",
        ) from error


def analytic_memory(
    layers: Sequence[ConvLayer], scheme: Mapping[str, float], widths: Widths | None = None
) -> AnalyticMemory:
    """The memory of a scheme over a layer table, for one image.

    Truncation masks (where int8 outputs were clamped) are needed by every layer whose output's
    gradient is computed: from the first updated layer to the end.

    Args:
        layers: convolutions in the order of the forward pass; a linear classifier follows them.
        scheme: fraction by ``<name>.weight`` and ``<name>.bias``; of a weight, r counts
            ``max(1, round(r C))`` input channels.
        widths: bits of an element.

    Raises:
        InputError: the scheme names something that is not in the table, or a part of a grouped
            weight.
    """
    bits = widths or Widths()
    _check_names(layers, scheme)
    updated = [_is_updated(layer, scheme) for layer in layers]
    passed = layers[updated.index(True) :] if True in updated else ()
    chosen = [(x, _updated_channels(x, scheme.get(f"{x.name}.weight", 0.0))) for x in layers]
    inputs = layers[-1].cout + sum(channels * x.hin**2 for x, channels in chosen)
    weights = sum(channels * _weights_of_channel(x) for x, channels in chosen)
    biases = sum(x.cout for x in layers if f"{x.name}.bias" in scheme)
    return AnalyticMemory(
        activation_bytes=_bytes(inputs, bits.activation_bits),
        mask_bytes=sum(_bytes(x.cout * x.hout**2, bits.mask_bits) for x in passed),
        weight_bytes=_bytes(weights, bits.weight_bits),
        bias_bytes=_bytes(biases, bits.bias_bits),
    )


def analytic_bytes(layers: Sequence[ConvLayer], scheme: Mapping[str, float]) -> int:
    """The total of ``analytic_memory`` in int8 training."""
    return analytic_memory(layers, scheme).total_bytes


def last_biases(layers: Sequence[ConvLayer], count: int) -> dict[str, float]:
    """Scheme entries of the biases of the last ``count`` layers."""
    return {f"{layer.name}.bias": 1.0 for layer in layers[len(layers) - count :]}


def _bytes(elements: int, bits: int) -> int:
    return -(-elements * bits // 8)


def _is_updated(layer: ConvLayer, scheme: Mapping[str, float]) -> bool:
    return f"{layer.name}.weight" in scheme or f"{layer.name}.bias" in scheme


def _updated_channels(layer: ConvLayer, fraction: float) -> int:
    return max(1, round(fraction * layer.cin)) if fraction > 0 else 0


def _weights_of_channel(layer: ConvLayer) -> int:
    """Weights that one input channel takes part in."""
    return layer.cout // layer.groups * layer.k**2


def _check_names(layers: Sequence[ConvLayer], scheme: Mapping[str, float]) -> None:
    by_name = {layer.name: layer for layer in layers}
    for name, fraction in scheme.items():
        owner, _, leaf = name.rpartition(".")
        layer = by_name.get(owner)
        if layer is None or leaf not in ("weight", "bias"):
            raise InputError(
                where=f"scheme entry {name!r}",
                found="no such layer in the table",
                needed="<idx>.weight or <idx>.bias",
                remedy=f"The table has layers {layers[0].name} to {layers[-1].name}",
            )
        grouped = 1 < layer.groups < layer.cin
        if grouped and fraction < 1 and leaf == "weight":
            raise InputError(
                where=f"scheme entry {name!r}",
                found=f"fraction {fraction} of a convolution of {layer.groups} groups",
                needed="1, as a part of the input channels is not a part of each group",
                remedy="Update it as a whole or not at all",
            )
