"""``simplify``: each rule, the fixed point, and unchanged values."""

from __future__ import annotations

from collections.abc import Callable
from math import inf, nan

import pytest
import torch

from pockengine.ir.graph import calls, op_name, outputs_of
from pockengine.ir.interpret import interpret
from pockengine.ir.text import parse, text
from pockengine.ir.verify import verify
from pockengine.passes.simplify import simplify
from tests.oracles import EXAMPLES, Example, assert_same, check_against_autograd
from tests.passes.golden import example

_HEAD = """%x: f32[2x3] = input('x')
%y: f32[2x3] = input('y')
%i: i64[2x3] = input('i')
%m: bool[2x3] = input('m')
%thin: f32[2x1] = input('thin')
%one: f32[1x1] = input('one')
"""
_VALUES = {
    "x": torch.tensor([[1.5, -2.0, nan], [0.0, inf, 7.0]], dtype=torch.float64),
    "y": torch.tensor([[0.5, nan, 3.0], [-inf, 2.0, -1.0]], dtype=torch.float64),
    "i": torch.tensor([[1, -2, 3], [0, 5, 2]]),
    "m": torch.tensor([[True, False, True], [False, False, True]]),
    "thin": torch.tensor([[3.0], [-0.25]], dtype=torch.float64),
    "one": torch.tensor([[2.5]], dtype=torch.float64),
}
_FULL = "%c: f32[] = full((), 2.0, 'f32')\n"

_PARTS = """%a: f32[2x1] = slice(%x, 1, 0, 1)
%b: f32[2x1] = slice(%x, 1, 1, 2)
%c: f32[2x1] = slice(%y, 1, 2, 3)
%d: f32[2x1] = slice(%y, 1, 0, 1)
%p: f32[2x6] = pad(%b, (0, 1), (0, 4), 0.0)
%q: f32[2x6] = pad(%a, (0, 0), (0, 5), 0.0)
%s: f32[2x6] = add(%p, %q)
%t: f32[2x6] = pad(%c, (0, 3), (0, 2), 0.0)
%u: f32[2x6] = pad(%d, (0, 5), (0, 0), 0.0)
"""

