"""How a batch divides into inputs and targets, by what the trainer was compiled with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from pockengine.errors import InputError
from pockengine.fit.trainable import Compiled
from pockengine.frontend.structure import TENSOR, Structure, first_extents
from pockengine.runtime.shapes import fewer_samples
from pockengine.runtime.signature import Signature

LABELS = ("labels", "label", "targets", "target", "y")
"""Columns that hold the targets where the model's loss names none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """What a batch consists of.

    Args:
        compiled: what the trainer was compiled for.
        inputs: keyword arguments of the model; None where it takes positional ones.
        positional: how many of these.
        targets: keys of the targets; None where they are no dict.
        target_type: what the targets are at the top: tuple, list, dict; None of one tensor.
        sizes: samples of the example batch and of each further shape; 0 where tensors disagree.
    """

    compiled: Compiled
    inputs: tuple[str, ...] | None
    positional: int
    targets: tuple[str, ...] | None
    target_type: type | None
    sizes: tuple[int, ...]

    @classmethod
    def of(cls, compiled: Compiled) -> Self:
        """The layout of a trainer's example batch."""
        signature = compiled.shapes[0]
        inputs, targets = signature.input_structure.spec, signature.target_structure.spec
        if compiled.partial:  # beside a weight for each sample
            targets = dict(zip(targets.context, targets.children(), strict=True))["targets"]
        return cls(
            compiled=compiled,
            inputs=tuple(inputs.context) if inputs.type is dict else None,
            positional=_tensors(signature.input_structure),
            targets=tuple(targets.context) if targets.type is dict else None,
            target_type=None if targets.is_leaf() else targets.type,
            sizes=tuple(_size(each) for each in compiled.shapes),
        )

    def split(self, batch: Any, where: str) -> tuple[Any, Any]:
        """A batch as inputs and targets.

        Args:
            batch: ``(inputs, targets)``, ``(input, input, ..., targets)`` as a ``TensorDataset``
                gives it, or a dict of columns.
            where: what it is, for messages.

        Raises:
            InputError: it is none of these, or columns are missing.
        """
        if isinstance(batch, Mapping):
            return self._columns(batch, where)
        if isinstance(batch, (tuple, list)):
            if len(batch) == 2:
                return batch[0], self._targets(batch[1])
            if len(batch) == self.positional + 1 and self.inputs is None:
                return tuple(batch[:-1]), self._targets(batch[-1])
        raise InputError(
            where=where,
            found=_told(batch),
            needed="(inputs, targets), or a dict of columns",
            remedy="Let the data set or its collate_fn give pairs",
        )

    def _targets(self, targets: Any) -> Any:
        """Collating makes lists of tuples."""
        if isinstance(targets, list) and self.target_type is tuple:
            return tuple(targets)
        return targets

    def _columns(self, batch: Mapping[Any, Any], where: str) -> tuple[Any, Any]:
        columns = dict(batch)
        if set(columns) == {"inputs", "targets"} and "inputs" not in (self.inputs or ()):
            return columns["inputs"], self._targets(columns["targets"])
        if self.targets is None:
            named = next((name for name in LABELS if name in columns), None)
            if named is None:
                raise _missing(where, columns, f"a column of targets ({', '.join(LABELS)})")
            targets = _array(columns.pop(named), where, named)
        else:
            if "labels" in self.targets and "labels" not in columns and "label" in columns:
                columns["labels"] = columns.pop("label")
            absent = [name for name in self.targets if name not in columns]
            if absent:
                raise _missing(where, columns, f"the columns {', '.join(self.targets)}")
            targets = {name: _array(columns[name], where, name) for name in self.targets}
        return self._inputs(columns, where), targets

    def _inputs(self, columns: dict[Any, Any], where: str) -> Any:
        if self.inputs is not None:
            names = [name for name in self.inputs if name in columns]
            return {name: _array(columns[name], where, name) for name in names}
        found = {name: _array(value, where, name) for name, value in columns.items()}
        rest = {name: array for name, array in found.items() if _is_numeric(array)}
        if len(rest) != self.positional:
            wanted = f"{self.positional} besides the targets, the model's inputs in their order"
            raise _missing(where, rest, wanted)
        values = tuple(rest.values())
        return values[0] if len(values) == 1 else values

    def fewer(self, inputs: Any, targets: Any) -> int:
        """How many samples a batch has that would fit with more of them; else 0."""
        return fewer_samples(
            self.compiled.shapes, inputs, (targets,), weighted=self.compiled.partial
        )


def samples(inputs: Any) -> int:
    """How many samples a batch has: the first axis of its first tensor; 1 without any."""
    first = inputs
    while not hasattr(first, "shape"):
        if isinstance(first, Mapping):
            first = next(iter(first.values()), None)
        elif isinstance(first, (tuple, list)) and len(first):
            first = first[0]
        else:
            return 1
    return int(first.shape[0]) if len(first.shape) else 1


def _size(signature: Signature) -> int:
    """The first axis of all inputs and targets, or 0."""
    types = [signature.types[name] for name in (*signature.inputs, *signature.targets)]
    extents = first_extents(types)
    return extents.pop() if len(extents) == 1 else 0


def _tensors(structure: Structure) -> int:
    return sum(leaf is TENSOR for leaf in structure.leaves)


def _array(column: Any, where: str, name: str) -> Any:
    """A column's values as one array.

    Raises:
        InputError: they differ in shape.
    """
    if not isinstance(column, list):
        return column
    try:
        if column and isinstance(column[0], Tensor):
            return torch.stack(column)
        return np.asarray(column)
    except (RuntimeError, ValueError) as error:
        raise InputError(
            where=f"{where}, column {name}",
            found="values of different shapes",
            needed="one shape in all samples, that of the example batch",
            remedy='Pad or resize them; a tokenizer does with padding="max_length"',
        ) from error


def _is_numeric(array: Any) -> bool:
    """Whether it may go into a model: words and nested objects may not."""
    return isinstance(array, Tensor) or np.asarray(array).dtype.kind in "fiub"


def _missing(where: str, columns: Mapping[Any, Any], needed: str) -> InputError:
    return InputError(
        where=where,
        found=f"the columns {', '.join(map(str, columns)) or 'nothing'}",
        needed=needed,
        remedy="Rename or remove columns, or pass (inputs, targets)",
    )


def _told(batch: Any) -> str:
    if isinstance(batch, (tuple, list)):
        return f"a {type(batch).__name__} of {len(batch)}"
    leaves = pytree.tree_leaves(batch)
    shape = getattr(leaves[0], "shape", None) if len(leaves) == 1 else None
    return type(batch).__name__ if shape is None else f"a single array of shape {tuple(shape)}"
