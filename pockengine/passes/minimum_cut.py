"""Minimum cuts of one network under many capacities."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.sparse.csgraph import breadth_first_order, maximum_flow

Capacities = NDArray[np.int32]
Vertices = NDArray[np.intp]


class FlowNetwork:
    """Edges between vertices, laid out once for all cuts.

    Args:
        tails: where each edge begins; no two edges join the same two vertices.
        heads: where it ends.
        size: vertices, of which the last is the sink and the one before it the source.
    """

    def __init__(self, tails: Vertices, heads: Vertices, size: int) -> None:
        # with every edge the other way, as the solver would add it: flows then lie as capacities do
        rows, columns = np.concatenate([tails, heads]), np.concatenate([heads, tails])
        self._order = np.lexsort((columns, rows))
        self._columns = columns[self._order].astype(np.int32)
        counts = np.bincount(rows, minlength=size)
        self._starts = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
        self._size, self._source, self._sink = size, size - 2, size - 1

    def source_side(self, capacities: Capacities) -> NDArray[np.bool_]:
        """Which vertices are on the source's side of the smallest minimum cut.

        Args:
            capacities: of the edges, in their order; less than 2**31 in sum along any path.
        """
        both = np.concatenate([capacities, np.zeros_like(capacities)])[self._order]
        flow = maximum_flow(self._matrix(both), self._source, self._sink).flow
        assert flow.nnz == len(both)
        left = both > flow.data
        ends = np.concatenate([[0], np.cumsum(left)])[self._starts].astype(np.int32)
        residual = csr_array(
            (np.ones(ends[-1], np.int8), self._columns[left], ends), shape=(self._size, self._size)
        )
        reached = np.zeros(self._size, np.bool_)
        reached[breadth_first_order(residual, self._source, return_predecessors=False)] = True
        return reached

    def _matrix(self, capacities: Capacities) -> csr_array:
        parts = (capacities, self._columns, self._starts)
        return csr_array(parts, shape=(self._size, self._size))
