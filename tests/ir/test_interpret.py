"""Interpret: autograd's numbers, dtypes, updates."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from pockengine.ir.interpret import interpret
from pockengine.ir.text import parse
from tests.oracles import EXAMPLES, Example, check_against_autograd


@pytest.mark.parametrize("make", EXAMPLES)
def test_captured_models(make: Callable[[], Example]) -> None:
    """A captured graph gives autograd's loss and gradients in float64."""
    case = make()
    found = check_against_autograd(case)
    assert found.loss is not None
    assert found.loss.dtype == torch.float64
    assert found.gradients.keys() == case.captured.graph.output_node().args[0]["gradients"].keys()  # type: ignore[call-overload,index,union-attr]


def test_updates_of_slices() -> None:
    """An update of a slice leaves the rest of the parameter and the caller's tensor alone."""
    graph = parse("""%w: f32[4x3] = param('w')
%s: f32[3] = state('s')
%few: f32[4x2] = slice(%w, 1, 0, 2)
%corner: f32[1x2] = slice(%few, 0, 3, 4)
%next: f32[1x2] = neg(%corner)
%write: f32[1x2] = update(%corner, %next)
%more: f32[3] = add(%s, 1.0)
%count: f32[3] = update(%s, %more)
return loss=None, outputs=(), gradients={}, updates=(%write, %count)
""")
    weight = torch.arange(12.0).reshape(4, 3)
    kept = weight.clone()
    found = interpret(graph, {"w": weight, "s": torch.zeros(3)}).updates
    kept_rows = found["w"][:3]
    assert torch.equal(kept_rows, weight[:3])
    assert found["w"][3].tolist() == [-9.0, -10.0, 11.0]
    assert found["s"].tolist() == [1.0, 1.0, 1.0]
    assert torch.equal(weight, kept)


def test_what_is_made_of_numbers_is_as_precise_as_the_inputs() -> None:
    """Constants and casts of integers are float64 beside float64 inputs, float32 otherwise."""
    graph = parse("""%x: f32[] = input('x')
%n: i64[] = input('n')
%c: f32[] = full((), 0.1, 'f32')
%m: f32[] = cast(%n, 'f32')
%d: f32[] = div(%c, %m)
%y: f32[] = add(%d, %x)
return loss=None, outputs=(%y,), gradients={}, updates=()
""")
    for dtype in (torch.float64, torch.float32):
        values = {"x": torch.tensor(0.0, dtype=dtype), "n": torch.tensor(3)}
        (found,) = interpret(graph, values).outputs
        assert found == torch.tensor(0.1, dtype=dtype) / 3


def test_missing_values() -> None:
    """A placeholder without a value is named."""
    graph = parse(
        "%x: f32[2] = input('x')\nreturn loss=None, outputs=(%x,), gradients={}, updates=()"
    )
    with pytest.raises(KeyError, match="x"):
        interpret(graph, {})
