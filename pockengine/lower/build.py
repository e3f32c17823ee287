"""Build one kernel: its IR text becomes TIR, and TIR machine code. Runs only on a cache miss."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from torch.fx import Graph, Node
from tvm import tirx

from pockengine.ir.graph import outputs_of, placeholders, type_of
from pockengine.ir.text import parse
from pockengine.lower import nest
from pockengine.lower.cat_kernel import cat_body
from pockengine.lower.codegen import compile_blob, compile_function
from pockengine.lower.contract_kernel import contract_body
from pockengine.lower.elementwise import STORED
from pockengine.lower.invert_kernel import invert_body
from pockengine.lower.kernel import form_of, stored_outputs
from pockengine.lower.map_kernel import map_body, pack_body
from pockengine.lower.nest import Buffer
from pockengine.lower.order_kernels import last_places_body, scan_body, sort_body
from pockengine.lower.pool_kernel import pool_body
from pockengine.lower.reduce_kernel import reduce_body
from pockengine.lower.rows_kernel import rows_body
from pockengine.lower.stencil_kernel import stencil_body
from pockengine.lower.tile_parameters import UNTUNED, Choice, TileParameters, tile_parameters
from pockengine.lower.trailer import TRAILER
from pockengine.lower.values import LaneError
from pockengine.lower.work import Work

_BY_LANES: dict[str, Callable[[Graph, Mapping[Node, Buffer], int], Work]] = {
    "map": map_body,
    "rows": rows_body,
    "reduce": reduce_body,
    "pack_bits": pack_body,
    "invert_index": invert_body,
    "cat": cat_body,
    "cumsum": scan_body,
    "cumprod": scan_body,
    "last_places": last_places_body,
    "sort_places": sort_body,
}
_BY_TILES: dict[str, Callable[[Graph, Mapping[Node, Buffer], TileParameters], Work]] = {
    "stencil": stencil_body,
    "pool": pool_body,
}


def kernel_function(
    text: str, target: Mapping[str, Any], choices: Mapping[str, Choice] = UNTUNED
) -> tuple[tirx.PrimFunc, Work]:
    """The TIR of a kernel, and its range.

    Args:
        text: the kernel's graph (``lower.kernel.Kernel.text``).
        target: resolved TVM target dict.
        choices: how contractions are cut, by signature; others as the machine model says.
    """
    graph = parse(text)
    tiles = tile_parameters(target)
    while tiles.vector_lanes > 1:
        try:
            return _function(graph, tiles, choices)
        except LaneError:  # rows shorter than a vector (a head of 5 channels): narrower ones fit
            tiles = replace(tiles, vector_lanes=tiles.vector_lanes // 2)
            choices = UNTUNED  # they are for whole vectors
    return _function(graph, tiles, choices)


def _function(
    graph: Graph, tiles: TileParameters, choices: Mapping[str, Choice]
) -> tuple[tirx.PrimFunc, Work]:
    nodes = [*placeholders(graph), *outputs_of(graph).outputs]
    buffers = {node: _buffer(node) for node in nodes}
    form = form_of(graph)
    if not any(type_of(node).size for node in stored_outputs(graph)):
        work = Work(0, 1, lambda *_: nest.block())
    elif form == "contract":
        work = contract_body(graph, buffers, tiles, choices)
    elif form in _BY_TILES:
        work = _BY_TILES[form](graph, buffers, tiles)
    else:
        work = _BY_LANES[form](graph, buffers, tiles.vector_lanes)
    return nest.kernel([buffers[node] for node in nodes], work.body), work


def _buffer(node: Node) -> Buffer:
    found = type_of(node)
    return nest.operand(node.name, max(1, found.size), STORED[found.dtype])


def build_blob(text: str, target: str, choices: Mapping[str, Choice] = UNTUNED) -> bytes:
    """Position-independent code of a kernel for this host, and its trailer; ``target`` is JSON."""
    spec = json.loads(target)
    function, work = kernel_function(text, spec, choices)
    return compile_blob(function, spec, "kernel") + TRAILER.pack(work.extent, work.grain)


def build_object(
    text: str, target: str, name: str, choices: Mapping[str, Choice] = UNTUNED
) -> bytes:
    """Object file of a kernel for any target, and its trailer; ``target`` is JSON."""
    spec = json.loads(target)
    function, work = kernel_function(text, spec, choices)
    return compile_function(function, spec, name, work.extent) + TRAILER.pack(
        work.extent, work.grain
    )
