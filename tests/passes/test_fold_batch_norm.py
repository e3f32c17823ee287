"""``fold_batch_norm``: autograd's gradients without any pre-normalization value."""

from __future__ import annotations

from functools import cache

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - the name everybody knows
from torch import Tensor, nn
from torch.fx import Graph, Node

from pockengine.frontend.capture import capture
from pockengine.ir.graph import ancestors, calls, is_op, outputs_of, type_of
from pockengine.ir.text import text
from pockengine.ir.verify import verify
from pockengine.passes.fold_batch_norm import fold_batch_norm
from pockengine.passes.prune_backward import prune_backward
from pockengine.passes.simplify import simplify
from pockengine.passes.slice_channels import slice_channels
from pockengine.scheme import Channels
from tests.oracles import Example, assert_same, check_against_autograd, conv_net, doubles
from tests.passes.golden import example


class Odd(nn.Module):
    """BatchNorm where it is rare: after nothing, Conv1d with a bias, Linear, a layer read twice."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.conv, self.second = (
            nn.BatchNorm1d(3),
            nn.Conv1d(3, 4, 3),
            nn.BatchNorm1d(4),
        )
        self.linear, self.third = nn.Linear(24, 8), nn.BatchNorm1d(8)
        self.twice, self.fourth = nn.Linear(8, 8), nn.BatchNorm1d(8, affine=False)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, 8) -> (N, 8)."""
        y = F.relu(self.second(self.conv(self.first(x)))).flatten(1)
        z = self.twice(F.relu(self.third(self.linear(y))))
        return self.fourth(z) * z  # type: ignore[no-any-return]


@cache
def odd() -> Example:
    """The module above, captured."""
    torch.manual_seed(0)
    model = Odd().eval()
    for name, tensor in (*model.named_buffers(), *model.named_parameters()):
        if tensor.is_floating_point() and "conv" not in name:
            nn.init.uniform_(tensor, 0.5, 1.5)
    batch = (torch.randn(5, 3, 8), torch.randn(5, 8))
    captured = capture(model, batch, "mse")
    return Example(model, batch, "mse", captured, doubles(captured, batch))


def _kept(graph: Graph) -> list[Node]:
    """Forward calls that the backward pass reads."""
    found = outputs_of(graph)
    assert found.loss is not None
    forward = ancestors((found.loss, *found.outputs))
    return [n for n in calls(graph) if n in forward and any(u not in forward for u in n.users)]


@pytest.mark.parametrize("simple", [False, True])
def test_all_of_a_network(simple: bool) -> None:
    """Every BatchNorm of a convolutional network goes, and no convolution's result is kept."""
    case = conv_net()
    graph = simplify(case.graph) if simple else case.graph
    folded = verify(fold_batch_norm(graph))
    assert_same(graph, folded, case.values)
    check_against_autograd(case, folded)
    names = ("batch_norm", "batch_norm_input_grad", "batch_norm_weight_grad")
    assert not list(calls(folded, *names))
    assert not [node for node in _kept(simplify(folded)) if is_op(node, "conv2d")]
    assert text(fold_batch_norm(folded)) == text(folded)


def test_linear_and_one_dimensional() -> None:
    """Linear and Conv1d layers fold; a normalization of an input or a value read twice stays."""
    case = odd()
    folded = verify(fold_batch_norm(case.graph))
    check_against_autograd(case, folded)
    assert len(list(calls(case.graph, "batch_norm"))) == 4
    assert len(list(calls(folded, "batch_norm"))) == 2


_SCHEMES = {
    "full": None,
    "shifts": ".bias",
    "scales": "layers.4.weight",
    "convolutions": "layers.3.weight",
    "both of one": "blocks.1.layers.3.weight blocks.1.layers.4.weight",
    "sliced and scale": "blocks.1.layers.0.weight blocks.1.layers.1.weight",
}


@pytest.mark.parametrize("first", ["slice", "fold"])
@pytest.mark.parametrize("scheme", _SCHEMES)
def test_pruned_and_sliced(scheme: str, first: str) -> None:
    """The same gradients for any scheme, whether channels are sliced before or after."""
    case, wanted = conv_net(), _SCHEMES[scheme]
    gradients = outputs_of(case.graph).gradients
    names = [n for n in gradients if wanted is None or n.endswith(tuple(wanted.split()))]
    channels = {
        n: Channels(0 if type_of(gradients[n]).shape[1] == 1 else 1, 3)
        for n in names
        if n.startswith("blocks") and len(type_of(gradients[n]).shape) == 4
    }
    pruned = prune_backward(case.graph, names)
    sliced = slice_channels(pruned, channels)
    other = (
        fold_batch_norm(sliced)
        if first == "slice"
        else slice_channels(fold_batch_norm(pruned), channels)
    )
    assert_same(sliced, verify(other), case.values)
    whole = len(list(calls(simplify(sliced), "conv2d_weight_grad")))
    scales = len(list(calls(pruned, "batch_norm_weight_grad")))
    assert len(list(calls(simplify(other), "conv2d_weight_grad"))) <= max(whole, scales + 2)


def test_example() -> None:
    """The docstring's example."""
    before, after = example(fold_batch_norm)
    assert text(fold_batch_norm(before)) == after
