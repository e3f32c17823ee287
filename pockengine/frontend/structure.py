"""Nested inputs, targets and outputs as a flat list of tensors, and back."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

_FIXED = (type(None), bool, str)


class _Slot:
    """Stands where a tensor goes."""

    def __repr__(self) -> str:
        return "tensor"

    def __reduce__(self) -> str:
        return "TENSOR"  # there is one, copied or pickled


TENSOR: Final = _Slot()


def first_extents(leaves: Iterable[Any]) -> set[int]:
    """The extents of the first axes of what has a shape; 0 of what has no axis."""
    return {leaf.shape[0] if len(leaf.shape) else 0 for leaf in leaves}


@dataclass(frozen=True, slots=True)
class Structure:
    """How tensors nest: tuples, lists, dicts, Hugging Face's outputs, and what PyTorch knows.

    Args:
        spec: PyTorch's description of the tree.
        leaves: ``TENSOR`` for each tensor; what else a leaf is (None, a flag, a word) is fixed.
    """

    spec: pytree.TreeSpec
    leaves: tuple[object, ...]

    def __reduce__(self) -> tuple[Any, ...]:
        """Without PyTorch's class of a leaf, which warns when it is unpickled."""
        return _structure, (_told(self.spec), self.leaves)

    @property
    def tensors(self) -> int:
        """How many tensors there are."""
        return sum(leaf is TENSOR for leaf in self.leaves)

    def build(self, tensors: Iterable[Any]) -> Any:
        """The tree around other tensors, in the order of ``flatten``."""
        rest = iter(tensors)
        leaves = [next(rest) if leaf is TENSOR else leaf for leaf in self.leaves]
        return pytree.tree_unflatten(leaves, self.spec)

    def names(self, prefix: str) -> Iterator[str]:
        """A name for each tensor: by key in a dict of leaves, else by number, or the prefix."""
        if self.spec.type is dict and self.spec.num_leaves == len(self.spec.context):
            keys = zip(self.spec.context, self.leaves, strict=True)
            yield from (f"{prefix}.{key}" for key, leaf in keys if leaf is TENSOR)
        elif self.tensors == 1:
            yield prefix
        else:
            yield from (f"{prefix}.{place}" for place in range(self.tensors))


def _told(spec: pytree.TreeSpec) -> tuple[Any, ...] | None:
    if spec.is_leaf():
        return None
    return spec.type, spec.context, tuple(_told(child) for child in spec.children())


def _spec(told: tuple[Any, ...] | None) -> pytree.TreeSpec:
    if told is None:
        return pytree.treespec_leaf()
    kind, context, children = told
    return pytree.TreeSpec(kind, context, [_spec(child) for child in children])


def _structure(told: tuple[Any, ...] | None, leaves: tuple[object, ...]) -> Structure:
    return Structure(_spec(told), leaves)


def flatten(tree: Any) -> tuple[list[Tensor], Structure]:
    """The tensors of a tree, and how they nest."""
    leaves, spec = pytree.tree_flatten(tree)
    fixed = tuple(TENSOR if isinstance(leaf, Tensor) else leaf for leaf in leaves)
    return [leaf for leaf in leaves if isinstance(leaf, Tensor)], Structure(spec, fixed)


def flatten_output(tree: Any) -> tuple[list[Tensor], Structure]:
    """As ``flatten``; a leaf that is neither tensor nor plain (such as a cache) becomes None."""
    plain = (*_FIXED, int, float)
    return flatten(pytree.tree_map(lambda x: x if isinstance(x, (Tensor, *plain)) else None, tree))


def is_fixed(leaf: object) -> bool:
    """Whether a leaf of a batch is part of its structure: None, a flag or a word."""
    return isinstance(leaf, _FIXED)


def arguments(inputs: Any) -> tuple[Any, ...] | dict[str, Any]:
    """Inputs as a model is called with them: a tuple of arguments, or a dict of keywords."""
    if isinstance(inputs, Mapping):
        return dict(inputs)
    return tuple(inputs) if isinstance(inputs, (tuple, list)) else (inputs,)


def as_tensors(tree: Any) -> Any:
    """A tree of arrays and numbers as one of tensors; what is fixed stays."""
    return pytree.tree_map(lambda x: x if is_fixed(x) else torch.as_tensor(x), tree)
