"""What a trainer is called with: batches become the flat inputs of its entry points."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils import _pytree as pytree

from pockengine.errors import InputError
from pockengine.frontend.structure import TENSOR, Structure, arguments
from pockengine.ir.types import TensorType

Array = NDArray[Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Signature:
    """The inputs, targets and outputs of a model.

    Args:
        inputs: names of the inputs, flattened.
        targets: names of the targets, flattened.
        types: of inputs and targets, by name.
        input_structure: how the inputs nest: a tuple of arguments or a dict of keyword arguments.
        target_structure: how the targets nest.
        output_structure: how the model's output nests.
        outputs: the types of the model's output tensors.
    """

    inputs: tuple[str, ...]
    targets: tuple[str, ...]
    types: dict[str, TensorType]
    input_structure: Structure
    target_structure: Structure
    output_structure: Structure
    outputs: tuple[TensorType, ...]

    def bind_inputs(self, inputs: Any) -> list[Array]:
        """The arrays of the model's inputs.

        Args:
            inputs: a tensor or array, a tuple or list of them, or a dict (keyword arguments).

        Raises:
            InputError: another structure, or a wrong shape or dtype.
        """
        return self._bind("inputs", arguments(inputs), self.input_structure, self.inputs)

    def bind_targets(self, targets: Any) -> list[Array]:
        """The arrays of the loss's targets; InputError as ``bind_inputs``."""
        return self._bind("targets", targets, self.target_structure, self.targets)

    def leaves(self, inputs: Any, targets: tuple[Any] | None, *, weighted: bool) -> dict[str, Any]:
        """What a batch holds, by name, whatever its shapes.

        Args:
            inputs: of the model.
            targets: of the loss, in a tuple; None where there are none.
            weighted: leave out the last target, a weight for each sample.

        Raises:
            InputError: another structure.
        """
        found = _leaves("inputs", arguments(inputs), self.input_structure)
        named = dict(zip(self.inputs, found, strict=True))
        if targets is None:
            return named
        told = {"targets": targets[0], "weight": 0} if weighted else targets[0]
        more = _leaves("targets", told, self.target_structure)
        return named | dict(list(zip(self.targets, more, strict=True))[: -1 if weighted else None])

    def _bind(
        self, where: str, tree: Any, structure: Structure, names: Sequence[str]
    ) -> list[Array]:
        leaves = _leaves(where, tree, structure)
        return [
            as_array(name, leaf, self.types[name]) for name, leaf in zip(names, leaves, strict=True)
        ]

    def structured(
        self, flat: Sequence[Array], *, as_tensors: bool, samples: int | None = None
    ) -> Any:
        """The model's output in its own structure.

        Args:
            flat: each output tensor's elements, row-major.
            as_tensors: PyTorch tensors, or NumPy arrays.
            samples: of a padded batch, to which outputs of a row for each sample are cut.
        """
        arrays = [each.reshape(kind.shape) for each, kind in zip(flat, self.outputs, strict=True)]
        if samples is not None:
            full = self.types[self.inputs[0]].shape[0]
            arrays = [each[:samples] if each.shape[:1] == (full,) else each for each in arrays]
        leaves = [torch.from_numpy(each) for each in arrays] if as_tensors else arrays
        return self.output_structure.build(leaves)


def has_tensors(tree: Any) -> bool:
    """Whether any leaf of a batch is a PyTorch tensor."""
    return any(isinstance(leaf, Tensor) for leaf in pytree.tree_leaves(tree))


