"""``fold_constants``: what is folded, what stays, and equal names for equal expressions."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from pockengine.ir.graph import calls, name_of, op_name, outputs_of, placeholders
from pockengine.ir.text import parse, text
from pockengine.ir.types import Role
from pockengine.ir.verify import verify
from pockengine.passes.extract_forward import extract_forward
from pockengine.passes.fold_batch_norm import fold_batch_norm
from pockengine.passes.fold_constants import fold_constants
from pockengine.passes.prune_backward import prune_backward
from pockengine.passes.simplify import simplify
from tests.oracles import EXAMPLES, Example, assert_same, conv_net
from tests.passes.golden import example

_HEAD = """%w: f32[4x3] = const('w')
%s: f32[4x1] = const('s')
%p: f32[4x3] = param('p')
%unread: f32[9] = const('unread')
%x: f32[2x3] = input('x')
"""
_CASES = {  # lines that make %r, and the ops that are left
    "an expression": (
        "%a: f32[4x3] = mul(%w, %s)\n%b: f32[4x3] = exp(%a)\n%r: f32[4x3] = add(%b, %p)",
        "add",
    ),
    "a view stays": (
        "%a: f32[3x4] = permute(%w, (1, 0))\n%r: f32[2x4] = matmul(%x, %a)",
        "permute matmul",
    ),
    "a view of an expression": (
        "%a: f32[4x3] = exp(%w)\n%b: f32[3x4] = permute(%a, (1, 0))\n%r: f32[2x4] = matmul(%x, %b)",
        "permute matmul",
    ),
    "what grows stays": (
        (
            "%a: f32[9x4x3] = full((9, 4, 3), 1.0, 'f32')\n%b: f32[9x4x3] = mul(%a, %w)\n"
            "%r: f32[9x4x3] = add(%b, %p)"
        ),
        "full mul add",
    ),
    "generators stay": ("%a: i64[4x3] = iota((4, 3), 0)\n%r: bool[4x3] = ge(%p, %a)", "iota ge"),
    "expensive generators do not": (
        (
            "%a: i64[4x3] = iota((4, 3), 0)\n%b: f32[4x3] = cast(%a, 'f32')\n"
            "%s: f32[4x3] = mul(%b, %b)\n%c: f32[4x3] = sqrt(%s)\n%r: f32[4x3] = add(%p, %c)"
        ),
        "add",
    ),
    "an output": ("%r: f32[4x3] = exp(%w)", ""),
}


@pytest.mark.parametrize("case", _CASES)
def test_case(case: str) -> None:
    """The ops that are left, the values, and the tensors that are left."""
    body, left = _CASES[case]
    graph = parse(f"{_HEAD}{body}\nreturn loss=None, outputs=(%r,), gradients={{}}, updates=()")
    values = {name_of(p): torch.randn(p.meta["type"].shape).double() for p in placeholders(graph)}
    tensors = {name: tensor for name, tensor in values.items() if name != "x"}
    folded, contents = fold_constants(graph, tensors)
    assert " ".join(op_name(node) for node in calls(verify(folded))) == left
    assert "unread" not in contents
    assert contents.keys() == {name_of(p) for p in placeholders(folded)} - {"x"}
    assert_same(graph, folded, values, after_values={**contents, "x": values["x"]})


@pytest.mark.parametrize("make", EXAMPLES)
def test_same_values(make: Callable[[], Example]) -> None:
    """Whole models compute the same; twice is once; the tensors given are as they were."""
    case = make()
    names = [name for name in outputs_of(case.graph).gradients if name.endswith("bias")][-2:]
    graph = simplify(fold_batch_norm(prune_backward(case.graph, names)))
    given = dict(case.values)
    folded, contents = fold_constants(graph, given)
    assert_same(graph, verify(folded), case.values, after_values={**case.values, **contents})
    again, same = fold_constants(folded, contents)
    assert text(again) == text(folded)
    assert same.keys() == contents.keys()
    assert all(given[name] is tensor for name, tensor in case.values.items())
    assert len(list(calls(folded))) <= len(list(calls(graph)))


def test_graphs_share_constants() -> None:
    """The folded weights of a step and of a forward pass have the same names."""
    case = conv_net()
    step = fold_batch_norm(prune_backward(case.graph, ["head.bias"]))
    predict = fold_batch_norm(
        extract_forward(prune_backward(case.graph, ["head.bias"]), loss=False)
    )
    names = [
        {name_of(p) for p in placeholders(fold_constants(g, case.values)[0], Role.CONST)}
        for g in (step, predict)
    ]
    folded = {name for name in names[1] if name.startswith("folded.")}
    assert len(folded) == 2 * 10  # a weight and a shift for each BatchNorm
    assert folded <= names[0]


def test_example() -> None:
    """The docstring's example."""
    before, after = example(fold_constants)
    folded, contents = fold_constants(before, {"w": torch.ones(4, 3), "s": torch.full((4, 1), 2.0)})
    assert text(folded) == after
    (tensor,) = contents.values()
    assert torch.equal(tensor, torch.full((4, 3), 2.0))
