"""The frozen fronts of a model: what they yield is computed once, and read by all trials behind.

A trial whose first updated layer is i needs nothing of the layers ahead but what i reads. That may
be large, so some layers read the cut of an earlier one and compute the few layers between again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch.fx import Graph

from pockengine.contribution.build import build
from pockengine.contribution.layers import Layer
from pockengine.contribution.study import (
    PARTS,
    Array,
    array_file,
    arrays_of,
    batches,
    of_graph,
)
from pockengine.frontend.capture import Captured
from pockengine.ir.graph import Outputs, calls, outputs_of, placeholders, subgraph, type_of
from pockengine.ir.interpret import interpret
from pockengine.ir.types import Role
from pockengine.optimizer import SGD
from pockengine.passes.extract_forward import extract_forward
from pockengine.passes.split_frozen import split_frozen
from pockengine.plan.flops import node_flops

_TOLERANCE = 1e-4  # of what a sample gives beside other samples


@dataclass(frozen=True, slots=True)
class Front:
    """What is frozen where a layer is the first that is updated.

    Args:
        values: what it yields, as names of the captured graph's nodes; empty where there is none.
        inputs: what that is called behind the cut.
        sample_bytes: what one sample takes.
        flops: of computing it, for a batch.
    """

    values: tuple[str, ...] = ()
    inputs: tuple[str, ...] = ()
    sample_bytes: int = 0
    flops: float = 0.0


def updated_from(layers: Sequence[Layer], head: Sequence[str], index: int) -> tuple[str, ...]:
    """The parameters that may be updated where layer ``index`` is the first."""
    behind = [name for layer in layers[index:] for name in (layer.weight, *layer.biases)]
    return (*behind, *head)


def find_fronts(captured: Captured, layers: Sequence[Layer], head: Sequence[str]) -> list[Front]:
    """The front ahead of each layer, and in the last place that ahead of the head.

    There is none where the model changes buffers as it runs, or where what it would yield has no
    axis of samples.
    """
    if captured.evaluation is not captured.graph or outputs_of(captured.graph).updates:
        return [Front()] * (len(layers) + 1)
    places = range(len(layers) + 1)
    return [_front(captured.graph, updated_from(layers, head, place)) for place in places]


def _front(graph: Graph, updated: Sequence[str]) -> Front:
    split = split_frozen(graph, updated)
    batch = type_of(next(placeholders(graph, Role.INPUT))).shape[0]
    yielded = outputs_of(split.before).outputs
    if not list(calls(split.before)) or any(type_of(x).shape[:1] != (batch,) for x in yielded):
        return Front()
    return Front(
        values=tuple(x.name for x in yielded),
        inputs=split.inputs,
        sample_bytes=sum(type_of(x).nbytes for x in yielded) // batch,
        flops=float(sum(node_flops(node) for node in calls(split.before))),
    )


def choose_cuts(fronts: Sequence[Front], samples: int, limit_bytes: int) -> list[int]:
    """For each place, whose front is kept for it: its own, an earlier one's, or -1 for none.

    Fronts are given up one by one, first those that save the least work for their bytes, until what
    is kept fits.

    Args:
        fronts: by place.
        samples: how many are kept of each.
        limit_bytes: that all may take together.
    """
    kept = {place for place, front in enumerate(fronts) if front.values}
    first = {fronts[place].values: place for place in sorted(kept, reverse=True)}
    kept &= set(first.values())

    def used(place: int, without: int | None = None) -> int:
        """The last front at or ahead of a place."""
        return max((x for x in kept if x <= place and x != without), default=-1)

    def saved(cut: int) -> float:
        """Work that a front saves for each of its bytes."""
        readers = [place for place in range(len(fronts)) if used(place) == cut]
        instead = used(cut, without=cut)
        less = fronts[cut].flops - (fronts[instead].flops if instead >= 0 else 0.0)
        return len(readers) * less / fronts[cut].sample_bytes

    while kept and sum(fronts[x].sample_bytes for x in kept) * samples > limit_bytes:
        kept.remove(min(kept, key=saved))
    return [used(place) for place in range(len(fronts))]


def compute_cuts(
    folder: Path, captured: Captured, fronts: Mapping[int, Front], rows: Mapping[str, int]
) -> None:
    """Write what some fronts yield for all samples, by one compiled forward pass.

    Args:
        folder: of the data, where the model's own inputs are.
        captured: the model.
        fronts: by the number of the cut.
        rows: samples of each part.
    """
    wanted = sorted({name for front in fronts.values() for name in front.values})
    if not wanted:
        return
    yielding = of_graph(captured, _yielding(captured.graph, wanted), captured.inputs)
    kinds = [type_of(node) for node in outputs_of(yielding.graph).outputs]
    with build(yielding, SGD()) as trainer:
        for part in PARTS:
            inputs = arrays_of(folder, part, "cut-1", len(captured.inputs))
            files: dict[tuple[int, int], Array] = {}
            for at in batches(rows[part], kinds[0].shape[0]):
                found = trainer.engine.run("predict", [x[at] for x in inputs])
                values = {
                    name: x.reshape(kind.shape)
                    for name, kind, x in zip(wanted, kinds, found, strict=True)
                }
                for cut, front in fronts.items():
                    for index, name in enumerate(front.values):
                        if (cut, index) not in files:
                            path = array_file(folder, part, f"cut{cut}", index)
                            files[cut, index] = _made(path, rows[part], values[name])
                        files[cut, index][at] = values[name]


def _yielding(graph: Graph, names: Sequence[str]) -> Graph:
    """The part of a graph that some of its values are computed by."""
    nodes = {node.name: node for node in graph.nodes}
    part = subgraph(graph, Outputs(outputs=tuple(nodes[name] for name in names)))
    return extract_forward(part, loss=False)


def _made(path: Path, rows: int, like: Array) -> Array:
    """A new array in a file, of samples like those of another."""
    return np.lib.format.open_memmap(path, "w+", like.dtype, (rows, *like.shape[1:]))


def are_independent(captured: Captured, fronts: Sequence[Front], inputs: Sequence[Array]) -> bool:
    """Whether every front gives each sample the same in whatever company: measured on a batch."""
    graph = _yielding(captured.graph, sorted({name for front in fronts for name in front.values}))
    tensors = [torch.from_numpy(np.asarray(x)) for x in inputs]
    turned = [x.roll(1, 0) for x in tensors]
    both = [
        interpret(graph, {**captured.tensors, **dict(zip(captured.inputs, given, strict=True))})
        for given in (tensors, turned)
    ]
    return all(
        torch.allclose(a.roll(1, 0), b, rtol=_TOLERANCE, atol=_TOLERANCE, equal_nan=True)
        for a, b in zip(both[0].outputs, both[1].outputs, strict=True)
    )
