"""A compiled trainer and its first values, as another machine gets them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pockengine.lower.program import object_bytes
from pockengine.runtime.descriptor import Descriptor
from pockengine.targets import Target


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """All that a machine needs to go on from here.

    Args:
        target: the machine.
        descriptor: the tables.
        objects: files in the cache of the kernels' objects, in the descriptor's order.
        const: the region's bytes.
        param: the region's bytes.
        state: the region's bytes.
    """

    target: Target
    descriptor: Descriptor
    objects: Sequence[Path]
    const: NDArray[np.uint8]
    param: NDArray[np.uint8]
    state: NDArray[np.uint8]

    def kernel_objects(self) -> list[bytes]:
        """The kernels' object files, in the descriptor's order.

        Raises:
            BuildError: one is missing from the cache or damaged.
        """
        return [object_bytes(path) for path in self.objects]

    def write_objects(self, folder: Path) -> list[Path]:
        """Write the kernels' object files as ``<kernel>.o``; BuildError as ``kernel_objects``."""
        paths = [folder / f"{name}.o" for name in self.descriptor.kernels]
        for path, content in zip(paths, self.kernel_objects(), strict=True):
            path.write_bytes(content)
        return paths


Inputs = Sequence[Sequence[NDArray[Any]]]
"""For each step the inputs of ``step``."""
