"""``copy_outputs``: what a graph yields lies dense and row-major."""

from __future__ import annotations

import torch

from pockengine.ir.access import access
from pockengine.ir.graph import is_op, outputs_of
from pockengine.ir.interpret import interpret
from pockengine.ir.text import parse, text
from pockengine.ir.verify import verify
from pockengine.passes.copy_outputs import copy_outputs
from tests.passes.golden import example

_PARTS = """
%x: f32[2x3x4x4] = input('x')
%y: f32[2x3x4x4]@0.2.3.1 = exp(%x)
%part: f32[2x1x4x4] = slice(%y, 1, 1, 2)
%wide: f32[2x5x4x4] = expand(%part, (2, 5, 4, 4))
%z: f32[2x48] = reshape(%x, (2, 48))
%e: f32[2x48] = neg(%z)
%flat: f32[96] = reshape(%e, (96,))
return loss=None, outputs=(%y, %part, %wide, %z, %flat), gradients={}, updates=()
"""


def test_example() -> None:
    """The docstring's example."""
    before, after = example(copy_outputs)
    assert text(copy_outputs(before)) == after


def test_all_dense() -> None:
    """Other orders, parts, broadcasts and placeholders are copied; a dense reshape is not."""
    graph = parse(_PARTS)
    after = verify(copy_outputs(graph))
    outputs = outputs_of(after).outputs
    assert [is_op(node, "copy") for node in outputs] == [True, True, True, True, False]
    for node in outputs:
        found = access(node)
        assert found is not None
        assert found.offset == 0
    values = {"x": torch.randn(2, 3, 4, 4)}
    for old, new in zip(
        interpret(graph, values).outputs, interpret(after, values).outputs, strict=True
    ):
        assert torch.equal(old, new)


def test_idempotent() -> None:
    """A second run changes nothing."""
    once = copy_outputs(parse(_PARTS))
    assert text(copy_outputs(once)) == text(once)
