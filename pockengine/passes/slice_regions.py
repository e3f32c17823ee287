"""Run parts of a graph slice by slice along the leading axis."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch.fx import Graph, Node

from pockengine.ir.graph import (
    copy_node,
    emit_typed,
    kind_of,
    outputs_of,
    placeholders,
    set_group,
    set_outputs,
    type_of,
)
from pockengine.ir.ops import Kind
from pockengine.passes.sliced_regions import Region, Rules, leading, regions
from pockengine.passes.sliced_values import Slicer

_LEAST_ROWS = 128  # of a slice: as many products for each element of a weight; half of it cost 8 %


def slice_regions(graph: Graph, cache_bytes: int) -> Graph:
    """Compute groups that hand each other large values for a few indices of the batch at a time.

    A region is a set of groups in which each index of the leading axis (the first that has several)
    is computed from the same index alone: elementwise ops, products with leading axes, reductions
    over other axes. Where the values that only the region itself reads are larger than the cache,
    all of its groups run for the first slice, then for the next: what they hand each other is small
    and stays in the cache. Slices of inputs are views. What others read is joined by ``cat``, which
    is done in place (``ir/joined.py``). Every element is computed as before, from equal operands.

    before (fused; ``cache_bytes=64``)::

        %q: f32[2x4x4] = input('q')
        %k: f32[2x4x4] = input('k')
        %s: f32[2x4x4] = matmul(%q, %k)
        %a: f32[2x4x1] = amax(%s, (2,), True)
        %p: f32[2x4x4] = sub(%s, %a)
        %o: f32[2x4x4] = matmul(%p, %k)
        return loss=None, outputs=(%o,), gradients={}, updates=()

    after::

        %q: f32[2x4x4] = input('q')
        %k: f32[2x4x4] = input('k')
        %slice_1: f32[1x4x4] = slice(%q, 0, 0, 1)
        %slice_2: f32[1x4x4] = slice(%k, 0, 0, 1)
        %matmul: f32[1x4x4] = matmul(%slice_1, %slice_2)
        %amax: f32[1x4x1] = amax(%matmul, (2,), True)
        %sub: f32[1x4x4] = sub(%matmul, %amax)
        %matmul_1: f32[1x4x4] = matmul(%sub, %slice_2)
        %slice_3: f32[1x4x4] = slice(%q, 0, 1, 2)
        %slice_4: f32[1x4x4] = slice(%k, 0, 1, 2)
        %matmul_2: f32[1x4x4] = matmul(%slice_3, %slice_4)
        %amax_1: f32[1x4x1] = amax(%matmul_2, (2,), True)
        %sub_1: f32[1x4x4] = sub(%matmul_2, %amax_1)
        %matmul_3: f32[1x4x4] = matmul(%sub_1, %slice_4)
        %cat: f32[2x4x4] = cat((%matmul_1, %matmul_3), 0)
        return loss=None, outputs=(%cat,), gradients={}, updates=()

    Not applied where the region keeps little to itself beside what it reads and makes, to values
    whose leading axis is not the outermost in memory, nor to products of whole matrices (a linear
    layer), whose rows share an operand.

    Args:
        graph: fused.
        cache_bytes: what the values that a slice keeps to itself should fit into.
    """
    return _sliced(graph, Rules(cache_bytes, least_share=0.5))


def slice_rows(graph: Graph, most_bytes: int) -> Graph:
    """Compute what lies between products with weights for some rows at a time.

    As ``slice_regions``, for rows of products with a weight, in a graph that is not fused yet: a
    frozen linear layer of many classes, the loss, and the gradient of the layer's input run for
    some rows, then for the next, and the scores of all rows are never there at once. Each slice
    reads the weights anew, so it has 128 rows at least.

    before (``most_bytes=65536``)::

        %x: f32[256x4] = input('x')
        %w: f32[4x128] = const('w')
        %v: f32[128x4] = const('v')
        %s: f32[256x128] = matmul(%x, %w)
        %e: f32[256x128] = exp(%s)
        %o: f32[256x4] = matmul(%e, %v)
        return loss=None, outputs=(%o,), gradients={}, updates=()

    after::

        %x: f32[256x4] = input('x')
        %w: f32[4x128] = const('w')
        %v: f32[128x4] = const('v')
        %slice_1: f32[128x4] = slice(%x, 0, 0, 128)
        %matmul: f32[128x128] = matmul(%slice_1, %w)
        %exp: f32[128x128] = exp(%matmul)
        %matmul_1: f32[128x4] = matmul(%exp, %v)
        %slice_2: f32[128x4] = slice(%x, 0, 128, 256)
        %matmul_2: f32[128x128] = matmul(%slice_2, %w)
        %exp_1: f32[128x128] = exp(%matmul_2)
        %matmul_3: f32[128x4] = matmul(%exp_1, %v)
        %cat: f32[256x4] = cat((%matmul_1, %matmul_3), 0)
        return loss=None, outputs=(%cat,), gradients={}, updates=()

    Not applied to what a trained layer's gradient reads whole. Source: the chunked losses of Liger
    Kernel (Hsu et al. 2024) for the idea.

    Args:
        graph: a graph before ``fuse``.
        most_bytes: what the values that a slice keeps to itself should fit into.
    """
    return _sliced(graph, Rules(most_bytes, least_share=2.0, least_rows=_LEAST_ROWS))


def _sliced(graph: Graph, rules: Rules) -> Graph:
    found = regions(graph, rules)
    return _Writer(graph, found).result() if found else graph


@dataclass(frozen=True, slots=True)
class _Unit:
    """What is written together: a group, or a region."""

    groups: tuple[int, ...]
    region: Region | None


class _Writer:
    """Writes a graph anew, regions slice by slice."""

    def __init__(self, graph: Graph, found: Sequence[Region]) -> None:
        self._old = graph
        self._regions = found
        self._new = Graph()
        self._place: dict[Node, Node] = {}
        self._group = 0

    def result(self) -> Graph:
        """The new graph."""
        for node in placeholders(self._old):
            self._place[node] = copy_node(self._new, node, self._put)
        for unit in self._units():
            if unit.region is None:
                self._write(self._regions[0].table.members[unit.groups[0]])
            else:
                self._write_slices(unit.region)
        set_outputs(self._new, outputs_of(self._old).mapped(self._put))
        return self._new

    def _units(self) -> list[_Unit]:
        """Groups and regions in a topological order, as near to the given one as there is."""
        table = self._regions[0].table
        home = {group: region for region in self._regions for group in region.groups}
        done: set[int] = set()
        units: list[_Unit] = []
        for first in range(len(table.members)):
            stack = [first]
            while stack:
                group = stack[-1]
                together = home[group].groups if group in home else (group,)
                missing = [g for g in table.needs(together) if g not in done]
                if group in done or not missing:
                    stack.pop()
                    if group not in done:
                        done.update(together)
                        units.append(_Unit(tuple(together), home.get(group)))
                else:
                    stack.extend(reversed(missing))
        return units

    def _write(self, nodes: Sequence[Node]) -> None:
        for node in nodes:
            self._place[node] = self._grouped(copy_node(self._new, node, self._put))
        self._group += 1

    def _grouped(self, node: Node) -> Node:
        """The node, in the group that is being written if the graph is fused."""
        if self._regions[0].table.is_fused:
            set_group(node, self._group)
        return node

    def _put(self, node: Node) -> Node:
        """The new node of a value that is there; views are written where they are first needed."""
        if node not in self._place:
            assert kind_of(node) is Kind.VIEW
            self._place[node] = copy_node(self._new, node, self._put)
        return self._place[node]

    def _write_slices(self, region: Region) -> None:
        members = region.table.members
        made: dict[Node, list[Node]] = {node: [] for node in region.outputs}
        for number in range(region.parts):
            slicer = Slicer(self._new, region, number, self._put)
            for group in region.groups:
                for node in members[group]:
                    self._grouped(slicer.write(node))
                self._group += 1
            for node, parts in made.items():
                parts.append(slicer.made[node])
        for node, parts in made.items():
            whole = emit_typed(self._new, "cat", (tuple(parts), leading(node)), {}, type_of(node))
            whole.meta["scope"] = node.meta.get("scope", "")
            self._place[node] = self._grouped(whole)
            self._group += 1
