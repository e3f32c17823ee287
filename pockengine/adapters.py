"""Low-rank adapters: a frozen weight W acts as W + scale B A, and only A and B are trained.

Source: Hu et al., LoRA (2021), section 4.1.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from functools import cache
from math import sqrt
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - the name everybody knows
from torch import Tensor, nn

from pockengine.errors import SchemeError

DOWN, UP = "lora_a", "lora_b"
"""Leaf names of the adapter's parameters: (rank, inputs) and (outputs, rank)."""


class _Adapted(nn.Module):
    """What an adapted layer's class inherits ahead of its own: the layer's output and B A x."""

    lora_a: nn.Parameter
    lora_b: nn.Parameter
    lora_scale: float

    def forward(self, x: Tensor) -> Tensor:
        """As the layer, and the adapter's part."""
        base: Tensor = super().forward(x)
        if isinstance(self, nn.Conv2d):
            part = F.conv2d(F.conv2d(x, self.lora_a, None, self.stride), self.lora_b)
        else:
            part = F.linear(F.linear(x, self.lora_a), self.lora_b)
        return base + part * self.lora_scale


@cache
def _adapted_class(kind: type[nn.Module]) -> type[nn.Module]:
    return type(f"Adapted{kind.__name__}", (_Adapted, kind), {})


def adapt(
    model: nn.Module, *, rank: int, targets: Sequence[str], alpha: float, seed: int
) -> nn.Module:
    """The model with adapters in matching linear layers and 1 x 1 convolutions.

    The model itself is not changed, and its tensors are shared. A starts as
    ``nn.Linear``'s weight does and B as zeros, so the outputs are those of the model.

    Args:
        model: what is adapted.
        rank: rows of A.
        targets: of the layers: names, ends of names (``q_proj``), or shell patterns.
        alpha: the adapters' part is scaled by ``alpha / rank``.
        seed: of A.

    Raises:
        SchemeError: a target that no layer matches, a layer that cannot be adapted, or a rank above
            both of a layer's extents.
    """
    names = _matching(model, targets)
    tensors = [*model.parameters(), *model.buffers()]
    found = copy.deepcopy(model, {id(tensor): tensor for tensor in tensors})
    generator = torch.Generator().manual_seed(seed)
    for name in names:
        module: Any = found.get_submodule(name)
        _refuse_unadaptable(found, name)
        ones = (1,) * (module.weight.dim() - 2)
        outputs, inputs = module.weight.shape[:2]
        _refuse_high_rank(name, rank, max(outputs, inputs))
        bound = 1 / sqrt(inputs)
        down = torch.empty(rank, inputs, *ones).uniform_(-bound, bound, generator=generator)
        kind: Any = type(module)
        module.__class__ = _adapted_class(kind)
        module.lora_a = nn.Parameter(down)
        module.lora_b = nn.Parameter(torch.zeros(outputs, rank, *ones))
        module.lora_scale = alpha / rank
    return found


def adapter_names(model: nn.Module) -> list[str]:
    """Names of all adapters' parameters."""
    return [name for name, _ in model.named_parameters() if name.rpartition(".")[2] in (DOWN, UP)]


def adapter_scales(model: nn.Module) -> dict[str, float]:
    """The scale of each adapted layer, by the layer's name."""
    return {n: m.lora_scale for n, m in model.named_modules() if isinstance(m, _Adapted)}


def merged(state: Mapping[str, Tensor], scales: Mapping[str, float]) -> dict[str, Tensor]:
    """The base model's state_dict, W + scale B A in the place of each adapted weight.

    Args:
        state: of the adapted model.
        scales: by the names of the adapted layers.
    """
    found = dict(state)
    for layer, scale in scales.items():
        prefix = f"{layer}." if layer else ""
        down, up = found.pop(f"{prefix}{DOWN}"), found.pop(f"{prefix}{UP}")
        weight = found[f"{prefix}weight"]
        delta = scale * (up.flatten(1) @ down.flatten(1))
        found[f"{prefix}weight"] = weight + delta.reshape(weight.shape)
    return found


def _matching(model: nn.Module, targets: Sequence[str]) -> list[str]:
    """Names of the layers that are adapted, in the order of registration."""
    layers = [n for n, m in model.named_modules() if isinstance(m, (nn.Linear, nn.Conv2d))]
    unmatched = [t for t in targets if not any(_matches(name, t) for name in layers)]
    if unmatched or not targets:
        raise SchemeError(
            where="Scheme.lora(targets)",
            found=f"nothing that {unmatched[0]!r} names" if unmatched else "no targets",
            needed="names, ends of names or patterns of linear layers and 1 x 1 convolutions",
            remedy=f"Name some of {', '.join(layers[:6])}" + (", ..." if layers[6:] else ""),
        )
    return [name for name in layers if any(_matches(name, target) for target in targets)]


def _matches(name: str, target: str) -> bool:
    return name == target or name.endswith(f".{target}") or fnmatchcase(name, target)


def _refuse_unadaptable(model: nn.Module, name: str) -> None:
    module = model.get_submodule(name)
    parent = model.get_submodule(name.rpartition(".")[0])
    reason = ""
    if isinstance(module, _Adapted):
        reason = "a layer that has an adapter"
    elif isinstance(module, nn.Conv2d) and not _is_pointwise(module):
        reason = f"a convolution of {module.kernel_size}, groups {module.groups}"
    elif isinstance(parent, nn.MultiheadAttention):
        reason = "a layer whose weight nn.MultiheadAttention reads past it"
    elif any(p is module.weight for n, p in _parameters(model) if n != f"{name}.weight"):
        reason = "a weight that is tied to another"
    if reason:
        raise SchemeError(
            where=f"Scheme.lora: {name}",
            found=reason,
            needed="a linear layer, or a 1 x 1 convolution without groups or padding, of its own",
            remedy="Name other targets",
        )


def _refuse_high_rank(name: str, rank: int, most: int) -> None:
    if rank > most:
        raise SchemeError(
            where=f"Scheme.lora(rank): {name}",
            found=str(rank),
            needed=f"at most {most}, the larger extent of its weight",
            remedy="Ask for a lower rank, such as 8, or update the layer itself",
        )


def _is_pointwise(module: nn.Conv2d) -> bool:
    return (
        tuple(module.kernel_size) == (1, 1)
        and module.groups == 1
        and module.padding in ((0, 0), "valid")
    )


def _parameters(model: nn.Module) -> list[tuple[str, nn.Parameter]]:
    return list(model.named_parameters(remove_duplicate=False))