# the last line is the result; what is left of it, as ops
_RULES = {
    "equal calls are one": (
        "%a: f32[2x3] = mul(%x, %y)\n%b: f32[2x3] = mul(%y, %x)\n%r: f32[2x3] = add(%a, %b)",
        "mul add",
    ),
    "times one": ("%r: f32[2x3] = mul(%x, 1.0)", ""),
    "plus zero": ("%r: f32[2x3] = add(%x, 0.0)", ""),
    "divided by a number": ("%r: f32[2x3] = div(%x, 4.0)", "mul"),
    "an integer division stays": ("%r: f32[2x3] = div(%i, 4)", "div"),
    "factors of factors": (
        "%a: f32[2x3] = mul(%x, 2.0)\n%r: f32[2x3] = div(%a, 2.0)",
        "",
    ),
    "terms of terms": ("%a: f32[2x3] = sub(%x, 2.0)\n%r: f32[2x3] = add(%a, 3.0)", "add"),
    "an integer is not scaled in floats": (
        "%a: i64[2x3] = mul(%i, 2)\n%r: f32[2x3] = mul(%a, 0.5)",
        "mul mul",
    ),
    "a factor of a view of a sum": (
        (
            "%a: f32[2x3] = add(%x, %y)\n%b: f32[3x2] = permute(%a, (1, 0))\n"
            "%r: f32[3x2] = mul(%b, 2.0)"
        ),
        "add mul permute",
    ),
    "a factor of a view that is read twice": (
        (
            "%a: f32[2x3] = add(%x, %y)\n%b: f32[6] = reshape(%a, (6,))\n"
            "%c: f32[6] = mul(%b, 2.0)\n%r: f32[6] = add(%b, %c)"
        ),
        "add reshape mul add",
    ),
    "merged batch axes": (
        (
            "%a: f32[1x2x3x1] = reshape(%x, (1, 2, 3, 1))\n"
            "%b: f32[1x3x2x1] = permute(%a, (0, 2, 1, 3))\n"
            "%c: f32[3x2x1] = reshape(%b, (3, 2, 1))\n"
            "%d: f32[3x2x2] = expand(%one, (3, 2, 2))\n%r: f32[3x2x1] = matmul(%d, %c)"
        ),
        "reshape permute expand reshape matmul reshape",
    ),
    "a constant operand": (_FULL + "%r: f32[2x3] = pow(%x, %c)", "pow"),
    "a constant operand that gives the shape stays": (
        "%c: f32[2x3] = full((2, 3), 2.0, 'f32')\n%r: f32[2x3] = mul(%c, %one)",
        "full mul",
    ),
    "an expression of constants": (_FULL + "%a: f32[] = exp(%c)\n%r: f32[] = sub(%a, 1.0)", "full"),
    "a view of a constant": (_FULL + "%r: f32[2x3] = expand(%c, (2, 3))", "full"),
    "an expanded operand": (
        "%a: f32[2x3] = expand(%thin, (2, 3))\n%r: f32[2x3] = mul(%a, %x)",
        "mul",
    ),
    "an expansion moves behind elementwise ops": (
        "%a: f32[2x3] = expand(%thin, (2, 3))\n%b: f32[2x3] = exp(%a)\n%r: f32[2x3] = mul(%b, 2.0)",
        "exp mul expand",
    ),
    "a summed expansion": (
        "%a: f32[2x3] = expand(%thin, (2, 3))\n%r: f32[2] = sum(%a, (1,), False)",
        "reshape mul",
    ),
    "views of their own shape": (
        (
            "%a: f32[2x3] = reshape(%x, (2, 3))\n%b: f32[2x3] = permute(%a, (0, 1))\n"
            "%c: f32[2x3] = expand(%b, (2, 3))\n%r: f32[2x3] = slice(%c, 1, 0, 3)"
        ),
        "",
    ),
    "views of views": (
        (
            "%a: f32[6] = reshape(%x, (6,))\n%b: f32[3x2] = reshape(%a, (3, 2))\n"
            "%c: f32[2x3] = permute(%b, (1, 0))\n%d: f32[3x2] = permute(%c, (1, 0))\n"
            "%e: f32[2x2] = slice(%d, 0, 1, 3)\n%r: f32[1x2] = slice(%e, 0, 1, 2)"
        ),
        "reshape slice",
    ),
    "a permute of extents of one": ("%r: f32[1x2] = permute(%thin, (1, 0))", "reshape"),
    "signs": (
        (
            "%a: f32[2x3] = neg(%x)\n%b: f32[2x3] = neg(%y)\n%c: f32[2x3] = mul(%a, %b)\n"
            "%d: f32[2x3] = neg(%c)\n%e: f32[2x3] = neg(%d)\n%r: f32[2x3] = sub(%e, %b)"
        ),
        "mul add",
    ),
    "a negated difference": ("%a: f32[2x3] = sub(%x, %y)\n%r: f32[2x3] = neg(%a)", "sub"),
    "a choice without a choice": ("%r: f32[2x3] = where(%m, %x, %x)", ""),
    "a choice by not": (
        "%a: bool[2x3] = logical_not(%m)\n%r: f32[2x3] = where(%a, %x, 0.0)",
        "where",
    ),
    "a negated comparison": ("%a: bool[2x3] = eq(%x, %y)\n%r: bool[2x3] = logical_not(%a)", "ne"),
    "a negated order stays, NaN compares false": (
        "%a: bool[2x3] = lt(%x, %y)\n%r: bool[2x3] = logical_not(%a)",
        "lt logical_not",
    ),
    "a mask cast and tested": ("%a: f32[2x3] = cast(%m, 'f32')\n%r: bool[2x3] = ne(%a, 0)", ""),
    "whether any is not -inf": (
        (
            "%a: bool[2x3] = ne(%y, '-inf')\n%b: f32[2x3] = cast(%a, 'f32')\n"
            "%c: f32[2x1] = amax(%b, (1,), True)\n%r: bool[2x1] = gt(%c, 0.0)"
        ),
        "amax ne",
    ),
    "exact casts": ("%a: i64[2x3] = cast(%m, 'i64')\n%r: f32[2x3] = cast(%a, 'f32')", "cast"),
    "casts that lose stay": (
        "%a: i64[2x3] = cast(%x, 'i64')\n%r: f32[2x3] = cast(%a, 'f32')",
        "cast cast",
    ),
    "sums over ones": ("%r: f32[2] = sum(%thin, (1,), False)", "reshape"),
    "sums of sums": (
        "%a: f32[2x1] = sum(%y, (1,), True)\n%r: f32[] = sum(%a, (0, 1), False)",
        "sum",
    ),
    "what is made of nothing": (
        (
            "%a: f32[2x0] = slice(%x, 1, 0, 0)\n%b: f32[0x3] = slice(%y, 0, 0, 0)\n"
            "%c: f32[2x3] = matmul(%a, %b)\n%d: f32[2x3] = cat((%a, %c), 1)\n"
            "%e: f32[2x3] = pad(%a, (0, 0), (0, 3), 2.0)\n%f: f32[2x3] = add(%d, %e)\n"
            "%r: f32[2x3] = mul(%f, %x)"
        ),
        "mul",
    ),
    "parts among zeros are joined": (
        f"{_PARTS}%v: f32[2x6] = add(%s, %t)\n%w: f32[2x6] = add(%v, %u)\n%r: f32[2x6] = neg(%w)",
        "slice slice slice slice pad pad cat neg",
    ),
    "parts and a whole": (
        (
            f"{_PARTS}%v: f32[2x6] = add(%s, %t)\n%o: f32[2x6] = pad(%y, (0, 0), (0, 3), 1.0)\n"
            "%w: f32[2x6] = add(%v, %o)\n%r: f32[2x6] = add(%w, %u)"
        ),
        "slice slice slice slice pad pad pad cat add",
    ),
    "parts and a number": (
        (
            f"{_PARTS}%k: f32[2x6] = add(%t, 3.0)\n%v: f32[2x6] = add(%s, %u)\n"
            "%r: f32[2x6] = add(%v, %k)"
        ),
        "slice slice slice slice pad pad add pad pad add add add",
    ),
    "parts over each other are added": (
        (
            f"{_PARTS}%v: f32[2x6] = add(%s, %t)\n%w: f32[2x6] = add(%v, %t)\n"
            "%r: f32[2x6] = add(%w, %u)"
        ),
        "slice slice slice slice pad pad add pad pad add add add",
    ),
    "a kept axis that is dropped": (
        "%a: f32[2x1] = sum(%y, (1,), True)\n%r: f32[2] = reshape(%a, (2,))",
        "sum",
    ),
}


