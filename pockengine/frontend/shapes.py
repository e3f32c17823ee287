"""Further shapes that a trainer is compiled for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from pockengine.errors import CaptureError
from pockengine.frontend.capture import Batch, Captured, canonical_batch
from pockengine.frontend.structure import flatten
from pockengine.ir.graph import name_of, placeholders, set_name
from pockengine.ir.types import Role


@dataclass(frozen=True, slots=True)
class Shape:
    """A shape besides that of the example batch.

    Args:
        batch: an example of it: ``(inputs, targets)``; only its shapes matter.
        train: whether there are steps of it, or only ``predict`` and ``evaluate``.
    """

    batch: Any
    train: bool = True


def as_shape(declared: Shape | Batch) -> Shape:
    """A shape from what ``compile`` takes for one."""
    return declared if isinstance(declared, Shape) else Shape(declared)


def resized(
    batch: Batch, *, samples: int | None = None, lengths: Mapping[int, int] | None = None
) -> Batch:
    """An example batch of another size, by the shapes of a given one.

    Args:
        batch: ``(inputs, targets)``.
        samples: extent of the first axis of every tensor that has the batch's there.
        lengths: new extent by old, for all other axes: ``{128: 64}`` halves the sequences.

    Raises:
        CaptureError: the batch is no pair.
    """
    inputs, targets = canonical_batch(batch)
    tensors = flatten((inputs, targets))[0]
    count = next((tensor.shape[0] for tensor in tensors if tensor.dim()), 0)
    changed = dict(lengths or {})

    def shape(tensor: Tensor) -> tuple[int, ...]:
        new = [changed.get(extent, extent) for extent in tensor.shape]
        if new and tensor.shape[0] == count:
            new[0] = count if samples is None else samples
        return tuple(new)

    def of_shape(leaf: Any) -> Any:
        return torch.zeros(shape(leaf), dtype=leaf.dtype) if isinstance(leaf, Tensor) else leaf

    made: Batch = pytree.tree_map(of_shape, (inputs, targets))
    return made


def check_alike(first: Captured, other: Captured) -> None:
    """Two captures of a model nest their batches in the same way.

    Raises:
        CaptureError: they do not.
    """
    one = first.input_structure, first.target_structure
    if one != (other.input_structure, other.target_structure):
        raise CaptureError(
            where="compile(shapes=...)",
            found="a batch that nests in another way than the example batch",
            needed="the same structure, keys and flags, of other shapes",
            remedy="Build it like the example batch, such as by pe.resized",
        )


def with_own_constants(captured: Captured, known: Mapping[str, Tensor], prefix: str) -> Captured:
    """A capture whose constants do not share a name with others of another content.

    Constants that tracing found, such as positions, are of one shape; they are numbered anew in
    each capture.

    Args:
        captured: freshly made; its graphs are changed.
        known: contents by name so far.
        prefix: of new names.
    """
    tensors = dict(captured.tensors)
    graphs = {id(graph): graph for graph in (captured.graph, captured.evaluation)}
    for node in (node for graph in graphs.values() for node in placeholders(graph, Role.CONST)):
        name = name_of(node)
        if name in known and not _same(known[name], captured.tensors[name]):
            set_name(node, f"{prefix}.{name}")
            tensors.pop(name, None)
            tensors[f"{prefix}.{name}"] = captured.tensors[name]
    return replace(captured, tensors=tensors)


def _same(one: Tensor, other: Tensor) -> bool:
    if (one.shape, one.dtype) != (other.shape, other.dtype):
        return False
    return one.data_ptr() == other.data_ptr() or torch.equal(one, other)
