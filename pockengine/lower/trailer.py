"""What follows a kernel's code in a payload of the cache: how its range may be cut.

On its own, so that reading a cached kernel imports neither TVM nor an emitter.
"""

from __future__ import annotations

import struct

TRAILER = struct.Struct("<qq")
"""The extent of a kernel's range and its grain (see ``lower.work.Work``)."""


def read_trailer(payload: bytes) -> tuple[int, int]:
    """The extent and the grain of a kernel, from its payload in the cache."""
    extent, grain = TRAILER.unpack(payload[-TRAILER.size :])
    return extent, grain
