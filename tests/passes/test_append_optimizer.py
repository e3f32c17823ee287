"""append_optimizer does what torch.optim does."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.fx import Graph
from torch.utils import _pytree as pytree

from pockengine.errors import InputError
from pockengine.frontend.capture import canonical_batch
from pockengine.frontend.losses import loss_function
from pockengine.ir.graph import name_of, placeholders, type_of
from pockengine.ir.interpret import interpret
from pockengine.ir.text import text
from pockengine.ir.types import Role
from pockengine.ir.verify import verify
from pockengine.optimizer import (
    SGD,
    Adagrad,
    Adam,
    AdamW,
    Optimizer,
    ParamGroup,
    RMSprop,
    initial_state,
)
from pockengine.passes.append_optimizer import append_optimizer
from pockengine.passes.prune_backward import prune_backward
from pockengine.passes.slice_channels import slice_channels
from pockengine.scheme import Channels, Scheme
from tests.oracles import Example, conv_net, tied_mlp
from tests.passes.golden import example

RATES = (0.1, 0.1, 0.05, 0.02, 0.01)
GROUPS = (ParamGroup("*.bias", weight_decay=0.0, lr_scale=2.0), ParamGroup("last.*", lr_scale=0.5))
CASES: list[tuple[Optimizer, type[torch.optim.Optimizer], dict[str, Any]]] = [
    (SGD(), torch.optim.SGD, {}),
    (SGD(weight_decay=0.1), torch.optim.SGD, {"weight_decay": 0.1}),
    (SGD(momentum=0.9), torch.optim.SGD, {"momentum": 0.9}),
    (
        SGD(momentum=0.8, weight_decay=0.01, nesterov=True),
        torch.optim.SGD,
        {"momentum": 0.8, "weight_decay": 0.01, "nesterov": True},
    ),
    (AdamW(), torch.optim.AdamW, {}),
    (
        AdamW(betas=(0.8, 0.95), eps=1e-4, weight_decay=0),
        torch.optim.AdamW,
        {"betas": (0.8, 0.95), "eps": 1e-4, "weight_decay": 0},
    ),
    *(
        (make(**options), getattr(torch.optim, make.__name__), options)
        for make, options in (
            (Adam, {}),
            (Adam, {"betas": (0.8, 0.95), "weight_decay": 0.1, "amsgrad": True}),
            (AdamW, {"amsgrad": True}),
            (RMSprop, {}),
            (RMSprop, {"alpha": 0.9, "weight_decay": 0.1, "momentum": 0.8, "centered": True}),
            (Adagrad, {}),
            (Adagrad, {"lr_decay": 0.3, "weight_decay": 0.1, "initial_accumulator_value": 0.25}),
        )
    ),
]


def step_graph(captured: Example, optimizer: Optimizer, scheme: Scheme) -> Graph:
    """Pruned, sliced and with its optimizer."""
    channels = scheme.channels(captured.model)
    graph = slice_channels(prune_backward(captured.graph, set(scheme)), channels)
    return verify(append_optimizer(graph, optimizer, channels))


def run(captured: Example, graph: Graph, optimizer: Optimizer) -> dict[str, Tensor]:
    """The contents of all placeholders after one step for each of RATES."""
    types = {name_of(node): type_of(node) for node in placeholders(graph, Role.STATE)}
    state = {name: zeros.double() for name, zeros in initial_state(optimizer, types).items()}
    values = {**captured.values, **state}
    for rate in RATES:
        values["lr"] = torch.tensor(rate, dtype=torch.float64)
        values |= interpret(graph, values).updates
    return values


def reference(
    captured: Example, scheme: Scheme, make: type[torch.optim.Optimizer], options: dict[str, Any]
) -> dict[str, Tensor]:
    """The same steps by PyTorch in float64; slices are enforced by masked gradients."""
    model = copy.deepcopy(captured.model).double()
    inputs, targets = pytree.tree_map(
        lambda t: t.double() if t.is_floating_point() else t, canonical_batch(captured.batch)
    )
    named = dict(model.named_parameters())
    for name, parameter in named.items():
        parameter.requires_grad_(name in scheme)
    trained = [_group(name, named[name], options) for name in scheme]
    plain = {key: value for key, value in options.items() if key != "groups"}
    optimizer = make(trained, lr=1.0, **plain)  # type: ignore[call-arg]
    for rate in RATES:
        for group in optimizer.param_groups:
            group["lr"] = rate * group["scale"]
        optimizer.zero_grad()
        loss = loss_function(captured.loss)(model(*inputs), targets)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return {name: p.detach() for name, p in named.items()}


def _group(name: str, parameter: nn.Parameter, options: dict[str, Any]) -> dict[str, Any]:
    group = {"params": [parameter], "scale": 1.0}
    if options.get("groups") and name.endswith(".bias"):
        return {**group, "scale": 2.0, "weight_decay": 0.0}
    return {**group, "scale": 0.5} if options.get("groups") and name.startswith("last.") else group


def test_docstring() -> None:
    """The example in the docstring is what happens; a graph without gradients stays as it is."""
    before, after = example(append_optimizer)
    once = verify(append_optimizer(before, SGD(momentum=0.9), {"w": Channels(1, 2)}))
    assert text(once) == after
    assert append_optimizer(once, SGD()) is once


@pytest.mark.parametrize(("optimizer", "make", "options"), CASES)
def test_five_steps_equal_pytorchs(
    optimizer: Optimizer, make: type[torch.optim.Optimizer], options: dict[str, Any]
) -> None:
    """Five steps with a changing learning rate, in float64; frozen parameters stay as they were."""
    captured = tied_mlp()
    scheme = Scheme.from_requires_grad(captured.model).resolve(captured.model)
    found = run(captured, step_graph(captured, optimizer, scheme), optimizer)
    wanted = reference(captured, scheme, make, options)
    for name, parameter in wanted.items():
        torch.testing.assert_close(found[name], parameter, rtol=1e-11, atol=1e-13)
    assert found["first.bias"] is captured.values["first.bias"]


@pytest.mark.parametrize("place", [3, 4])
def test_parameter_groups(place: int) -> None:
    """Groups change weight decay and scale the learning rate; the first match holds."""
    plain, make, options = CASES[place]
    optimizer = type(plain)(**{f: getattr(plain, f) for f in options}, groups=GROUPS)
    captured = tied_mlp()
    scheme = Scheme.full().resolve(captured.model)
    found = run(captured, step_graph(captured, optimizer, scheme), optimizer)
    wanted = reference(captured, scheme, make, {**options, "groups": True})
    for name, parameter in wanted.items():
        torch.testing.assert_close(found[name], parameter, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("optimizer", [SGD(momentum=0.9, weight_decay=0.1), AdamW()])
def test_sliced_update_touches_only_the_slice(optimizer: Optimizer) -> None:
    """What lies outside the slice is bit-unchanged, weight decay included; state has its shape."""
    captured = conv_net()
    names = ["blocks.1.layers.0.weight", "blocks.1.layers.3.weight", "head.weight"]
    scheme = Scheme(dict.fromkeys(names, 0.25))
    graph = step_graph(captured, optimizer, scheme)
    found = run(captured, graph, optimizer)
    for name, part in scheme.channels(captured.model).items():
        old, new = captured.values[name], found[name]
        rest = old.shape[part.axis] - part.count
        assert new.narrow(part.axis, part.count, rest).equal(
            old.narrow(part.axis, part.count, rest)
        )
        assert (new != old).narrow(part.axis, 0, part.count).all()
        kind = "momentum_buffer" if isinstance(optimizer, SGD) else "exp_avg_sq"
        assert found[f"optimizer.{kind}.{name}"].shape[part.axis] == part.count


def test_bias_correction_does_not_cancel() -> None:
    """In float32 the corrections stay within a few ulp of 1 - beta^t for 5000 steps."""
    before, _ = example(append_optimizer)
    graph = append_optimizer(before, AdamW(), {"w": Channels(1, 2)})
    values = {name_of(n): torch.zeros(type_of(n).shape) for n in placeholders(graph)}
    for _ in range(5000):
        values |= interpret(graph, values).updates
    for name, beta in (("optimizer.correction1", 0.9), ("optimizer.correction2", 0.999)):
        assert values[name].item() == pytest.approx(1 - beta**5000, rel=1e-5)


def test_group_that_matches_nothing_is_an_error() -> None:
    """A misspelt pattern is an error, not a silent no."""
    before, _ = example(append_optimizer)
    with pytest.raises(InputError, match=r"match='\*\.wieght'"):
        append_optimizer(before, SGD(groups=(ParamGroup("*.wieght"),)))
