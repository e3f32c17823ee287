"""Operands that lie across a kernel's loop, copied a tile at a time and transposed in registers.

Neighbouring lanes of such an operand are far apart in memory, so that a vector of them would be
gathered element by element, each from a cache line of its own. Along another axis of the domain
they are neighbours: some rows along that axis, a tile, are loaded as vectors and transposed, and
the kernel reads the copy.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from torch.fx import Node
from tvm import tirx

from pockengine.ir.access import access
from pockengine.ir.graph import type_of
from pockengine.ir.types import DType
from pockengine.lower.nest import (
    Buffer,
    Expr,
    Stmt,
    aligned,
    block,
    bound,
    const,
    load,
    serial,
    store,
)
from pockengine.lower.pack import transpose
from pockengine.lower.values import Index, Values

_LEAST = 4  # rows: fewer do not pay for a copy
_MOST = 16384  # elements of all copies together, on the stack
_PAD = 16  # elements between rows, so that rows of a power of two do not share a cache set


@dataclass(frozen=True, slots=True)
class _Read:
    """A stored operand by the domain's axes: element ``offset + sum(place * strides)``."""

    node: Node
    buffer: Buffer
    offset: int
    strides: Mapping[int, int]


@dataclass(frozen=True, slots=True)
class _Copy:
    """The copy of a tile of an operand: [row][column], ``pitch`` elements from row to row."""

    read: _Read
    lane: int
    scratch: Buffer
    pitch: int

    def run(
        self, place: Sequence[Expr], height: int, columns: int | Expr, spot: Expr
    ) -> list[Stmt]:
        """The statements that copy a run of columns of ``height`` rows; see `Across.copied`."""
        start = const(self.read.offset)
        for axis, stride in self.read.strides.items():
            start = start + place[axis] * const(stride)
        step = const(self.read.strides[self.lane])

        def square(number: Expr) -> Stmt:
            first = number * const(height)
            rows = [
                load(self.read.buffer, start + (first + const(i)) * step, height)
                for i in range(height)
            ]
            at = spot + first
            return transpose(
                rows,
                lambda row, lanes: store(self.scratch, at + const(row * self.pitch), lanes, height),
            )

        def single(number: Expr) -> Stmt:
            at = spot + number
            source = start + number * step
            return block(
                *(
                    store(
                        self.scratch,
                        at + const(row * self.pitch),
                        load(self.read.buffer, source + const(row)),
                    )
                    for row in range(height)
                )
            )

        if not isinstance(columns, int):
            squares = tirx.truncdiv(columns, const(height))
            done = squares * const(height)
            return [
                serial("square", squares, square),
                serial("rest", columns - done, single, done),
            ]
        squares, rest = divmod(columns, height)
        statements = [serial("square", squares, square)] if squares else []
        return [*statements, *([serial("rest", rest, single, columns - rest)] if rest else [])]


