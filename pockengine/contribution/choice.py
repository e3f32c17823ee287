"""What may be chosen of a model's layers, and the scheme that a choice stands for.

As in the Tiny Training Engine's search: the biases of the last k layers, and of some weights a part
of their input channels. The head, which a new task always needs, is updated by every choice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

from pockengine.contribution.layers import Layer
from pockengine.scheme import Scheme

RATIOS = (0.125, 0.25, 0.5, 1.0)
"""Parts of a weight's input channels that are tried."""


@dataclass(frozen=True, slots=True)
class Choice:
    """The biases of the last ``biases`` layers, and parts of weights by index of their layer.

    The head does not count as a layer. A weight does not need the biases of its own layer.
    """

    biases: int
    weights: Mapping[int, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        ordered = dict(sorted(self.weights.items()))
        object.__setattr__(self, "weights", MappingProxyType(ordered))

    def __hash__(self) -> int:
        return hash((self.biases, tuple(self.weights.items())))

    def first(self, layers: int) -> int:
        """Index of the first layer that is updated; ``layers`` where only the head is."""
        return min([layers - self.biases, *self.weights])

    def scheme(self, layers: Sequence[Layer], head: Sequence[str]) -> Scheme:
        """The scheme by parameter names.

        Args:
            layers: of the model in the order of the forward pass, without the head.
            head: canonical names of the head's parameters.
        """
        chosen = layers[len(layers) - self.biases :]
        biases = dict.fromkeys([name for layer in chosen for name in layer.biases], 1.0)
        weights = {layers[index].weight: part for index, part in self.weights.items()}
        return Scheme({**biases, **weights, **dict.fromkeys(head, 1.0)})
