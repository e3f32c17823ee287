"""``choose_layout``: storage orders follow the readers, copies appear only where they must."""

from __future__ import annotations

import pytest

from pockengine.ir.graph import calls, name_of, placeholders, type_of
from pockengine.ir.text import parse, text
from pockengine.ir.types import Role
from pockengine.ir.verify import verify
from pockengine.passes.choose_layout import choose_layout
from tests.oracles import EXAMPLES, assert_same
from tests.passes.golden import example


def test_example() -> None:
    """The docstring's example."""
    before, after = example(choose_layout)
    assert text(choose_layout(before)) == after


@pytest.mark.parametrize("make", EXAMPLES, ids=lambda make: make.__name__)
def test_same_values(make: object) -> None:
    """Captured models compute the same, and a second run copies nothing more."""
    found = make()  # type: ignore[operator]
    once = verify(choose_layout(found.captured.graph))
    assert_same(found.captured.graph, once, found.values)
    assert len(list(calls(choose_layout(once), "copy"))) == len(list(calls(once, "copy")))


def test_weight_and_its_state_share_an_order() -> None:
    """A linear weight lies as the forward product reads it, and so does its momentum."""
    graph = parse("""
%x: f32[4x8] = input('x')
%w: f32[5x8] = param('w')
%v: f32[5x8] = state('v')
%t: f32[8x5] = permute(%w, (1, 0))
%y: f32[4x5] = matmul(%x, %t)
%d: f32[5x4] = permute(%y, (1, 0))
%g: f32[5x8] = matmul(%d, %x)
%m: f32[5x8] = mul(%v, 0.9)
%n: f32[5x8] = add(%m, %g)
%s: f32[5x8] = sub(%w, %n)
%u: f32[5x8] = update(%v, %n)
%z: f32[5x8] = update(%w, %s)
return loss=None, outputs=(), gradients={}, updates=(%u, %z)
""")
    after = verify(choose_layout(graph))
    orders = {name_of(n): type_of(n).order for n in placeholders(after, Role.PARAM, Role.STATE)}
    assert orders == {"w": (1, 0), "v": (1, 0)}
    assert not list(calls(after, "copy"))


def test_given_orders_hold() -> None:
    """An order that an earlier entry point decided is kept."""
    graph = parse("""
%x: f32[4x8] = input('x')
%w: f32[8x5] = param('w')
%y: f32[4x5] = matmul(%x, %w)
return loss=None, outputs=(%y,), gradients={}, updates=()
""")
    after = choose_layout(graph, {"w": (1, 0)})
    assert {name_of(n): type_of(n).order for n in placeholders(after, Role.PARAM)} == {"w": (1, 0)}


def test_a_picture_lies_as_it_comes() -> None:
    """Three channels are read where they are, forward and for the weight's gradient."""
    graph = parse("""
%x: f32[2x3x8x8] = input('x')
%w: f32[4x3x3x3] = param('w')
%p: f32[2x3x10x10] = pad(%x, (0, 0, 1, 1), (0, 0, 1, 1), 0.0)
%y: f32[2x4x8x8] = conv2d(%p, %w, (1, 1), (0, 0, 0, 0), (1, 1), 1)
%g: f32[4x3x3x3] = conv2d_weight_grad(%p, %y, (3, 3), (1, 1), (0, 0, 0, 0), (1, 1), 1)
return loss=None, outputs=(%y,), gradients={'w': %g}, updates=()
""")
    new = choose_layout(graph)
    assert not list(calls(new, "copy"))
    (padded,) = calls(new, "pad")
    assert not type_of(padded).order  # row-major
