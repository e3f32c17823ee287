"""Random graphs mean the same after every pass, and their kernels compute what they mean."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from tempfile import mkdtemp

import pytest
import torch
from hypothesis import given
from torch import Tensor
from torch.fx import Graph

from pockengine.ir.graph import op_name
from pockengine.ir.interpret import interpret
from pockengine.ir.ops import OPS
from pockengine.ir.text import parse, text
from pockengine.ir.verify import verify
from pockengine.lower.features import host_target
from pockengine.lower.kernel import kernels
from pockengine.lower.program import works
from pockengine.passes.choose_layout import choose_layout
from pockengine.passes.choose_saved import choose_saved
from pockengine.passes.compress_masks import compress_masks
from pockengine.passes.copy_outputs import copy_outputs
from pockengine.passes.decompose_batch_norm import decompose_batch_norm
from pockengine.passes.fuse import fuse
from pockengine.passes.pad_convolutions import pad_convolutions
from pockengine.passes.simplify import simplify
from pockengine.passes.slice_regions import slice_regions
from pockengine.passes.split_concatenations import split_concatenations
from pockengine.plan.costs import saving_costs
from pockengine.plan.memory import plan_entry, plan_memory
from pockengine.runtime.encoding import MAX_OPERANDS
from pockengine.targets.host import TARGET
from tests.conftest import examples
from tests.lower.kernel_oracle import check_kernels
from tests.properties.graphs import contents, every_step, graphs

PASSES: tuple[Callable[[Graph], Graph], ...] = (
    decompose_batch_norm,
    simplify,
    split_concatenations,
    pad_convolutions,
    compress_masks,
    lambda graph: choose_layout(graph, {}),
    copy_outputs,
    lambda graph: choose_saved(graph, saving_costs(TARGET)),
    fuse,
    lambda graph: slice_regions(graph, 1),
)
SPECIAL = (float("nan"), float("inf"), float("-inf"), -0.0, 0.0)


def lowered(graph: Graph) -> Graph:
    """A graph after all passes."""
    for each in PASSES:
        graph = each(graph)
    return graph


def results(graph: Graph, values: dict[str, Tensor]) -> list[Tensor]:
    """What a graph yields."""
    found = interpret(graph, values)
    return [*found.outputs, *found.gradients.values(), *found.updates.values()]


@cache
def folder() -> Path:
    """Where kernels are kept while the tests run, so that equal ones are built once."""
    return Path(mkdtemp(prefix="pockengine-properties-"))


@examples(60)
@given(graphs())
def test_passes_keep_values(graph: Graph) -> None:
    """Every pass verifies, leaves its argument as it is and keeps all values, in float64."""
    values = {
        name: value.double() if value.is_floating_point() else value
        for name, value in contents(graph).items()
    }
    wanted = results(graph, values)
    for each in PASSES:
        before = text(graph)
        made = verify(each(graph))
        assert text(graph) == before
        for found, right in zip(results(made, values), wanted, strict=True):
            torch.testing.assert_close(found, right, rtol=1e-9, atol=1e-9, equal_nan=True)
        graph = made


@examples(40)
@given(graphs())
def test_simplify_is_idempotent(graph: Graph) -> None:
    """What is simple stays as it is; its text parses back."""
    once = simplify(graph)
    assert text(simplify(once)) == text(once)
    assert text(parse(text(once))) == text(once)


@examples(40)
@given(graphs(most=40))
def test_any_graph_can_be_planned(graph: Graph) -> None:
    """Groups are in a topological order, kernels have few enough operands, and the plan checks."""
    fused = lowered(graph)
    found = kernels(fused)
    assert all(len(kernel.operands) <= MAX_OPERANDS for kernel in found)
    calls = works(fused, found)
    written = {node for work in calls for node in work.writes}
    seen: set[torch.fx.Node] = set()
    for work in calls:
        assert all(node in seen or node not in written for node in work.reads)
        seen.update(work.writes)
    plan_memory({"predict": fused}, {"predict": plan_entry(fused, calls, 64)}, 64)


@pytest.mark.slow
@examples(5)
@given(graphs(most=8))
def test_kernels_compute_what_graphs_mean(graph: Graph) -> None:
    """The compiler's kernels equal the interpreter's values, in place or not, in two pieces."""
    assert host_target()
    check_kernels(lowered(graph), contents(graph), folder())


@pytest.mark.slow
@examples(5)
@given(graphs(most=3, extents=(0, 1, 1, 3, 17)))
def test_kernels_of_special_values_and_empty_shapes(graph: Graph) -> None:
    """NaN, infinities, signed zeros, axes of none and of one come out as the interpreter says."""
    simple = simplify(decompose_batch_norm(graph))
    check_kernels(fuse(choose_layout(simple, {})), contents(graph, SPECIAL), folder())


def test_no_op_is_left_out() -> None:
    """Every op of the vocabulary is in some random graph."""
    drawn: set[str] = set()

    @examples(60)
    @given(every_step())
    def note(graph: Graph) -> None:
        drawn.update(op_name(node) for node in graph.nodes if node.op == "call_function")

    note()
    assert sorted(OPS.keys() - drawn) == []
