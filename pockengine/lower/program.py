"""The kernels of a fused graph: what the planner has to know of them, and their code from the cache.

Nothing here imports TVM unless a kernel is missing from the cache.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch.fx import Graph, Node

from pockengine.ir.graph import calls, kind_of, op_name, outputs_of, placeholders, type_of
from pockengine.ir.ops import Kind
from pockengine.ir.text import parse
from pockengine.ir.verify import base_of
from pockengine.lower.cache import KernelCache, Request, build_many, kernel_key
from pockengine.lower.kernel import Kernel, form_of
from pockengine.lower.link import cache_dir
from pockengine.lower.trailer import read_trailer
from pockengine.plan.ownership import Work


@dataclass(frozen=True, slots=True)
class Built:
    """A kernel's code for this host.

    Args:
        path: its file in the cache, for ``lower.cache.load``.
        extent: its outer loop runs over [0, extent).
        grain: the least iterations worth a thread of their own; 0 keeps the range whole.
    """

    path: Path
    extent: int
    grain: int


def kernel_name(text: str) -> str:
    """The symbol of a kernel: equal kernels have equal names, on every target."""
    return f"pe_{hashlib.sha256(text.encode()).hexdigest()[:16]}"


def host_cache() -> KernelCache:
    """The user's cache of kernels."""
    return KernelCache(cache_dir() / "kernels")


def build_kernels(
    texts: Iterable[str], target: Mapping[str, Any], cache: KernelCache | None = None
) -> dict[str, Built]:
    """Have the code of kernels, building those that the cache lacks.

    Args:
        texts: kernels as IR text (``Kernel.text``); equal ones are built once.
        target: resolved TVM target of this host.
        cache: where they are kept; the user's by default.

    Raises:
        BuildError: a kernel could not be built, or the cache cannot be written.
    """
    kept = host_cache() if cache is None else cache
    spec = json.dumps(dict(target), sort_keys=True)
    keys = {text: kernel_key(text, target) for text in texts}
    paths = build_many(kept, [Request(key, _build, (text, spec)) for text, key in keys.items()])
    found = {}
    for text, key in keys.items():
        extent, grain = read_trailer(paths[key].read_bytes())
        found[text] = Built(paths[key], extent, grain)
    return found


def _build(text: str, target: str) -> bytes:
    from pockengine.lower.build import build_blob  # noqa: PLC0415 - imports TVM

    return build_blob(text, target)


def works(kernels: Sequence[Kernel]) -> list[Work]:
    """Kernels as the planner sees them."""
    found: dict[str, list[tuple[int, int]]] = {}
    for kernel in kernels:
        if kernel.text not in found:
            found[kernel.text] = in_place_pairs(parse(kernel.text))
    return [
        Work(
            reads=kernel.reads,
            writes=kernel.writes,
            updates=kernel.updates,
            in_place=tuple((kernel.reads[r], kernel.writes[w]) for r, w in found[kernel.text]),
        )
        for kernel in kernels
    ]


def in_place_pairs(graph: Graph) -> list[tuple[int, int]]:
    """Which reads of a kernel a write may overwrite, as indices into its reads and writes.

    A kernel of form ``map`` that stores one value loads all that it needs of an element before it
    stores that element. The read then has to be of the same type, and read nowhere through a view;
    nothing that the kernel computes may be viewed either, as a view could be of another element.

    Args:
        graph: a kernel's own graph.
    """
    found = outputs_of(graph)
    if form_of(graph) != "map" or len(found.outputs) != 1 or found.updates:
        return []
    if any(_moves(node) for node in calls(graph)):
        return []
    (written,) = found.outputs
    return [
        (index, 0)
        for index, read in enumerate(placeholders(graph))
        if type_of(read) == type_of(written) and not _is_viewed(read, written)
    ]


def _moves(node: Node) -> bool:
    """Whether an element may come from elsewhere than the same place."""
    if kind_of(node) is Kind.VIEW:
        return base_of(node).op != "placeholder"
    return kind_of(node) not in (Kind.MAP, Kind.INDEX) or op_name(node) == "unpack_bits"


def _is_viewed(read: Node, written: Node) -> bool:
    """Whether some element of a result needs another element of what is read."""
    shape = type_of(written).shape
    return any(kind_of(user) is not Kind.MAP or type_of(user).shape != shape for user in read.users)
