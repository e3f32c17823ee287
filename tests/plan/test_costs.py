"""Every op has its work and its cost of being computed again."""

from __future__ import annotations

import pytest
from torch.fx import Node

from pockengine.ir.graph import calls
from pockengine.ir.ops import OPS
from pockengine.ir.text import parse
from pockengine.plan.costs import kernel_ns, recompute_ns, saving_costs
from pockengine.plan.flops import FLOPS, kernel_bytes, kernel_flops, node_flops
from pockengine.targets import TARGETS

CONVOLUTION = """\
%x: f32[2x8x16x16] = input('x')
%w: f32[12x8x3x3] = param('w')
%y: f32[2x12x8x8] = conv2d(%x, %w, (2, 2), (1, 1, 1, 1), (1, 1), 1)
%dx: f32[2x8x16x16] = conv2d_input_grad(%y, %w, (16, 16), (2, 2), (1, 1, 1, 1), (1, 1), 1)
%dw: f32[12x8x3x3] = conv2d_weight_grad(%x, %y, (3, 3), (2, 2), (1, 1, 1, 1), (1, 1), 1)
return loss=None, outputs=(%dx, %dw), gradients={}, updates=()
"""
MOVING = """\
%table: f32[100x8] = param('table')
%index: i64[3] = input('index')
%w: f32[4x8] = param('w')
%rows: f32[3x8] = take_rows(%table, %index)
%part: f32[2x8] = slice(%w, 0, 0, 2)
%new: f32[2x8] = exp(%part)
%update: f32[2x8] = update(%part, %new)
return loss=None, outputs=(%rows,), gradients={}, updates=(%update,)
"""


def named(source: str) -> dict[str, Node]:
    """The calls of a graph by name."""
    return {node.name: node for node in calls(parse(source))}


def test_every_op_has_a_row() -> None:
    """No op is forgotten, and none is there that the vocabulary does not have."""
    assert FLOPS.keys() == OPS.keys()


def test_a_convolution_and_its_gradients_cost_the_same() -> None:
    """All three multiply each output element's window of the input by weights, once."""
    products = 2 * (2 * 12 * 8 * 8) * (8 * 3 * 3)
    assert {node_flops(node) for node in named(CONVOLUTION).values()} == {products}
    assert kernel_flops(parse(CONVOLUTION)) == 3 * products


def test_bytes_count_what_is_read() -> None:
    """Rows by index and slices move only themselves; an update writes its value."""
    rows, part = 3 * 8 * 4, 2 * 8 * 4
    assert kernel_bytes(parse(MOVING)) == (rows + 3 * 8 + part) + (rows + part)


def test_a_kernel_takes_the_longer_of_work_and_traffic() -> None:
    """Ten times the arithmetic peak does not help where memory is slow, nor the other way round."""
    graph = parse(CONVOLUTION)
    working, moving = kernel_ns(graph, 1e9, 1e15), kernel_ns(graph, 1e15, 1e6)
    assert kernel_ns(graph, 1e9, 1e6) == max(working, moving)
    assert working == pytest.approx(10 * kernel_ns(graph, 1e10, 1e15), rel=0.05)
    assert moving == pytest.approx(10 * kernel_ns(graph, 1e15, 1e7), rel=0.05)
    assert working > kernel_flops(graph) / 1e9 * 1e9  # no kernel reaches the peak


def test_cheap_ops_are_computed_again_rather_than_products() -> None:
    """A map costs less than keeping its result, views nothing; updates are never repeated."""
    nodes = named(MOVING)
    assert recompute_ns(nodes["part"]) == 0
    assert recompute_ns(nodes["new"]) < 4 * 2 * 8 * saving_costs(TARGETS["host"]).ns_per_byte
    assert recompute_ns(nodes["update"]) >= 1e9
    assert recompute_ns(named(CONVOLUTION)["y"]) > 221184 / 90


def test_targets_scale_work_against_traffic() -> None:
    """Where both rates are known, their balance decides; elsewhere the host's stands for it."""
    node = named(CONVOLUTION)["y"]
    for target in TARGETS.values():
        assert saving_costs(target).recompute_ns(node) == recompute_ns(node)
