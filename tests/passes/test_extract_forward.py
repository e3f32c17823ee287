"""extract_forward leaves the forward pass alone."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from pockengine.ir.graph import name_of, placeholders
from pockengine.ir.interpret import interpret
from pockengine.ir.text import text
from pockengine.ir.types import Role
from pockengine.ir.verify import verify
from pockengine.passes.extract_forward import extract_forward
from tests.oracles import EXAMPLES, Example
from tests.passes.golden import example


def test_docstring() -> None:
    """The example in the docstring is what happens, and once is enough."""
    before, after = example(extract_forward)
    once = verify(extract_forward(before, loss=False))
    assert text(once) == after
    assert text(extract_forward(once, loss=False)) == after


@pytest.mark.parametrize("make", EXAMPLES)
def test_outputs_and_loss_are_those_of_the_joint_graph(make: Callable[[], Example]) -> None:
    """Bit-equal outputs and loss, and fewer nodes."""
    captured = make()
    whole = interpret(captured.graph, captured.values)
    forward = verify(extract_forward(captured.graph, loss=True))
    found = interpret(forward, captured.values)
    assert found.loss is not None
    assert whole.loss is not None
    assert found.loss.equal(whole.loss)
    assert all(a.equal(b) for a, b in zip(found.outputs, whole.outputs, strict=True))
    assert len(forward.nodes) < len(captured.graph.nodes)


def test_prediction_needs_no_target() -> None:
    """Without the loss the graph has no target, and its parameters keep their role."""
    captured = EXAMPLES[0]()
    forward = verify(extract_forward(captured.graph, loss=False))
    assert not list(placeholders(forward, Role.TARGET))
    parameters = {name_of(node) for node in placeholders(forward, Role.PARAM)}
    assert parameters == {name for name, _ in captured.model.named_parameters()}
