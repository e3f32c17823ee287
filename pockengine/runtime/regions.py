"""Tensors in and out of a trainer's regions: canonical outside, in storage order inside."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pockengine.ir.types import Region
from pockengine.plan.memory import Place, Plan
from pockengine.runtime.library import allocate


class Regions:
    """The memory of a trainer and the tensors that lie in it.

    Args:
        plan: sizes and places.
        alignment: of the first byte of each region.
    """

    def __init__(self, plan: Plan, alignment: int) -> None:
        self.arrays: tuple[NDArray[np.uint8], ...] = tuple(
            allocate(nbytes, alignment) for nbytes in plan.region_bytes
        )
        self._places = plan.places

    def __contains__(self, name: object) -> bool:
        return name in self._places

    def names(self, *regions: Region) -> list[str]:
        """Canonical names of what lies in some regions."""
        return [name for name, place in self._places.items() if place.region in regions]

    def view(self, name: str) -> Tensor:
        """A tensor in its canonical shape over the region's bytes: writing to it writes there."""
        return _view(self.arrays, self._places[name])

    def read(self, name: str) -> Tensor:
        """A dense copy of a tensor."""
        return self.view(name).clone(memory_format=torch.contiguous_format)

    def write(
        self, tensors: Mapping[str, Tensor], done: Callable[[str], None] | None = None
    ) -> None:
        """Copy tensors to their places; each has the shape of its place.

        Args:
            tensors: by name.
            done: is told the name of each that has been copied.
        """
        with torch.no_grad():
            for name, tensor in tensors.items():
                self.view(name).copy_(tensor.detach())
                if done is not None:
                    done(name)


def _view(arrays: Sequence[NDArray[np.uint8]], place: Place) -> Tensor:
    kind = place.type
    if kind.size == 0:
        return torch.empty(kind.shape, dtype=kind.dtype.torch)
    data = arrays[place.region][place.offset : place.offset + kind.nbytes]
    flat = torch.from_numpy(data).view(kind.dtype.torch)
    return flat.as_strided(kind.shape, kind.strides)
