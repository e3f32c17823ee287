"""The kernels of a fused graph: what the planner has to know of them, and their cached code.

Nothing here imports TVM unless a kernel is missing from the cache.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch.fx import Graph, Node

from pockengine.ir.graph import calls, group_of, kind_of, op_name, type_of
from pockengine.ir.ops import Kind
from pockengine.ir.types import TensorType
from pockengine.ir.verify import base_of
from pockengine.lower.cache import KernelCache, Request, build_many, kernel_key, read_payload
from pockengine.lower.kernel import Kernel
from pockengine.lower.link import cache_dir
from pockengine.lower.trailer import TRAILER, read_trailer
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
) -> dict[str, Built]:
    """Have the code of kernels, building those that the cache lacks.

    Args:
        texts: kernels as IR text (``Kernel.text``); equal ones are built once.
        target: resolved TVM target; without ``as_objects``, of this host.
        cache: where they are kept; the user's by default.
        as_objects: object files that a linker takes, each defining its ``kernel_name``, instead of
            code that this process maps.

    Raises:
        BuildError: a kernel could not be built, or the cache cannot be written.
    """
    kept = host_cache() if cache is None else cache
    spec = json.dumps(dict(target), sort_keys=True)
    prefix, build = ("object\n", _build_object) if as_objects else ("", _build)
    keys = {text: kernel_key(prefix + text, target) for text in texts}
    paths = build_many(kept, [Request(key, build, (text, spec)) for text, key in keys.items()])
    found = {}
    for text, key in keys.items():
        extent, grain = read_trailer(paths[key].read_bytes())
        found[text] = Built(paths[key], extent, grain)
    return found


def _build(text: str, target: str) -> bytes:
    from pockengine.lower.build import build_blob  # noqa: PLC0415 - imports TVM

    return build_blob(text, target)


def _build_object(text: str, target: str) -> bytes:
    from pockengine.lower.build import build_object  # noqa: PLC0415 - imports TVM

    return build_object(text, target, kernel_name(text))


def object_bytes(path: Path) -> bytes:
    """The object file of a kernel that ``build_kernels`` built as one.

    Args:
        path: its file in the cache.

    Raises:
        BuildError: the file is missing or damaged.
    """
    return read_payload(path)[: -TRAILER.size]


def works(graph: Graph, kernels: Sequence[Kernel]) -> list[Work]:
    """The kernels of a fused graph as the planner sees them."""
    members: dict[int | None, list[Node]] = {}
    for node in calls(graph):
        members.setdefault(group_of(node), []).append(node)
    return [
        Work(
            reads=kernel.reads,
            writes=kernel.writes,
            updates=kernel.updates,
            in_place=in_place_pairs(kernel, members[kernel.group]),
        )
        for kernel in kernels
    ]


def in_place_pairs(kernel: Kernel, nodes: Sequence[Node]) -> tuple[tuple[Node, Node], ...]:
    """Which stored value a kernel may overwrite with which of its results: (read, write) pairs.

    An elementwise kernel that stores one value loads all that it needs of an element before it
    stores that element. The read then has to be of the same type and used directly: a view could
    show another element. For the same reason nothing that the kernel computes may be viewed.

    Args:
        kernel: of a fused graph.
        nodes: the calls of its group.
    """
    if len(kernel.writes) != 1 or kernel.updates:
        return ()
    inside = set(nodes)
    if any(_moves(node, inside) for node in nodes):
        return ()
    (write,) = kernel.writes
    kind = type_of(write)
    alike = [read for read in kernel.reads if type_of(read) == kind]
    return tuple((read, write) for read in alike if not _is_viewed(read, nodes, kind))


def _moves(node: Node, inside: AbstractSet[Node]) -> bool:
    """Whether an element may come from another place than its own within the kernel."""
    if kind_of(node) is not Kind.MAP and op_name(node) != "take_rows":
        return True
    return any(base_of(o) is not o and base_of(o) in inside for o in node.all_input_nodes)


def _is_viewed(read: Node, nodes: Sequence[Node], kind: TensorType) -> bool:
    """Whether some node needs another element of what is read than the one it computes."""
    for node in nodes:
        viewed = any(base_of(o) is read and o is not read for o in node.all_input_nodes)
        elsewhere = kind_of(node) is not Kind.MAP or type_of(node).shape != kind.shape
        if viewed or (read in node.all_input_nodes and elsewhere):
            return True
    return False
