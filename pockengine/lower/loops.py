"""The loops of elementwise and reducing kernels: which axes, in which order, cut how. No TVM."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import prod
from typing import Any

from torch.fx import Graph, Node

from pockengine.ir.access import storage_order
from pockengine.ir.graph import calls, kind_of, type_of
from pockengine.ir.ops import Kind
from pockengine.lower.kernel import stored_outputs

BLOCK = 4096  # elements of one unit of a long innermost axis
PIECE = 16384  # elements that pay for handing a piece to another thread


@dataclass(frozen=True, slots=True)
class Walk:
    """An iteration over a domain in storage order.

    Args:
        outer: axes from the outermost, with their extents.
        axis: the innermost axis, along which vectors run; None for a single element.
        extent: its extent.
    """

    outer: tuple[tuple[int, int], ...]
    axis: int | None
    extent: int

    @property
    def rows(self) -> int:
        """Iterations of the outer axes together."""
        return prod(extent for _, extent in self.outer)

    @property
    def blocks(self) -> int:
        """Units that one innermost run is cut into."""
        return -(-self.extent // BLOCK)

    @property
    def units(self) -> int:
        """The kernel's range."""
        return self.rows * self.blocks

    @property
    def grain(self) -> int:
        """Units that a thread should at least have."""
        return max(1, PIECE // max(1, min(self.extent, BLOCK)))


def walk(shape: tuple[int, ...], order: tuple[int, ...]) -> Walk:
    """The walk over a shape in a storage order."""
    axes = [(axis, shape[axis]) for axis in order if shape[axis] != 1]
    if not axes:
        return Walk((), None, 1)
    return Walk(tuple(axes[:-1]), *axes[-1])


def map_walk(graph: Graph) -> Walk:
    """The walk of a map kernel: its first output's storage order."""
    first = stored_outputs(graph)[0]
    if kind_of(first) is Kind.UPDATE:
        target: Any = first.args[0]
        first = target
    return walk(type_of(first).shape, _order(first))


def _order(node: Node) -> tuple[int, ...]:
    order = storage_order(node)
    assert order is not None
    return order


@dataclass(frozen=True, slots=True)
class Rows:
    """The rows of a row kernel: domain, how many trailing axes a row has, rows, elements a row."""

    shape: tuple[int, ...]
    row_axes: int

    @property
    def count(self) -> int:
        """How many rows."""
        return prod(self.shape[: len(self.shape) - self.row_axes])

    @property
    def length(self) -> int:
        """Elements of a row."""
        return prod(self.shape[len(self.shape) - self.row_axes :])


def passes_of(nodes: Iterable[Node]) -> dict[Node, int]:
    """The pass over a row that can compute each node: a reduction is known one after its terms."""
    found: dict[Node, int] = {}
    for node in nodes:
        before = max((found[o] for o in node.all_input_nodes if o in found), default=0)
        found[node] = before + 1 if kind_of(node) is Kind.REDUCE else before
    return found


def rows_of(graph: Graph) -> Rows:
    """The rows of a row kernel's graph, from its first reduction."""
    reduction = next(node for node in calls(graph) if kind_of(node) is Kind.REDUCE)
    source: Any = reduction.args[0]
    axes: Any = reduction.args[1]
    return Rows(type_of(source).shape, len(axes))


@dataclass(frozen=True, slots=True)
class Columns:
    """The loops of a reduction that is not over rows.

    Args:
        kept: axes that stay, outermost first, without ``lane``.
        reduced: axes that are summed, outermost first.
        lane: the axis along which vectors run, kept or reduced; None for a single element.
        lane_kept: whether the lane axis stays.
        shape: the domain.
    """

    kept: tuple[int, ...]
    reduced: tuple[int, ...]
    lane: int | None
    lane_kept: bool
    shape: tuple[int, ...]

    def tiles(self, lanes: int) -> int:
        """Vector tiles along a kept lane axis."""
        return (
            -(-self.shape[self.lane] // (4 * lanes))
            if self.lane_kept and self.lane is not None
            else 1
        )

    def units(self, lanes: int) -> int:
        """The kernel's range."""
        return prod(self.shape[axis] for axis in self.kept) * self.tiles(lanes)


def columns_of(graph: Graph) -> Columns:
    """The loops of a reduce kernel's graph."""
    reduction = next(node for node in calls(graph) if kind_of(node) is Kind.REDUCE)
    source: Any = reduction.args[0]
    axes: Any = reduction.args[1]
    shape = type_of(source).shape
    order = [axis for axis in _order(source) if shape[axis] != 1]
    lane = order[-1] if order else None
    kept = tuple(axis for axis in order if axis not in axes and axis != lane)
    reduced = tuple(axis for axis in order if axis in axes)
    return Columns(kept, reduced, lane, lane is not None and lane not in axes, shape)
