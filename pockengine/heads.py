"""A classifier's head: another number of classes, with what it knows of the old ones kept."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from pockengine.checks import is_whole, kind_of
from pockengine.errors import SchemeError


def replace_head(
    model: nn.Module, *, classes: int, keep: Sequence[int] = (), name: str | None = None
) -> str:
    """Give a model a head of so many classes, in its place and of its dtype and device.

    ``replace_head(model, classes=11, keep=range(10))`` adds a class to ten. What is not kept
    starts as ``nn.Linear`` does (``torch.manual_seed`` repeats it).

    Args:
        model: changed in place.
        classes: how many the new head has.
        keep: old classes whose weights become those of the first new ones, in this order.
        name: of the head; by default the last linear layer, in the order of registration.

    Returns:
        The head's name.

    Raises:
        SchemeError: no such linear layer, a head that is tied to another weight, or classes to keep
            that the old head does not have or the new one has no place for.
    """
    if not isinstance(model, nn.Module):
        raise SchemeError(
            where="replace_head(model)",
            found=kind_of(model),
            needed="a torch.nn.Module",
            remedy="Pass the model itself",
        )
    name, old = _head(model, name)
    if not isinstance(keep, Sequence) or not all(map(is_whole, keep)):
        raise SchemeError(
            where="replace_head(keep)",
            found=repr(keep),
            needed="the old classes to keep, in a list",
            remedy=f"Give keep=range({old.out_features}) for all",
        )
    kept = list(keep)
    _check_classes(name, old, classes, kept)
    new = nn.Linear(
        old.in_features,
        classes,
        bias=old.bias is not None,
        device=old.weight.device,
        dtype=old.weight.dtype,
    )
    with torch.no_grad():
        new.weight[: len(kept)] = old.weight[kept]
        if old.bias is not None:
            new.bias[: len(kept)] = old.bias[kept]
    for fresh, former in zip(new.parameters(), old.parameters(), strict=True):
        fresh.requires_grad_(former.requires_grad)
    parent, _, leaf = name.rpartition(".")
    setattr(model.get_submodule(parent), leaf, new.train(old.training))
    return name


def _head(model: nn.Module, name: str | None) -> tuple[str, nn.Linear]:
    layers = {n: m for n, m in model.named_modules() if isinstance(m, nn.Linear) and n}
    chosen = next(reversed(layers), "") if name is None else name
    if chosen not in layers:
        raise SchemeError(
            where="replace_head",
            found=f"no linear layer {chosen!r}" if name else "a model without a linear layer in it",
            needed="a model that ends in nn.Linear, or the layer's name",
            remedy=f"Name one of {', '.join(layers)}" if layers else "Add the new head by hand",
        )
    head = layers[chosen]
    named = model.named_parameters(remove_duplicate=False)
    if ties := [n for n, p in named if p is head.weight and n != f"{chosen}.weight"]:
        raise SchemeError(
            where=f"replace_head: {chosen}",
            found=f"a weight that is tied to {ties[0]}",
            needed="a head with a weight of its own",
            remedy="Give the head's name (name=...)",
        )
    return chosen, head


def _check_classes(name: str, old: nn.Linear, classes: int, kept: Sequence[int]) -> None:
    if (
        not is_whole(classes)
        or classes < 1
        or len(kept) > classes
        or any(not 0 <= k < old.out_features for k in kept)
    ):
        raise SchemeError(
            where=f"replace_head: {name}",
            found=f"{classes!r} classes, keeping {list(kept)} of {old.out_features}",
            needed=f"one class or more, and at most as many kept, of 0 to {old.out_features - 1}",
            remedy="Give classes=10, keep=range(old_classes), for example",
        )
