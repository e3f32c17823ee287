"""What a scheme needs to know of a module tree, whatever the model: biases, head, blocks, channels.

Order is the order of registration throughout, and names are canonical: a tied parameter has its
first.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from torch import nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

_CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)


def parameter_names(model: nn.Module) -> list[str]:
    """Canonical names of all floating-point parameters."""
    return [name for name, p in model.named_parameters() if p.is_floating_point()]


def bias_names(model: nn.Module) -> list[list[str]]:
    """The biases of each module that owns any: ``bias``, ``bias_*`` and ``*_bias``."""
    groups: dict[str, list[str]] = {}
    for name in parameter_names(model):
        owner, _, leaf = name.rpartition(".")
        if leaf == "bias" or leaf.startswith("bias_") or leaf.endswith("_bias"):
            groups.setdefault(owner, []).append(name)
    return list(groups.values())


def head_names(model: nn.Module) -> list[str]:
    """The parameters of the last linear layer; empty where there is none."""
    first = {id(p): name for name, p in model.named_parameters()}
    linear = [module for module in model.modules() if isinstance(module, nn.Linear)]
    return [first[id(p)] for p in linear[-1].parameters()] if linear else []


def channel_axes(model: nn.Module) -> dict[int, tuple[int, int]]:
    """(axis of the input channels, indices of it per channel) of weights that have them, by id.

    A weight that is computed of others, by a parametrization, is none, and is not computed here.
    """
    found: dict[int, tuple[int, int]] = {}
    for module in model.modules():
        weight = module._parameters.get("weight")  # noqa: SLF001 - the attribute may be computed
        if weight is None:
            continue
        if isinstance(module, nn.Linear):
            found[id(weight)] = (1, 1)
        elif isinstance(module, _ConvNd):
            found[id(weight)] = _convolution_axis(module)
    return found


def _convolution_axis(module: _ConvNd) -> tuple[int, int]:
    if module.groups == module.in_channels > 1:  # depthwise: some outputs for each channel
        transposed = isinstance(module, _ConvTransposeNd)
        return 0, 1 if transposed else module.out_channels // module.groups
    return (0, 1) if isinstance(module, _ConvTransposeNd) else (1, 1)


def names_from_block(model: nn.Module, count: int) -> tuple[list[str], int]:
    """Names from the first of the last ``count`` blocks on, and how many blocks there are.

    Parameters that are tied to one registered earlier have that one's name and place.
    """
    found = blocks(model)
    if count > len(found):
        return [], len(found)
    inside = {id(p) for p in found[-count].parameters()}
    named = [(name, id(p)) for name, p in model.named_parameters() if p.is_floating_point()]
    earlier = {id(p) for block in found[:-count] for p in block.parameters()}
    start = next(
        (i for i, (_, p) in enumerate(named) if p in inside - earlier),
        len(named),
    )
    return [name for name, _ in named[start:]], len(found)


def blocks(model: nn.Module) -> list[nn.Module]:
    """The repeated blocks: the outermost modules that a container holds at least two alike of.

    Alike is of one class, and a block has modules of its own; nested containers count as one (so
    the four stages of a ResNet are sixteen blocks). Of several classes at one depth the most
    frequent is taken. Where nothing repeats, a block is a layer: a module that owns a weight of at
    least two axes.
    """
    level = [model]
    while level:
        held = [child for module in level for child in _held(module) if _composite(child)]
        kind, count = Counter(map(type, held)).most_common(1)[0] if held else (nn.Module, 0)
        if count > 1:
            return [child for child in held if type(child) is kind]
        level = [child for module in level for child in _children(module)]
    return [module for module in model.modules() if _is_layer(module)]


def _children(module: nn.Module) -> list[nn.Module]:
    """Children; those of containers in their place."""
    found: list[nn.Module] = []
    for child in module.children():
        found.extend(_children(child) if type(child) in _CONTAINERS else [child])
    return found


def _held(module: nn.Module) -> Sequence[nn.Module]:
    """What the module's containers hold, or it itself if it is one."""
    if isinstance(module, _CONTAINERS):
        return _children(module)
    return [
        held
        for child in module.children()
        if type(child) in _CONTAINERS
        for held in _children(child)
    ]


def _composite(module: nn.Module) -> bool:
    return any(True for _ in module.children()) and any(True for _ in module.parameters())


def _is_layer(module: nn.Module) -> bool:
    return any(p.dim() > 1 for p in module.parameters(recurse=False))
