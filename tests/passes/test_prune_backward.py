"""prune_backward keeps the chosen gradients and nothing that only others needed."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from torch.fx import Node

from pockengine.errors import SchemeError
from pockengine.ir.graph import ancestors, calls, is_op, name_of, outputs_of, placeholders
from pockengine.ir.text import text
from pockengine.ir.types import Role
from pockengine.ir.verify import verify
from pockengine.passes.prune_backward import prune_backward
from pockengine.scheme import Scheme
from tests.oracles import EXAMPLES, Example, check_against_autograd, conv_net
from tests.passes.golden import example


def test_docstring() -> None:
    """The example in the docstring is what happens, and once is enough."""
    before, after = example(prune_backward)
    once = verify(prune_backward(before, {"w"}))
    assert text(once) == after
    assert text(prune_backward(once, {"w"})) == after


@pytest.mark.parametrize("make", EXAMPLES)
def test_kept_gradients_are_autograds(make: Callable[[], Example]) -> None:
    """Bias-only gradients are those of PyTorch; the input graph is left as it was."""
    captured = make()
    source = text(captured.graph)
    updated = set(Scheme.bias_only().resolve(captured.model))
    pruned = verify(prune_backward(captured.graph, updated))
    assert text(captured.graph) == source
    assert set(check_against_autograd(captured, pruned).gradients) <= updated
    assert {name_of(node) for node in placeholders(pruned, Role.PARAM)} <= updated


def test_backward_ends_at_the_first_updated_layer() -> None:
    """With the last block updated, one input gradient is left per convolution behind its first."""
    captured = conv_net()
    updated = set(Scheme.last_blocks(1).resolve(captured.model))
    pruned = prune_backward(captured.graph, updated)
    assert len(list(calls(pruned, "conv2d_weight_grad"))) == 4
    assert len(list(calls(pruned, "conv2d_input_grad"))) == 3
    assert len(list(calls(captured.graph, "conv2d_input_grad"))) == 10


def test_frozen_convolution_keeps_no_input() -> None:
    """Bias-only: no convolution's input is read outside the forward pass by a weight gradient."""
    captured = conv_net()
    pruned = prune_backward(captured.graph, set(Scheme.bias_only().resolve(captured.model)))
    assert not list(calls(pruned, "conv2d_weight_grad", "batch_norm_weight_grad"))
    found = outputs_of(pruned)
    assert found.loss is not None
    forward = ancestors((found.loss, *found.outputs))
    for convolution in calls(pruned, "conv2d"):
        source = convolution.args[0]
        assert isinstance(source, Node)
        assert all(is_op(user, "le", "ge") for user in source.users if user not in forward)


def test_only_parameters_without_gradient_is_an_error() -> None:
    """A scheme of parameters that the loss does not depend on trains nothing."""
    before, _ = example(prune_backward)
    with pytest.raises(SchemeError, match="without a gradient: unused"):
        prune_backward(before, {"unused"})