def _leaves(where: str, tree: Any, wanted: Structure) -> list[Any]:
    """The leaves where the example batch has tensors."""
    spec = wanted.spec
    if (flat := _flat(tree, wanted)) is not None:
        return flat
    if isinstance(tree, Mapping) and spec.type is dict:
        known = _in_order(dict(tree), wanted, set(spec.context) - set(tree))
        tree = dict(tree) if known is None else known
    leaves, found = pytree.tree_flatten(tree)
    if found != spec:
        raise InputError(
            where=where,
            found=_told(found),
            needed=f"{_told(spec)} as in the example batch",
            remedy="Pass what the trainer was compiled for",
        )
    for leaf, want in zip(leaves, wanted.leaves, strict=True):
        if want is not TENSOR and (type(leaf), leaf) != (type(want), want):
            raise InputError(
                where=where,
                found=f"{type(leaf).__name__} where the example batch has {want!r}",
                needed="what was compiled in: None, flags and words are",
                remedy="Compile with an example batch that holds what you need",
            )
    return [leaf for leaf, want in zip(leaves, wanted.leaves, strict=True) if want is TENSOR]


def _flat(tree: Any, wanted: Structure) -> list[Any] | None:
    """As ``_leaves`` where an array or a tuple of arrays needs no walk; else None."""
    leaves = list(tree) if type(tree) is tuple else [tree]
    for leaf in leaves:
        if not isinstance(leaf, (Tensor, np.ndarray)):
            return None
    spec, count = wanted.spec, len(leaves)
    inside = spec.type is tuple if type(tree) is tuple else spec.is_leaf()
    alike = spec.num_leaves == count and spec.num_nodes == count + (type(tree) is tuple)
    return leaves if inside and alike and wanted.leaves.count(TENSOR) == count else None


def _in_order(
    tree: dict[Any, Any], wanted: Structure, absent: Collection[Any]
) -> dict[Any, Any] | None:
    """A dict with its keys in the example's order; what is None there may be left out."""
    keys = wanted.spec.context
    optional: set[Any] = set()
    if wanted.spec.num_leaves == len(keys):
        optional = {k for k, leaf in zip(keys, wanted.leaves, strict=True) if leaf is None}
    if not optional.issuperset(absent) or not set(tree) <= set(keys):
        return None
    return {key: tree.get(key) for key in keys}


def _told(spec: pytree.TreeSpec) -> str:
    """The structure of a tree in words."""
    if spec.is_leaf():
        return "a single tensor"
    if spec.type is dict:
        return f"a dict with the keys {', '.join(map(repr, spec.context))}"
    return f"a {spec.type.__name__} of {spec.num_leaves}"


def as_array(name: str, leaf: Any, wanted: TensorType) -> Array:
    """One input as an array of the right shape; the engine's ports see to its dtype."""
    try:
        array = _from_tensor(leaf) if isinstance(leaf, Tensor) else np.asarray(leaf)
    except (TypeError, ValueError) as error:
        raise _misfit(name, f"{type(leaf).__name__} ({error})", wanted) from error
    if array.shape != wanted.shape:
        raise _misfit(name, f"shape {array.shape}", wanted, array.shape)
    if array.dtype.kind not in ("f" if wanted.dtype.is_float else "iub"):
        raise _misfit(name, f"elements of {array.dtype}", wanted)
    return array


def _from_tensor(tensor: Tensor) -> Array:
    plain = tensor.detach() if tensor.requires_grad else tensor
    if not plain.is_cpu:
        plain = plain.cpu()
    if plain.dtype is torch.bfloat16:
        plain = plain.float()
    array: Array = plain.contiguous().numpy()
    return array


def _misfit(
    name: str, found: str, wanted: TensorType, shape: tuple[int, ...] | None = None
) -> InputError:
    remedy = "Pass what the trainer was compiled for"
    if shape is not None and shape[1:] == wanted.shape[1:] and len(shape) == len(wanted.shape) > 0:
        less = "smaller" if shape[0] < wanted.shape[0] else "larger"
        remedy = f"The batch is {less} than the compiled one: drop or regroup it, or compile for it"
    return InputError(
        where=name,
        found=found,
        needed=f"shape {wanted.shape} of {wanted.dtype.value} is needed",
        remedy=remedy,
    )
