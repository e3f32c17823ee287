"""Text and parse are inverse."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from pockengine.ir.graph import Bounds, bounds_of, calls, placeholders, scope_of, type_of
from pockengine.ir.interpret import interpret
from pockengine.ir.text import parse, text
from pockengine.ir.verify import verify
from tests.oracles import EXAMPLES, Example

_ALL_FORMS = """%layer_weight: f32[4x3] = param('layer.weight')
%x: f32[2x3x4x4]@0.2.3.1 = input('x')
%ids: i64[2] = input('ids', 0, 10, None)
%labels: i64[2] = target('labels', 0, 5, -100)
%lr: f32[] = hyper('lr')
%moment: f32[4x3] = state('optimizer.moment.layer.weight')
%low: f32[2x3x4x4] = maximum(%x, '-inf')  # features.0
%step: f32[] = mul(%lr, 1e-05)
%flag: bool[] = full((), True, 'bool')
%joined: i64[4] = cat((%ids, %labels), 0)
%one: i64[2] = cat((%ids,), axis=0)
%update: f32[4x3] = update(%moment, %layer_weight)
return loss=%step, outputs=(%low, %joined), gradients={'w': %low}, updates=(%update,)
"""


def test_every_form() -> None:
    """Roles, bounds, orders, scopes, keywords, tuples and numbers without literals survive."""
    graph = verify(parse(_ALL_FORMS))
    assert text(graph) == _ALL_FORMS
    assert type_of(next(placeholders(graph))).shape == (4, 3)
    bounds = [bounds_of(node) for node in placeholders(graph)]
    assert bounds[2:4] == [Bounds(0, 10), Bounds(0, 5, -100)]
    low = next(calls(graph, "maximum"))
    assert scope_of(low) == "features.0"
    assert low.args[1] == float("-inf")


@pytest.mark.parametrize("make", EXAMPLES)
def test_models(make: Callable[[], Example]) -> None:
    """A captured model comes back from its text, and computes the same loss."""
    case = make()
    again = parse(text(case.graph))
    assert text(again) == text(case.graph)
    assert interpret(again, case.values).loss == interpret(case.graph, case.values).loss


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("%a f32[2] = neg(%x)", "is not `%name: type = op"),
        ("%a: f32[2] = 3", "has no call"),
        ("%a: f32[2] = wiggle(%x)", "wiggle"),
        ("%a: f32[2] = neg(%y)", "y"),
        ("%a: f32[3] = neg(%x)", r"has type f32\[3\], its op gives f32\[2\]"),
        ("%a: f33[2] = neg(%x)", "f33"),
        ("%a: f32(2) = neg(%x)", "is not a type"),
    ],
)
def test_bad_lines(line: str, message: str) -> None:
    """A line that does not parse is named by its number, with the reason."""
    with pytest.raises(ValueError, match=f"^line 2: .*{message}"):
        parse(f"%x: f32[2] = input('x')\n{line}\n")
