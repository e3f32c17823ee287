"""``choose_saved``: a minimum cut between keeping and computing again."""

from __future__ import annotations

import sys

import pytest
from torch.fx import Graph, Node

from pockengine.ir.graph import is_op, type_of
from pockengine.ir.text import parse, text
from pockengine.ir.verify import verify
from pockengine.passes.choose_saved import choose_saved, saved_values
from pockengine.passes.saved_cut import SavingCosts
from tests.oracles import EXAMPLES, assert_same
from tests.passes.golden import example


def _ns(node: Node) -> float:
    return type_of(node).size * (1000.0 if is_op(node, "matmul", "conv2d") else 0.1)


def _kept(graph: Graph, costs: SavingCosts) -> int:
    return sum(type_of(node).nbytes for node in saved_values(choose_saved(graph, costs)))


def test_example() -> None:
    """The docstring's example."""
    before, after = example(choose_saved)
    assert text(choose_saved(before, SavingCosts(_ns, 1.0))) == after


@pytest.mark.parametrize("make", EXAMPLES, ids=lambda make: make.__name__)
@pytest.mark.parametrize("price", [0.001, 0.25, 100.0])
def test_same_values(make: object, price: float) -> None:
    """Whatever a byte is worth, the step computes the same."""
    found = make()  # type: ignore[operator]
    after = verify(choose_saved(found.captured.graph, SavingCosts(_ns, price)))
    assert_same(found.captured.graph, after, found.values)


def test_dearer_bytes_are_kept_less() -> None:
    """Fewer bytes stay as their worth rises."""
    graph = EXAMPLES[1]().captured.graph
    kept = [_kept(graph, SavingCosts(_ns, price)) for price in (0.001, 0.1, 10.0, 1e4)]
    assert kept == sorted(kept, reverse=True)
    assert kept[-1] < kept[0]


def test_share_of_the_step_buys_memory() -> None:
    """With a share of the step to spend, fewer bytes stay than at the least worth."""
    graph = EXAMPLES[1]().captured.graph
    frugal = SavingCosts(_ns, 0.001, recompute_shares=(0.3,))
    assert _kept(graph, frugal) < _kept(graph, SavingCosts(_ns, 0.001))


def test_frozen_convolution_keeps_no_input() -> None:
    """Without a weight gradient nobody reads the input in the backward pass."""
    graph = parse("""
%x: f32[1x8x8x8] = input('x')
%b: f32[1x8x1x1] = param('b')
%w: f32[8x8x3x3] = const('w')
%a: f32[1x8x8x8] = add(%x, %b)
%y: f32[1x8x8x8] = conv2d(%a, %w, (1, 1), (1, 1, 1, 1), (1, 1), 1)
%l: f32[] = sum(%y, (0, 1, 2, 3))
%g: f32[1x8x8x8] = full((1, 8, 8, 8), 1.0, 'f32')
%d: f32[1x8x8x8] = conv2d_input_grad(%g, %w, (8, 8), (1, 1), (1, 1, 1, 1), (1, 1), 1)
%s: f32[1x8x1x1] = sum(%d, (0, 2, 3), True)
return loss=%l, outputs=(), gradients={'b': %s}, updates=()
""")
    assert saved_values(choose_saved(graph, SavingCosts(_ns, 0.25))) == []


def test_a_sequence_deeper_than_the_stack() -> None:
    """Everything that a long recurrence's backward pass reads can be computed again."""
    deep = sys.getrecursionlimit()
    lines = ["%x0: f32[4] = param('x')"]
    lines += [f"%x{i + 1}: f32[4] = sin(%x{i})" for i in range(deep)]
    lines += [f"%loss: f32[] = sum(%x{deep}, (0,), False)", f"%g{deep}: f32[4] = cos(%x{deep})"]
    for i in reversed(range(deep)):
        lines += [f"%c{i}: f32[4] = cos(%x{i})", f"%g{i}: f32[4] = mul(%g{i + 1}, %c{i})"]
    lines.append("return loss=%loss, outputs=(), gradients={'x': %g0}, updates=()")
    after = verify(choose_saved(parse("\n".join(lines)), SavingCosts(_ns, 100.0)))
    assert not saved_values(after)
