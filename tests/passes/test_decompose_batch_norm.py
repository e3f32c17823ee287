"""``decompose_batch_norm``: what could not be folded, in plain ops."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from pockengine.ir.graph import calls, op_name
from pockengine.ir.text import text
from pockengine.ir.verify import verify
from pockengine.passes.decompose_batch_norm import decompose_batch_norm
from pockengine.passes.fold_batch_norm import fold_batch_norm
from tests.oracles import Example, check_against_autograd, conv_net
from tests.passes.golden import example
from tests.passes.test_fold_batch_norm import odd


@pytest.mark.parametrize("fold", [False, True])
@pytest.mark.parametrize("make", [conv_net, odd])
def test_same_gradients(make: Callable[[], Example], fold: bool) -> None:
    """Nothing of batch normalization is left, and the gradients are autograd's."""
    case = make()
    plain = verify(decompose_batch_norm(fold_batch_norm(case.graph) if fold else case.graph))
    assert not [node for node in calls(plain) if op_name(node).startswith("batch_norm")]
    check_against_autograd(case, plain)
    assert text(decompose_batch_norm(plain)) == text(plain)


def test_example() -> None:
    """The docstring's example."""
    before, after = example(decompose_batch_norm)
    assert text(decompose_batch_norm(before)) == after
