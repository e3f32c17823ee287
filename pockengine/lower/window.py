"""Sliding windows along one axis: which elements an output reads, exactly, borders included.

Plain arithmetic without TVM, because the plan needs a kernel's extent when its code is already
cached. A forward convolution and its input gradient are the same thing here, a gather: output
``period q + phase`` reads elements ``stride q + offset``, one per tap of its phase. Forward, the
period is 1; for the gradient of a stride it is the stride, and each phase has its own taps.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from math import ceil, gcd


@dataclass(frozen=True, slots=True, kw_only=True)
class Sweep:
    """A window that slides along one axis.

    Attributes:
        size: elements of the input.
        kernel: taps of the window.
        stride: elements between two windows.
        padding: elements ahead of the input that the first window covers.
        dilation: elements between two taps.
        windows: positions of the window, which is the size of the output.
    """

    size: int
    kernel: int
    stride: int = 1
    padding: int = 0
    dilation: int = 1
    windows: int

    def forward(self) -> Axis:
        """Window o reads elements ``stride o - padding + dilation k``."""
        taps = tuple(Tap(k, self.dilation * k - self.padding) for k in range(self.kernel))
        return Axis(
            outputs=self.windows, inputs=self.size, period=1, stride=self.stride, phases=(taps,)
        )

    def gradient(self) -> Axis:
        """Element ``stride q + phase`` reads the windows that cover it, by tap."""
        phases: list[list[Tap]] = [[] for _ in range(self.stride)]
        for k in range(self.kernel):
            for phase, taps in enumerate(phases):
                distance = phase + self.padding - self.dilation * k
                if distance % self.stride == 0:
                    taps.append(Tap(k, distance // self.stride))
        return Axis(
            outputs=self.size,
            inputs=self.windows,
            period=self.stride,
            stride=1,
            phases=tuple(tuple(taps) for taps in phases),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Adaptive:
    """Windows [floor(i size / windows), ceil((i + 1) size / windows)) along one axis.

    Attributes:
        size: elements of the input.
        windows: size of the output.
    """

    size: int
    windows: int

    @property
    def kernel(self) -> int:
        """Most taps of a window."""
        return max(len(taps) for taps in self.forward().phases)

    def forward(self) -> Axis:
        """Window o reads its elements in order."""
        phases = [
            tuple(Tap(k, at) for k, at in enumerate(_covered(i, self.size, self.windows)))
            for i in range(self._periods(self.windows))
        ]
        return self._axis(self.windows, self.size, phases)

    def gradient(self) -> Axis:
        """An element reads the windows that cover it: again adaptive, the sizes exchanged."""
        phases = [
            tuple(
                Tap(element - i * self.size // self.windows, i)
                for i in _covered(element, self.windows, self.size)
            )
            for element in range(self._periods(self.size))
        ]
        return self._axis(self.size, self.windows, phases)

    def _periods(self, extent: int) -> int:
        return extent // gcd(self.size, self.windows)

    def _axis(self, outputs: int, inputs: int, phases: list[tuple[Tap, ...]]) -> Axis:
        return Axis(
            outputs=outputs,
            inputs=inputs,
            period=self._periods(outputs),
            stride=self._periods(inputs),
            phases=tuple(phases),
        )


def _covered(index: int, size: int, windows: int) -> range:
    """The elements of an adaptive window."""
    return range(index * size // windows, -(-(index + 1) * size // windows))


@dataclass(frozen=True, slots=True)
class Tap:
    """One tap of a phase: its index in the window, and the offset of what it reads."""

    index: int
    offset: int


@dataclass(frozen=True, slots=True)
class Run:
    """Consecutive q, ``begin <= q < end``, of one phase whose valid taps are the same."""

    begin: int
    end: int
    taps: tuple[Tap, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Axis:
    """A gather along one axis; see the module.

    Attributes:
        outputs: elements that are computed.
        inputs: elements that are read.
        period: outputs that q counts.
        stride: inputs that q counts.
        phases: the taps of each of the ``period`` phases, in order. Of a convolution,
            their indices and their offsets are arithmetic progressions.
    """

    outputs: int
    inputs: int
    period: int
    stride: int
    phases: tuple[tuple[Tap, ...], ...]

    @property
    def is_regular(self) -> bool:
        """Whether all taps' indices and offsets are arithmetic progressions."""
        return all(
            len({(b.index - a.index, b.offset - a.offset) for a, b in pairwise(taps)}) <= 1
            for taps in self.phases
        )

    def periods(self) -> int:
        """The number of q."""
        return ceil(self.outputs / self.period)

    def count(self, phase: int) -> int:
        """The number of q whose output of this phase exists."""
        return max(0, ceil((self.outputs - phase) / self.period))

    def valid(self, output: int) -> tuple[Tap, ...]:
        """The taps of an output that lie inside the input."""
        at, phase = divmod(output, self.period)
        start = at * self.stride
        return tuple(t for t in self.phases[phase] if 0 <= start + t.offset < self.inputs)

    def interior(self) -> range:
        """The q all of whose phases exist and have all their taps inside."""
        offsets = [tap.offset for taps in self.phases for tap in taps]
        first = ceil(max(-min(offsets), 0) / self.stride)
        last = (self.inputs - 1 - max(offsets)) // self.stride
        return range(first, max(first, min(last + 1, self.outputs // self.period)))

    def runs(self, phase: int) -> list[Run]:
        """The q of a phase, cut where the valid taps change."""
        runs: list[Run] = []
        for q in range(self.count(phase)):
            taps = self.valid(q * self.period + phase)
            if runs and runs[-1].taps == taps:
                runs[-1] = Run(runs[-1].begin, q + 1, taps)
            else:
                runs.append(Run(q, q + 1, taps))
        return runs


@dataclass(frozen=True, slots=True)
class Piece:
    """Neighbouring outputs of a row that are computed together, ``tiles`` times one behind other.

    Attributes:
        begin: the first output of the first tile.
        width: outputs of a tile.
        tiles: 1 for outputs at a border, whose valid taps are known one by one.
        interior: whether all taps of all outputs are inside; then ``begin`` starts a period.
    """

    begin: int
    width: int
    tiles: int
    interior: bool


def pieces(axis: Axis, width: int) -> list[Piece]:
    """An axis cut into a loop of equal tiles inside and constant tiles of at most ``width`` around.

    The tiles at the borders take in as much of the interior as makes them full.
    """
    step = max(1, width // axis.period)
    inner = axis.interior()
    begin = ceil(inner.start / step) * step
    tiles = max(0, (inner.stop - begin) // step)
    if tiles < 2:
        return _constant(0, axis.outputs, width)
    first, last = begin * axis.period, (begin + tiles * step) * axis.period
    middle = Piece(first, step * axis.period, tiles, interior=True)
    return [*_constant(0, first, width), middle, *_constant(last, axis.outputs, width)]


def _constant(begin: int, end: int, width: int) -> list[Piece]:
    """Outputs from begin to end in tiles of at most ``width``, as equal as can be."""
    if begin == end:
        return []
    count = ceil((end - begin) / width)
    cuts = [begin + (end - begin) * k // count for k in range(count + 1)]
    return [Piece(a, b - a, 1, interior=False) for a, b in pairwise(cuts)]
