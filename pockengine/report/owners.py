"""Which tensor of the model each kernel works for: through all passes, tensors keep their names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from torch.fx import Node

from pockengine.ir.graph import name_of, role_of
from pockengine.ir.types import Role
from pockengine.lower.kernel import Kernel

_NOTHING: Mapping[str, str] = MappingProxyType({})


def kernel_owners(
    kernels: Sequence[Kernel], folded: Mapping[str, str] = _NOTHING
) -> tuple[list[str], dict[str, str]]:
    """The owners of kernels, and of the values that they write, by name; empty where there is none.

    A kernel works for the parameter that it updates, else for the first tensor of the model that it
    reads, else for the owner of the first value that it reads.

    Args:
        kernels: of one entry point, in an order in which they can run.
        folded: the model's tensor that a constant computed ahead of time stems from.
    """
    owners: list[str] = []
    values: dict[str, str] = {}
    for kernel in kernels:
        owner = _owner(kernel, values)
        owner = folded.get(owner, owner)
        owners.append(owner)
        values |= {node.name: owner for node in kernel.writes}
    return owners, values


def _owner(kernel: Kernel, values: dict[str, str]) -> str:
    updated = [name_of(node) for node in kernel.updates if role_of(node) is Role.PARAM]
    tensors = [name_of(node) for node in kernel.reads if _is_tensor(node)]
    inherited = [values[node.name] for node in kernel.reads if values.get(node.name)]
    return next(iter((*updated, *tensors, *inherited)), "")


def _is_tensor(node: Node) -> bool:
    return role_of(node) in (Role.PARAM, Role.CONST)
