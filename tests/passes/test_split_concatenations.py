"""``split_concatenations``: few operands each, the same values."""

from __future__ import annotations

import pytest
import torch

from pockengine.ir.graph import calls
from pockengine.ir.interpret import interpret
from pockengine.ir.text import parse, text
from pockengine.ir.verify import base_of, verify
from pockengine.passes import split_concatenations as module
from pockengine.passes.split_concatenations import MOST_PARTS, split_concatenations
from tests.passes.golden import example


def test_docstring_example(monkeypatch: pytest.MonkeyPatch) -> None:
    """The example holds, and what is split stays so."""
    monkeypatch.setattr(module, "MOST_PARTS", 2)
    before, after = example(split_concatenations)
    found = split_concatenations(before)
    assert text(found) == after
    assert text(split_concatenations(found)) == after


@pytest.mark.parametrize("count", [MOST_PARTS, MOST_PARTS + 1, 130, MOST_PARTS**2 + 1])
def test_many_parts(count: int) -> None:
    """Any number of values is joined in their order."""
    heads = "".join(f"%x{i}: f32[2x1] = input('x{i}')\n" for i in range(count))
    parts = ", ".join(f"%x{i}" for i in range(count))
    graph = parse(
        f"{heads}%y: f32[2x{count}] = cat(({parts}), 1)\n"
        "return loss=None, outputs=(%y,), gradients={}, updates=()"
    )
    values = {f"x{i}": torch.full((2, 1), float(i)) for i in range(count)}
    made = verify(split_concatenations(graph))
    assert all(
        len({base_of(part) for part in node.args[0]}) <= MOST_PARTS  # type: ignore[union-attr]
        for node in calls(made, "cat")
    )
    assert torch.equal(interpret(made, values).outputs[0], interpret(graph, values).outputs[0])


def test_views_of_one_value_stay() -> None:
    """However many slices of a value are joined, the kernel has one operand."""
    steps = "".join(f"%s{i}: f32[1] = slice(%x, 0, {i}, {i + 1})\n" for i in reversed(range(40)))
    parts = ", ".join(f"%s{i}" for i in reversed(range(40)))
    graph = parse(
        f"%x: f32[40] = input('x')\n{steps}%y: f32[40] = cat(({parts}), 0)\n"
        "return loss=None, outputs=(%y,), gradients={}, updates=()"
    )
    assert text(split_concatenations(graph)) == text(graph)
