"""slice_channels computes and keeps only the updated channels."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.fx import Graph, Node

from pockengine.frontend.capture import capture
from pockengine.ir.graph import calls, is_op, outputs_of, type_of
from pockengine.ir.interpret import interpret
from pockengine.ir.text import parse, text
from pockengine.ir.verify import verify
from pockengine.passes.fold_batch_norm import fold_batch_norm
from pockengine.passes.prune_backward import prune_backward
from pockengine.passes.slice_channels import slice_channels
from pockengine.scheme import Channels, Scheme
from tests.oracles import EXAMPLES, Example, assert_same, autograd, conv_net, doubles, encoder
from tests.passes.golden import example

FRACTIONS = (0.1, 0.25, 0.5)


def scheme_of_parts(model: nn.Module, fraction: float) -> Scheme:
    """That fraction of every weight that has input channels; everything else whole."""
    names = [name for name, _ in model.named_parameters()]
    owners = {name: model.get_submodule(name.rpartition(".")[0]) for name in names}
    parted = {
        name
        for name, owner in owners.items()
        if isinstance(owner, (nn.Linear, nn.Conv2d)) and name.endswith("weight")
    }
    return Scheme({name: fraction if name in parted else 1.0 for name in names})


def sliced(captured: Example, scheme: Scheme) -> tuple[Graph, dict[str, Channels]]:
    """The example's graph, pruned and sliced."""
    channels = scheme.channels(captured.model)
    return slice_channels(prune_backward(captured.graph, set(scheme)), channels), channels


def test_docstring() -> None:
    """The example in the docstring is what happens, and once is enough."""
    before, after = example(slice_channels)
    once = verify(slice_channels(before, {"w": Channels(1, 2)}))
    assert text(once) == after
    assert text(slice_channels(once, {"w": Channels(1, 2)})) == after


@pytest.mark.parametrize("make", EXAMPLES)
@pytest.mark.parametrize("fraction", FRACTIONS)
def test_gradients_are_leading_slices_of_autograds(
    make: Callable[[], Example], fraction: float
) -> None:
    """Each gradient equals the leading channels of PyTorch's; whole ones stay whole."""
    captured = make()
    graph, channels = sliced(captured, scheme_of_parts(captured.model, fraction))
    found = interpret(verify(graph), captured.values)
    _, wanted = autograd(captured)
    assert channels
    for name, gradient in found.gradients.items():
        whole = wanted[name]
        part = channels.get(name)
        chosen = whole if part is None else whole.narrow(part.axis, 0, part.count)
        assert gradient.shape == chosen.shape
        torch.testing.assert_close(gradient, chosen, rtol=1e-10, atol=1e-14)


def test_convolutions_read_only_the_needed_channels() -> None:
    """Weight gradients of dense and depthwise convolutions take copies of the leading channels."""
    captured = conv_net()
    names = [f"blocks.1.layers.{i}.weight" for i in (0, 3, 6)]
    graph, _ = sliced(captured, Scheme(dict.fromkeys(names, 0.25)))
    read = {}
    for node in calls(graph, "conv2d_weight_grad"):
        source = node.args[0]
        assert is_op(source, "copy")
        assert isinstance(source, Node)
        read[type_of(node).shape] = type_of(source).shape[1]
    assert read == {(16, 2, 1, 1): 2, (4, 1, 3, 3): 4, (8, 4, 1, 1): 4}


def test_folded_batch_norm_makes_no_difference() -> None:
    """Behind a folded BatchNorm the same channels are computed, with the same values."""
    captured = conv_net()
    scheme = Scheme({f"blocks.1.layers.{i}.weight": 0.25 for i in (0, 3, 6)})
    channels = scheme.channels(captured.model)
    pruned = prune_backward(captured.graph, set(scheme))
    plain, folded = (
        verify(slice_channels(graph, channels)) for graph in (pruned, fold_batch_norm(pruned))
    )
    assert_same(plain, folded, captured.values, tolerance=1e-11)
    shapes = [
        sorted(type_of(n).shape for n in calls(g, "conv2d_weight_grad")) for g in (plain, folded)
    ]
    assert shapes[0] == shapes[1]


def test_linears_multiply_only_the_needed_channels() -> None:
    """No matrix product of a sliced linear's gradient computes more columns than are updated."""
    captured = encoder()
    scheme = Scheme({"layers.1.query.weight": 0.25, "layers.1.key.weight": 0.25})
    graph, _ = sliced(captured, scheme)
    gradients = outputs_of(graph).gradients
    assert {type_of(node).shape for node in gradients.values()} == {(8, 2)}
    assert not [node for node in gradients.values() if is_op(node, "slice")]
    assert len(list(calls(graph, "copy"))) == 1  # query and key read the same value


def test_copies_stand_where_the_value_is_made() -> None:
    """The copy follows its source in the forward pass, not its use in the backward pass."""
    graph, _ = sliced(conv_net(), Scheme({"blocks.1.layers.0.weight": 0.25}))
    (copy,) = calls(graph, "copy")
    view = copy.prev
    assert is_op(view, "slice")
    assert view.prev is view.args[0]


def test_shared_gradient_stays_whole() -> None:
    """A gradient that something else reads is computed once, and the slice is a view of it."""
    before, _ = example(slice_channels)
    source = text(before).replace("{'w': %dw}", "{'w': %dw, 'v': %dw}")
    shared = slice_channels(parse(source), {"w": Channels(1, 2)})
    gradients = outputs_of(verify(shared)).gradients
    assert is_op(gradients["w"], "slice")
    assert gradients["w"].args[0] is gradients["v"]


@pytest.mark.parametrize("groups", [1, 4])
def test_transposed_convolution(groups: int) -> None:
    """Its input channels are axis 0, with and without groups."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.ConvTranspose2d(4, 8, 3, groups=groups), nn.Flatten()).eval()
    batch = (torch.randn(2, 4, 5, 5), torch.randn(2, 8 * 49))
    captured = capture(model, batch, "mse")
    channels = Scheme({"0.weight": 0.5}).channels(model)
    assert channels == {"0.weight": Channels(0, 2)}
    values = doubles(captured, batch)
    whole = interpret(captured.graph, values).gradients["0.weight"]
    part = interpret(verify(slice_channels(captured.graph, channels)), values)
    torch.testing.assert_close(part.gradients["0.weight"], whole[:2], rtol=1e-12, atol=1e-14)
