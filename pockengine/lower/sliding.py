"""How kernels over sliding windows (NHWC) are cut into register tiles, bands and channel tiles.

Plain arithmetic without TVM, because the plan needs a kernel's extent when its code is already
cached.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import Generic, TypeVar

from pockengine.lower.window import Adaptive, Axis, Sweep

UNROLLED_TAPS = 12
"""Most taps of a window whose code is written out; more are looped over by row."""

_GROUP = 8
_BAND_BYTES = 1 << 17
_BAND_PIXELS = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelGroups:
    """Channel tiles, each the lanes of a vector, in groups that a unit of work goes over together.

    The lanes that are left after the last full tile are a group of their own.

    Attributes:
        channels: channels.
        lanes: channels of a full tile.
        most: most full tiles of a group.
    """

    channels: int
    lanes: int
    most: int

    @property
    def full(self) -> int:
        """Full tiles."""
        return self.channels // self.lanes

    @property
    def tail(self) -> int:
        """Lanes of the last, narrower tile; 0 if there is none."""
        return self.channels % self.lanes

    @property
    def size(self) -> int:
        """Full tiles of a group; groups are as equal as can be, the last may be smaller."""
        return max(1, ceil(self.full / max(1, ceil(self.full / self.most))))

    @property
    def count(self) -> int:
        """Groups."""
        return ceil(self.full / self.size) + (self.tail > 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Gather:
    """A kernel in which every output pixel reduces the input pixels of its window.

    Attributes:
        batch: images.
        channels: channels, the innermost axis.
        rows: what an output row reads.
        columns: what an output column reads.
        lanes: channels of a full tile.
        width: output columns of a register tile.
    """

    batch: int
    channels: int
    rows: Axis
    columns: Axis
    lanes: int
    width: int

    @property
    def unrolled(self) -> bool:
        """Whether the code of all taps is written out."""
        few = _most_taps(self.rows) * _most_taps(self.columns) <= UNROLLED_TAPS
        return few or not self.rows.is_regular

    @property
    def groups(self) -> ChannelGroups:
        """The channel tiles."""
        return ChannelGroups(channels=self.channels, lanes=self.lanes, most=_GROUP)

    @property
    def band(self) -> int:
        """Row periods of a band: enough pixels for weights to pay, few enough to stay in cache."""
        row_bytes = self.columns.inputs * self.channels * 4 * self.rows.stride
        enough = ceil(_BAND_PIXELS / self.columns.outputs / self.rows.period)
        return min(max(_BAND_BYTES // row_bytes, enough, 1), self.rows.periods())

    @property
    def bands(self) -> int:
        """Bands of an image."""
        return ceil(self.rows.periods() / self.band)

    @property
    def extent(self) -> int:
        """Iterations of the kernel's range: image, band, channel group, the group fastest."""
        return self.batch * self.bands * self.groups.count


_Windows = TypeVar("_Windows", Sweep, Sweep | Adaptive)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sliding(Generic[_Windows]):
    """A window that slides over images, and the processor's vectors.

    Attributes:
        batch: images.
        channels: channels.
        rows: the window's sweep over the height.
        columns: the window's sweep over the width.
        lanes: float32 lanes of a vector; the last channels get as many as are left.
        registers: vector registers.
    """

    batch: int
    channels: int
    rows: _Windows
    columns: _Windows
    lanes: int
    registers: int = 32

    @property
    def width(self) -> int:
        """Output columns of a register tile: fewer where all taps are unrolled, for less code."""
        taps = self.rows.kernel * self.columns.kernel
        return max(1, self.registers // (8 if taps <= UNROLLED_TAPS else 4))

    def forward(self) -> Gather:
        """Output pixels that read input pixels."""
        return self._gather(self.rows.forward(), self.columns.forward())

    def gradient(self) -> Gather:
        """Input pixels that read the gradients of the windows they are in."""
        return self._gather(self.rows.gradient(), self.columns.gradient())

    def _gather(self, rows: Axis, columns: Axis) -> Gather:
        return Gather(
            batch=self.batch,
            channels=self.channels,
            rows=rows,
            columns=columns,
            lanes=self.lanes,
            width=self.width,
        )


class Depthwise(Sliding[Sweep]):
    """A depthwise convolution with channel multiplier 1; see `pockengine.lower.depthwise`."""

    __slots__ = ()

    @property
    def forward_extent(self) -> int:
        """Range of ``forward``."""
        return self.forward().extent

    @property
    def input_gradient_extent(self) -> int:
        """Range of ``input_gradient``."""
        return self.gradient().extent

    @property
    def weight_gradient_extent(self) -> int:
        """Range of ``weight_gradient``: channel groups."""
        return self.weight_groups.count

    @property
    def weight_groups(self) -> ChannelGroups:
        """The channel tiles of the weights' gradient: at least two groups, for two threads."""
        most = min(_GROUP, ceil(self.channels // self.lanes / 2))
        return ChannelGroups(channels=self.channels, lanes=self.lanes, most=max(1, most))


class Pool(Sliding[Sweep | Adaptive]):
    """A pooling; see `pockengine.lower.pooling`.

    ``windows`` of the sweeps is the size of the output, so ceil_mode is only a larger number there.
    """

    __slots__ = ()

    @property
    def forward_extent(self) -> int:
        """Range of ``max_pool`` and ``average_pool``."""
        return self.forward().extent

    @property
    def gradient_extent(self) -> int:
        """Range of ``max_pool_gradient`` and ``average_pool_gradient``."""
        return self.gradient().extent


def _most_taps(axis: Axis) -> int:
    return max(len(taps) for taps in axis.phases)
