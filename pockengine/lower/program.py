"""The kernels of a fused graph: what the planner has to know of them, and their cached code.

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

from pockengine.ir.graph import calls, group_of
from pockengine.ir.joined import stored_parts
from pockengine.lower.cache import KernelCache, Request, build_many, kernel_key, read_payload
from pockengine.lower.in_place import in_place_pairs
from pockengine.lower.kernel import Kernel
from pockengine.lower.link import cache_dir
from pockengine.lower.progress import Progress
from pockengine.lower.tile_parameters import Choice
from pockengine.lower.trailer import TRAILER, read_trailer
from pockengine.lower.tuning import Tuning, told
from pockengine.plan.ownership import Work


@dataclass(frozen=True, slots=True)
class Built:
    """A kernel's code.

    Args:
        path: its file in the cache, for ``lower.cache.load`` or, of an object, ``object_bytes``.
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
    texts: Iterable[str],
    target: Mapping[str, Any],
    cache: KernelCache | None = None,
    *,
    as_objects: bool = False,
    progress: Progress | None = None,
    tuning: Tuning | None = None,
) -> dict[str, Built]:
    """Have the code of kernels, building those that the cache lacks.

    Args:
        texts: kernels as IR text (``Kernel.text``); equal ones are built once.
        target: resolved TVM target; without ``as_objects``, of this host.
        cache: where they are kept; the user's by default.
        as_objects: object files that a linker takes, each defining its ``kernel_name``, instead of
            code that this process maps.
        progress: is told how many of the missing ones are built.
        tuning: how contractions are cut; None for what the machine model says.

    Raises:
        BuildError: a kernel could not be built, or the cache cannot be written.
    """
    kept = host_cache() if cache is None else cache
    spec = json.dumps(dict(target), sort_keys=True)
    prefix, build = ("object\n", _build_object) if as_objects else ("", _build)
    choices = {text: {} if tuning is None else tuning.choices_of(text) for text in texts}
    keys = {text: kernel_key(prefix + text + told(choices[text]), target) for text in choices}
    requests = [Request(key, build, (text, spec, choices[text])) for text, key in keys.items()]
    paths = build_many(kept, requests, progress=progress)
    found = {}
    for text, key in keys.items():
        extent, grain = read_trailer(paths[key].read_bytes())
        found[text] = Built(paths[key], extent, grain)
    return found


def _build(text: str, target: str, choices: Mapping[str, Choice]) -> bytes:
    from pockengine.lower.build import build_blob  # noqa: PLC0415 - imports TVM

    return build_blob(text, target, choices)


def _build_object(text: str, target: str, choices: Mapping[str, Choice]) -> bytes:
    from pockengine.lower.build import build_object  # noqa: PLC0415 - imports TVM

    return build_object(text, target, kernel_name(text), choices)


def object_bytes(path: Path) -> bytes:
    """The object file of a kernel that ``build_kernels`` built as one.

    Args:
        path: its file in the cache.

    Raises:
        BuildError: the file is missing or damaged.
    """
    return read_payload(path)[: -TRAILER.size]


def works(graph: Graph, kernels: Sequence[Kernel]) -> list[Work]:
    """The kernels of a fused graph as the planner sees them, which read by part what is joined."""
    members: dict[int | None, list[Node]] = {}
    for node in calls(graph):
        members.setdefault(group_of(node), []).append(node)
    return [
        Work(
            reads=tuple(part for node in kernel.reads for part in stored_parts(node)),
            writes=kernel.writes,
            updates=kernel.updates,
            in_place=in_place_pairs(kernel, members[kernel.group]),
        )
        for kernel in kernels
    ]