@pytest.mark.parametrize("case", _RULES)
def test_rule(case: str) -> None:
    """Each rule leaves the ops that it says, and the values, NaN and infinities among them."""
    body, left = _RULES[case]
    graph = verify(
        parse(f"{_HEAD}{body}\nreturn loss=None, outputs=(%r,), gradients={{}}, updates=()")
    )
    simple = verify(simplify(graph))
    assert " ".join(op_name(node) for node in calls(simple)) == left
    (wanted,), (found,) = (interpret(each, _VALUES).outputs for each in (graph, simple))
    torch.testing.assert_close(found, wanted, equal_nan=True, rtol=1e-6, atol=0)


_CLAMPS = {  # clamp, its values of the forward pass, comparisons with each bound that may read them
    "relu": ("%u: f32[7] = maximum(%z, 0.0)", {"le 0": True, "gt 0": True, "lt 0": False}),
    "relu6": (
        "%t: f32[7] = maximum(%z, 0.0)\n%u: f32[7] = minimum(%t, 6.0)",
        {"le 0": True, "ge 6": True, "lt 6": True, "gt 0": True, "le 6": False, "ge 0": False},
    ),
}


@pytest.mark.parametrize(
    ("clamp", "compare"), [(name, op) for name, (_, ops) in _CLAMPS.items() for op in ops]
)
def test_mask_of_clamped(clamp: str, compare: str) -> None:
    """Masks read the clamped value where that says the same, at the bounds and for NaN too."""
    lines, allowed = _CLAMPS[clamp]
    op, bound = compare.split()
    graph = parse(
        f"%z: f32[7] = input('z')\n{lines}\n%r: bool[7] = {op}(%z, {bound}.0)\n"
        "return loss=None, outputs=(%u, %r), gradients={}, updates=()"
    )
    simple = simplify(graph)
    (mask,) = calls(simple, op)
    read = mask.all_input_nodes[0]
    assert (read is outputs_of(simple).outputs[0]) == allowed[compare]
    z = torch.tensor([-inf, -1.0, 0.0, 1e-30, 6.0, 7.0, nan])
    assert torch.equal(
        interpret(simple, {"z": z}).outputs[1], interpret(graph, {"z": z}).outputs[1]
    )


@pytest.mark.parametrize("make", EXAMPLES)
def test_same_values(make: Callable[[], Example]) -> None:
    """Whole models compute autograd's gradients afterwards; twice is once; the input stays."""
    case = make()
    before = text(case.graph)
    simple = verify(simplify(case.graph))
    assert_same(case.graph, simple, case.values)
    check_against_autograd(case, simple)
    assert text(simplify(simple)) == text(simple)
    assert text(case.graph) == before
    assert len(list(calls(simple))) < len(list(calls(case.graph)))


def test_example() -> None:
    """The docstring's example."""
    before, after = example(simplify)
    assert text(simplify(before)) == after
