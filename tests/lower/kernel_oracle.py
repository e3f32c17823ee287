"""Run the kernels of a fused graph one by one against the interpreter."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from torch import Tensor
from torch.fx import Graph, Node

from pockengine.ir.graph import calls, name_of, placeholders, type_of
from pockengine.lower.build import build_blob
from pockengine.lower.cache import KernelCache, kernel_key, load
from pockengine.lower.features import host_target
from pockengine.lower.kernel import Kernel, kernels
from pockengine.lower.program import works
from pockengine.lower.trailer import TRAILER
from tests.lower.harness import run

AVX512 = {"kind": "llvm", "mtriple": "x86_64-linux-gnu", "mattr": ["+avx512f"]}
"""A target with vectors of sixteen lanes, whatever the host has."""


def random_values(graph: Graph, below: int = 5) -> dict[str, Tensor]:
    """Normal numbers, and whole ones under a bound, for each placeholder by its canonical name."""
    generator = torch.Generator().manual_seed(0)
    return {
        name_of(node): torch.randn(type_of(node).shape, generator=generator)
        if type_of(node).dtype.is_float
        else torch.randint(0, below, type_of(node).shape, generator=generator)
        for node in placeholders(graph)
    }


def reference(graph: Graph, values: Mapping[str, Tensor]) -> dict[Node, Tensor]:
    """Every value of a graph, from tensors by canonical placeholder name."""
    found: dict[Node, Tensor] = {node: values[name_of(node)] for node in placeholders(graph)}
    for node in graph.nodes:
        if node.op == "call_function":
            args = torch.fx.map_arg(node.args, found.__getitem__)
            kwargs = torch.fx.map_arg(dict(node.kwargs), found.__getitem__)
            found[node] = node.target(*args, **kwargs)
    return found


def check_kernels(
    graph: Graph, values: Mapping[str, Tensor], folder: Path, tolerance: float = 2e-5
) -> int:
    """Run each kernel on the interpreter's inputs, its range in two pieces; the number of kernels.

    What may be done in place is run so too, and has to give the same bits. An update of a whole
    value counts as a result. A result may differ by ``tolerance`` of its largest finite element;
    NaN and infinity must be where the interpreter has them.
    """
    expected = reference(graph, values)
    found = kernels(graph)
    made = {update.args[0]: expected[update] for update in calls(graph, "update")}
    for kernel, work in zip(found, works(graph, found), strict=True):
        results = _run(kernel, expected, folder)
        shared = _shared(work.in_place)
        if shared:
            again = _run(kernel, expected, folder, shared)
            for node in kernel.writes:
                assert torch.equal(again[node].nan_to_num(), results[node].nan_to_num()), (
                    kernel.text
                )
        for node in (*kernel.writes, *(n for n in kernel.updates if n in made)):
            wanted = made.get(node, expected[node])
            finite = wanted[wanted.isfinite()] if wanted.is_floating_point() else wanted.double()
            scale = finite.abs().max().item() if finite.numel() else 1.0
            torch.testing.assert_close(
                results[node],
                wanted,
                rtol=0,
                atol=tolerance * max(scale, 1e-6),
                equal_nan=True,
                msg=lambda text, kernel=kernel: f"{text}\n{kernel.text}",
            )
    return len(found)


def _shared(pairs: Iterable[tuple[Node, Node]]) -> dict[Node, Node]:
    """All results that can at once lie where something lies that the kernel reads."""
    found: dict[Node, Node] = {}
    for read, write in pairs:
        if write not in found and read not in found.values():
            found[write] = read
    return found


def _run(
    kernel: Kernel,
    expected: Mapping[Node, Tensor],
    folder: Path,
    shared: Mapping[Node, Node] | None = None,
) -> dict[Node, Tensor]:
    """What a kernel writes; ``shared`` names the read whose bytes a result takes over."""
    target = host_target()
    cache, key = KernelCache(folder), kernel_key(kernel.text, target)
    image = cache.get(key)
    if image is None:
        image = build_blob(kernel.text, json.dumps(target))
        cache.put(key, image)
    extent, _ = TRAILER.unpack(image[-TRAILER.size :])
    stored = [
        _stored(node, expected[node] if node in kernel.reads else None) for node in kernel.operands
    ]
    for write, read in (shared or {}).items():
        place, there = kernel.operands.index(write), stored[kernel.operands.index(read)]
        stored[place] = there.view(stored[place].shape)
    shifts = (*kernel.shifts, *(0 for _ in kernel.writes))
    pairs = zip(stored, shifts, strict=True)
    arrays = [tensor.flatten()[ahead:].numpy() for tensor, ahead in pairs]
    address = load(cache.path(key))
    for begin, end in ((extent // 2, extent), (0, extent // 2)):
        assert run(address, arrays, begin, end) == 0
    return {
        node: tensor.permute(_inverse(node)) if type_of(node).order else tensor
        for node, tensor in zip(kernel.operands, stored, strict=True)
    }


def _stored(node: Node, value: Tensor | None) -> Tensor:
    """A value in its storage order; what is still to be written holds a nonzero pattern."""
    kind = type_of(node)
    if value is None:
        value = torch.full(kind.shape, 7.0).to(kind.dtype.torch)
    order = kind.order or tuple(range(len(kind.shape)))
    return value.to(kind.dtype.torch).permute(order).contiguous().clone()


def _inverse(node: Node) -> tuple[int, ...]:
    order = type_of(node).order
    return tuple(order.index(axis) for axis in range(len(order)))
