"""Further shapes that a trainer is compiled for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import NoneType
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from pockengine.checks import is_whole, kind_of
from pockengine.errors import CaptureError, InputError
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


def as_shapes(example_batch: Batch, shapes: Sequence[Shape | Batch]) -> list[Shape]:
    """All shapes of a trainer, the example batch's first.

    Raises:
        CaptureError: one of them is no batch.
        InputError: they are no list, or two are the same.
    """
    if not isinstance(shapes, (list, tuple)):
        raise _unlisted(kind_of(shapes))
    if len(shapes) == 2 and any(isinstance(each, Tensor) for each in shapes):
        raise _unlisted("one batch")
    found = [each if isinstance(each, Shape) else Shape(each) for each in (example_batch, *shapes)]
    seen: dict[tuple[Any, ...], str] = {}
    for place, each in enumerate(found):
        where = f"compile(shapes[{place - 1}])" if place else "compile(example_batch)"
        tensors = flatten(canonical_batch(each.batch, where))[0]
        key = tuple((tuple(tensor.shape), tensor.dtype) for tensor in tensors)
        if (first := seen.setdefault(key, where)) != where:
            raise InputError(
                where=where,
                found=f"the shape of {first} again",
                needed="a shape of its own",
                remedy="Leave it out",
            )
    return found


def _unlisted(found: str) -> InputError:
    return InputError(
        where="compile(shapes=...)",
        found=found,
        needed="a list of example batches (inputs, targets)",
        remedy="Pass such a list: shapes=[pe.resized(batch, samples=1)]",
    )


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
        InputError: an extent that is no whole number above 0.
    """
    inputs, targets = canonical_batch(batch, "resized(batch)")
    if not isinstance(lengths, (Mapping, NoneType)):
        raise _bad_extent("lengths", lengths, "a dict of new extents by old", "{128: 64}")
    for extent in [1 if samples is None else samples, *(lengths or {}).values()]:
        if not is_whole(extent) or extent < 1:
            raise _bad_extent("samples, lengths", extent, "whole numbers from 1 on", "samples=1")
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


def _bad_extent(where: str, found: object, needed: str, example: str) -> InputError:
    return InputError(
        where=f"resized({where})",
        found=repr(found),
        needed=needed,
        remedy=f"Give {example}, for example",
    )


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