@dataclass(frozen=True, slots=True)
class Across:
    """The operands of a kernel that lie across its loop.

    Args:
        axis: of the domain, along which their elements are neighbours.
        extent: of that axis.
        rows: of a tile, along that axis; a power of two.
        copies: one an operand.
        declared: the statements that declare their scratch.
    """

    axis: int
    extent: int
    rows: int
    copies: tuple[_Copy, ...]
    declared: tuple[Stmt, ...]

    @property
    def tiles(self) -> int:
        """Tiles of the axis."""
        return -(-self.extent // self.rows)

    def tile(self, number: Expr, body: Callable[[Expr, int], Stmt]) -> list[Stmt]:
        """``body(first row, rows)`` for a tile; for each part of the last one, if it is shorter."""
        first, bind = bound("first", number * const(self.rows))
        full, rest = divmod(self.extent, self.rows)
        whole = body(first, self.rows)
        if not rest:
            return [bind, whole]
        parts, done = [], 0
        while done < rest:
            left = rest - done
            height = 1 << (left.bit_length() - 1) if left >= _LEAST else left
            parts.append(body(const(full * self.rows + done), height))
            done += height
        return [bind, tirx.IfThenElse(tirx.LT(number, const(full)), whole, block(*parts))]

    def copied(
        self, place: Sequence[Expr], height: int, columns: int | Expr, spot: Expr
    ) -> list[Stmt]:
        """Copies of a run of columns of some rows; none where they are too few.

        Args:
            place: the domain's, of the first row and the first column.
            height: rows.
            columns: how many.
            spot: where in a row of the copy the first column goes.
        """
        if height < _LEAST:
            return []
        return [s for copy in self.copies for s in copy.run(place, height, columns, spot)]

    def known(self, height: int, row: Expr, spot: Expr) -> dict[Node, tuple[Buffer, Expr]]:
        """Where in the copies of ``height`` rows an element lies; nothing if there are none."""
        if height < _LEAST:
            return {}
        return {
            copy.read.node: (copy.scratch, row * const(copy.pitch) + spot) for copy in self.copies
        }


class Probe(Values):
    """Values that remember what they load and where."""

    def __init__(
        self,
        buffers: Mapping[Node, Buffer],
        inside: frozenset[Node],
        fixed: Mapping[Node, Expr] | None = None,
    ) -> None:
        super().__init__(buffers, inside, fixed)
        self.loads: list[tuple[Node, Index]] = []

    def _load(self, node: Node, index: Index) -> Expr:
        self.loads.append((node, index))
        return super()._load(node, index)


def somewhere(shape: Sequence[int]) -> tuple[Expr, ...]:
    """Any place in a domain: what a `Probe` loads there tells what lies across the loop."""
    return tuple(const(0) if extent == 1 else tirx.Var("place", "int64") for extent in shape)


def lying_across(
    probe: Probe, domain: Index, extents: Mapping[int, int], columns: int
) -> Across | None:
    """What lies across a kernel's loop and can be copied; None where nothing does.

    Args:
        probe: has computed everything at ``domain``.
        domain: `somewhere`, with the kernel's lanes.
        extents: of the axes along which a tile may have its rows.
        columns: of a tile.
    """
    lane = domain.axis
    if lane is None:
        return None
    strided = [read for read in _reads(probe, domain) if read.strides.get(lane, 0) > 1]
    by_axis = {
        axis: [read for read in strided if read.strides.get(axis) == 1]
        for axis, extent in extents.items()
        if extent >= _LEAST
    }
    axis, reads = max(by_axis.items(), key=lambda item: len(item[1]), default=(0, []))
    if not reads:
        return None
    pitch = columns + _PAD
    rows = min(domain.lanes, 1 << (extents[axis].bit_length() - 1))
    while rows >= _LEAST and rows * pitch * len(reads) > _MOST:
        rows //= 2
    if rows < _LEAST:
        return None
    copies, declared = [], []
    for read in reads:
        scratch, statements = aligned("across", rows * pitch, rows)
        copies.append(_Copy(read, lane, scratch, pitch))
        declared += statements
    return Across(axis, extents[axis], rows, tuple(copies), tuple(declared))


def _reads(probe: Probe, domain: Index) -> list[_Read]:
    """What the probe loaded, each at one place, by the domain's axes."""
    found: dict[Node, _Read | None] = {}
    for node, index in probe.loads:
        read = _read(probe.buffers, node, index, domain)
        found[node] = read if node not in found or found[node] == read else None
    return [read for read in found.values() if read is not None]


def _read(buffers: Mapping[Node, Buffer], node: Node, index: Index, domain: Index) -> _Read | None:
    """A load by the domain's axes; None where its place is computed from several of them."""
    shown = access(node)
    if shown is None or type_of(node).dtype is not DType.F32:
        return None
    offset, strides = shown.offset, dict[int, int]()
    for at, stride, extent in zip(index.place, shown.strides, type_of(node).shape, strict=True):
        if extent == 1 or not stride:
            continue
        if isinstance(at, tirx.IntImm):
            offset += int(at) * stride
            continue
        axis = next((a for a, each in enumerate(domain.place) if each.same_as(at)), None)
        if axis is None:
            return None
        strides[axis] = strides.get(axis, 0) + stride
    return _Read(node, buffers[shown.base], offset, strides)
