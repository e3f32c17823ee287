"""Which of the shapes that a trainer was compiled for a batch has."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pockengine.errors import InputError
from pockengine.ir.types import TensorType
from pockengine.runtime.signature import Array, Signature, as_array


@dataclass(frozen=True, slots=True)
class Bound:
    """A batch as arrays for an entry point.

    Args:
        shape: index of the shape.
        arrays: the inputs, and the targets if there were any.
        samples: how many there are, where the rest is padding; None for a full batch.
    """

    shape: int
    arrays: list[Array]
    samples: int | None = None


def bind(
    shapes: Sequence[Signature], inputs: Any, targets: tuple[Any] | None, *, partial: bool = False
) -> Bound:
    """The shape that a batch has, and its arrays.

    Args:
        shapes: what the trainer was compiled for, nested alike; the first is the example batch's.
        inputs: of the model.
        targets: of the loss, in a tuple; None where there are none.
        partial: pad a batch with fewer samples; the last target is then a weight for each sample,
            which is made here.

    Raises:
        InputError: no shape fits; lists them.
    """
    first = shapes[0]
    if len(shapes) == 1 and not partial:
        more = [] if targets is None else first.bind_targets(targets[0])
        return Bound(0, [*first.bind_inputs(inputs), *more])
    leaves = first.leaves(inputs, targets, weighted=partial)
    given = {name: _shape(leaf) for name, leaf in leaves.items()}
    for index, signature in enumerate(shapes):
        if all(signature.types[name].shape == shape for name, shape in given.items()):
            return Bound(index, _arrays(signature, leaves, partial, targets, None))
    if partial:
        smaller = [(s, n) for s in shapes if (n := _samples(s, given))]
        if smaller:
            signature, samples = min(smaller, key=lambda pair: _batch(pair[0]))
            arrays = _arrays(signature, leaves, partial, targets, samples)
            return Bound(shapes.index(signature), arrays, samples)
    raise _undeclared(shapes, given, partial)


def fewer_samples(
    shapes: Sequence[Signature], inputs: Any, targets: tuple[Any], *, weighted: bool
) -> int:
    """How many samples a batch has that is like a declared one but smaller; else 0.

    Args:
        shapes: what the trainer was compiled for.
        inputs: of the model.
        targets: of the loss, in a tuple.
        weighted: the last target is a weight for each sample, which is not passed.

    Raises:
        InputError: another structure.
    """
    leaves = shapes[0].leaves(inputs, targets, weighted=weighted)
    given = {name: _shape(leaf) for name, leaf in leaves.items()}
    return max(_fewer(signature, given) for signature in shapes)


def _fewer(signature: Signature, given: dict[str, tuple[int, ...]]) -> int:
    wanted = {name: signature.types[name].shape for name in given}
    pairs = {(given[n][0], wanted[n][0]) for n in given if given[n] and wanted[n]}
    differing = [pair for pair in pairs if pair[0] != pair[1]]
    if len(differing) != 1 or differing[0][0] > differing[0][1] or (differing[0][1],) * 2 in pairs:
        return 0
    less, full = differing[0]
    cut = {n: (less, *s[1:]) if s[:1] == (full,) else s for n, s in wanted.items()}
    return less if cut == given else 0


def shaped(entry: str, shape: int) -> str:
    """The name of an entry point for a shape."""
    return f"{entry}.{shape}" if shape else entry


def _shape(leaf: Any) -> tuple[int, ...]:
    return tuple(leaf.shape) if hasattr(leaf, "shape") else np.shape(leaf)


def _batch(signature: Signature) -> int:
    """How many samples a full batch has."""
    return signature.types[signature.targets[-1]].shape[0]


def _samples(signature: Signature, given: dict[str, tuple[int, ...]]) -> int:
    """How many samples there are, if padding makes them a batch of a shape; else 0."""
    full = _batch(signature)
    found: set[int] = set()
    for name, shape in given.items():
        wanted = signature.types[name].shape
        if wanted[:1] == (full,) and len(shape) == len(wanted) and shape[1:] == wanted[1:]:
            found.add(shape[0])
        elif shape != wanted:
            return 0
    samples = found.pop() if len(found) == 1 else 0
    return samples if samples < full else 0


def _arrays(
    signature: Signature,
    leaves: dict[str, Any],
    partial: bool,
    targets: tuple[Any] | None,
    samples: int | None,
) -> list[Array]:
    arrays = [_padded(signature, name, leaf, samples) for name, leaf in leaves.items()]
    if partial and targets is not None:
        weight = np.zeros(_batch(signature), np.float32)
        weight[:samples] = 1.0
        arrays.append(weight)
    return arrays


def _padded(signature: Signature, name: str, leaf: Any, samples: int | None) -> Array:
    """An input of a full batch; its first sample stands for those that are missing."""
    wanted = signature.types[name]
    shape = _shape(leaf)
    if samples is None or shape == wanted.shape:
        return as_array(name, leaf, wanted)
    array = as_array(name, leaf, TensorType(shape, wanted.dtype))
    missing = np.broadcast_to(array[:1], (wanted.shape[0] - samples, *shape[1:]))
    return np.concatenate([array, missing])


def _undeclared(
    shapes: Sequence[Signature], given: dict[str, tuple[int, ...]], partial: bool
) -> InputError:
    told = [
        ", ".join(f"{name} {signature.types[name].shape}" for name in given) for signature in shapes
    ]
    fewer = ", or fewer samples of these" if partial else ""
    return InputError(
        where="batch",
        found=", ".join(f"{name} {shape}" for name, shape in given.items()),
        needed=f"a declared shape: {'; '.join(told)}{fewer}",
        remedy="Pad to one of these, or declare it: compile(shapes=[...])",
    )
