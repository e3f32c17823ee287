"""Schemes cost what compiling them would show, and what one can count by hand."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - the name everybody knows
from torch import Tensor, nn
from torch.fx import Graph

from pockengine.compile import prepare
from pockengine.errors import SchemeError
from pockengine.frontend.capture import capture
from pockengine.ir.forward import forward_values
from pockengine.ir.graph import calls, kind_of
from pockengine.ir.ops import Kind
from pockengine.optimizer import SGD, AdamW
from pockengine.passes.saved_cut import SavingCosts
from pockengine.plan.costs import recompute_ns, saving_costs
from pockengine.plan.flops import node_flops
from pockengine.plan.scheme_costs import SchemeCosts
from pockengine.scheme import Rule, Scheme
from pockengine.targets import get_target
from tests.oracles import Example, conv_net, encoder

NEVER_PRODUCTS = SavingCosts(
    recompute_ns=lambda node: 1e9 if kind_of(node) is Kind.CONTRACT else recompute_ns(node),
    ns_per_byte=0.25,
)
CONV_MIXED = Scheme(
    {
        "blocks.1.layers.0.weight": 0.5,
        "blocks.1.layers.1.weight": 1.0,  # its gradient needs the whole one of the weight
        "blocks.2.layers.0.weight": 0.25,
        "blocks.2.layers.3.weight": 0.5,
        "blocks.2.layers.4.bias": 1.0,
        "head.weight": 0.5,
    }
)
ENCODER_MIXED = Scheme({"layers.1.query.weight": 0.5, "layers.2.up.weight": 0.25, "pooler.bias": 1})
TOLERANCE = 0.02  # layout and copies of outputs add a few values ahead of choose_saved
SLICED_TOLERANCE = 0.1  # gradients of slices share fewer values: one more or less is kept
REGION_TOLERANCE = 0.1  # tiny constants, each in its own 64 bytes


class TwoConvolutions(nn.Module):
    """(2, 3, 16, 16) images; ReLU after each convolution, a mean, a linear head."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.second = nn.Conv2d(8, 16, 3, stride=2, padding=1)
        self.head = nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, 16, 16) -> (N, 4)."""
        y = F.relu(self.second(F.relu(self.first(x))))
        return self.head(y.mean(dim=(2, 3)))  # type: ignore[no-any-return]


FIRST, SECOND, HEAD = 2 * 4096 * 27, 2 * 2048 * 72, 2 * 2 * 16 * 4  # forward FLOPs at N = 2
Y1, Y1_BITS, Y2_BITS, POOLED, OUT = 4 * 4096, 4096 // 8, 2048 // 8, 4 * 2 * 16, 4 * 2 * 4
BY_HAND = {
    "full": (Scheme.full(), Y1 + Y2_BITS + POOLED + OUT, FIRST + 2 * SECOND + 2 * HEAD),
    "bias_only": (Scheme.bias_only(), Y1_BITS + Y2_BITS + POOLED + OUT, SECOND + 2 * HEAD),
    "last_blocks": (Scheme.last_blocks(2), Y1 + Y2_BITS + POOLED + OUT, SECOND + 2 * HEAD),
    "sliced": (Scheme({"second.weight": 0.5}), Y1 // 2 + Y2_BITS + OUT, SECOND / 2 + HEAD),
}


@pytest.mark.parametrize("name", BY_HAND)
def test_by_hand(name: str) -> None:
    """Saved: inputs of updated weights, one bit a ReLU on the way; work: gradients' products."""
    rule, saved, products = BY_HAND[name]
    model = TwoConvolutions()
    graph = capture(model, (torch.randn(2, 3, 16, 16), torch.randn(2, 4)), "mse").graph
    costs = SchemeCosts(graph, model, optimizer=SGD(), costs=NEVER_PRODUCTS)
    found = costs.least(rule.resolve(model)).cost
    assert found.saved_bytes == saved
    assert found.contraction_flops == products
    assert found.state_bytes == 0


CASES = [
    *((conv_net, rule) for rule in (Scheme.full(), Scheme.bias_only(), Scheme.last_blocks(2))),
    (conv_net, CONV_MIXED),
    *((encoder, rule) for rule in (Scheme.full(), Scheme.last_blocks(1), ENCODER_MIXED)),
]


@pytest.mark.parametrize(("make", "rule"), CASES)
def test_against_the_plan(make: Callable[[], Example], rule: Scheme | Rule) -> None:
    """Bytes of all regions, saved bytes and work are those of compiling this one scheme."""
    example = make()
    graphs: dict[tuple[str, str], Graph] = {}
    plan = prepare(
        example.model,
        example.batch,
        loss=example.loss,
        optimizer=AdamW(),
        scheme=rule,
        observe=lambda entry, name, graph: graphs.update({(entry, name): graph}),
    ).plan
    costs = saving_costs(get_target("host"))
    known = SchemeCosts(example.graph, example.model, optimizer=AdamW(), costs=costs)
    walks = known.walks(rule.resolve(example.model))  # which of them pays, only plans tell
    found = min((x.cost for x in walks), key=lambda x: abs(x.saved_bytes - plan.saved_bytes))
    tolerance = SLICED_TOLERANCE if rule == CONV_MIXED else TOLERANCE
    assert found.saved_bytes == pytest.approx(plan.saved_bytes, rel=tolerance)
    assert (found.param_bytes, found.state_bytes) == (plan.param_bytes, plan.state_bytes)
    assert found.const_bytes == pytest.approx(plan.const_bytes, rel=REGION_TOLERANCE)
    work = backward_products(graphs["step", "compress_masks"])
    assert found.contraction_flops == pytest.approx(work, rel=TOLERANCE)


def backward_products(graph: Graph) -> int:
    """FLOPs of the contractions outside the forward pass."""
    forward = forward_values(graph)
    products = (node for node in calls(graph) if kind_of(node) is Kind.CONTRACT)
    return sum(node_flops(node) for node in products if node not in forward)


def test_a_scheme_that_trains_nothing() -> None:
    """As compiling would: one clear error."""
    example = conv_net()
    costs = SchemeCosts(example.graph, example.model, optimizer=SGD(), costs=NEVER_PRODUCTS)
    with pytest.raises(SchemeError, match="at least one parameter that the loss depends on"):
        costs.walks({})
