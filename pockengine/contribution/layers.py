"""The layers of a captured model, found from its graph: where a scheme may update something."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Self


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """A convolution or a product with a weight, and the biases that shift its output.

    Args:
        name: path of the module that owns the weight.
        weight: canonical name of the weight.
        biases: canonical names of its own bias and of the shifts of normalizations after it,
            up to the next layer.
        role: what it does in the network, such as "first point-wise", "query" or "first FFN".
        block: path of the repeated block that it belongs to; empty outside of any.
        shape: of the weight, as PyTorch stores it.
        sliceable: whether a part of its input channels may be updated alone.
    """

    name: str
    weight: str
    biases: tuple[str, ...]
    role: str
    block: str
    shape: tuple[int, ...]
    sliceable: bool

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """The layer that ``to_dict`` gave."""
        lists = {"biases": tuple(values["biases"]), "shape": tuple(values["shape"])}
        return cls(**{**values, **lists})
