"""What the page shows, as one tree of plain values."""

from __future__ import annotations

from math import prod
from typing import Any

from torch import nn

from pockengine.ir.text import parse
from pockengine.lower.kernel import Kernel
from pockengine.plan.flops import kernel_bytes, kernel_flops
from pockengine.report.inspect_graph import Inspection
from pockengine.report.kernel_kind import kernel_kind
from pockengine.report.owners import kernel_owners
from pockengine.report.page.layers import UNOWNED, Work, layer_of, work_by_layer
from pockengine.report.plan_summary import regions
from pockengine.report.tables import optimizer_text
from pockengine.targets import Target


def content(found: Inspection, *, model: str, scheme: str | None) -> dict[str, Any]:
    """Everything on the page, fit for JSON.

    Args:
        found: a prepared trainer.
        model: what the user calls it.
        scheme: what the user calls the scheme; None for the model's own ``requires_grad``.
    """
    prepared = found.prepared
    layers = _layers(found)
    names = [layer["name"] for layer in layers]
    texts: dict[str, int] = {}
    entries = {
        name: _entry(found, name, names, texts)
        for name in prepared.plan.entries
        if name in ("step", "predict", "evaluate")
    }
    return {
        "model": model,
        "scheme": scheme or "requires_grad",
        "optimizer": optimizer_text(prepared.optimizer),
        "target": _target(prepared.target),
        "regions": regions(prepared.plan),
        "layers": layers,
        "entries": entries,
        "texts": list(texts),
    }


def _target(target: Target) -> dict[str, Any]:
    source = target.sources.get("fma_flops_per_s", "")
    return {
        "name": target.name,
        "description": target.description,
        "flops": target.fma_flops_per_s,
        "bandwidth": target.memory_bytes_per_s,
        "source": source,
    }


def _layers(found: Inspection) -> list[dict[str, Any]]:
    """The tree of modules in the order of registration, each after its parent; then the loss."""
    prepared = found.prepared
    full = work_by_layer(prepared.captured.graph)
    kept = work_by_layer(found.pruned)
    model = prepared.scheme.prepared(found.workload.model)
    kinds = {name: type(module).__name__ for name, module in model.named_modules()}
    tensors = _tensors(found)
    order = dict.fromkeys([*kinds, *full, *tensors])
    return [
        _layer(
            name,
            kinds.get(name, ""),
            tensors.get(name, []),
            full.get(name, Work()),
            kept.get(name, Work()),
        )
        for name in sorted(order, key=_by_registration(list(kinds)))
    ]


def _by_registration(known: list[str]) -> Any:
    places = {name: index for index, name in enumerate(known)}

    def key(name: str) -> tuple[int, str]:
        """Where a module is registered; one that is not, with the nearest that holds it."""
        holder = name
        if name == UNOWNED:
            return len(places), name
        while holder and holder not in places:
            holder = layer_of(holder)
        return places[holder], name

    return key


def _layer(
    name: str, kind: str, tensors: list[dict[str, Any]], full: Work, kept: Work
) -> dict[str, Any]:
    return {
        "name": name,
        "kind": kind,
        "tensors": tensors,
        "forward": full.forward,
        "backward": full.backward,
        "kept": kept.backward,
    }


def _tensors(found: Inspection) -> dict[str, list[dict[str, Any]]]:
    """The parameters of each layer, and the fraction of each that the scheme updates."""
    prepared = found.prepared
    layers: dict[str, list[dict[str, Any]]] = {}
    model: nn.Module = prepared.scheme.prepared(found.workload.model)
    for name, parameter in model.named_parameters():
        shape = list(parameter.shape)
        updated = prepared.scheme.get(name, 0.0)
        layers.setdefault(layer_of(name), []).append(
            {"name": name, "shape": shape, "size": prod(shape), "updated": updated}
        )
    return layers


def _entry(
    found: Inspection, name: str, layers: list[str], texts: dict[str, int]
) -> dict[str, Any]:
    """The kernels of an entry point in their order, and its memory over time."""
    plan = found.prepared.plan.entries[name]
    ordered = found.ordered(name)
    owners, values = kernel_owners(ordered, found.folded)
    places = {layer: index for index, layer in enumerate(layers)}
    return {
        "arena": plan.arena_bytes,
        "bound": plan.lower_bound_bytes,
        "saved": plan.saved_bytes,
        "commit": plan.commit,
        "kernels": [
            _kernel(kernel, _place(places, owner), owner, texts)
            for kernel, owner in zip(ordered, owners, strict=True)
        ],
        "values": [
            [v.name, v.lower, v.upper, v.offset, v.nbytes, _place(places, values.get(v.name, ""))]
            for v in plan.values
        ],
    }


def _place(places: dict[str, int], owner: str) -> int:
    """The layer of a tensor; -1 of what belongs to none, such as an input."""
    return places.get(layer_of(owner), -1) if owner else -1


def _kernel(kernel: Kernel, layer: int, owner: str, texts: dict[str, int]) -> list[Any]:
    graph = parse(kernel.text)
    number = texts.setdefault(kernel.text, len(texts))
    flops, nbytes = kernel_flops(graph), kernel_bytes(graph)
    return [kernel_kind(graph), layer, owner, flops, nbytes, number]
