"""The spine on small models: PyTorch's numbers by every scheme. The long form: `make verify`."""

from __future__ import annotations

import pytest
import torch

from tests.models import MODELS, OPTIMIZERS, SCHEMES, small_case
from tests.pass_oracle import checked_passes
from tests.spine import judge, train, train_in_pytorch

# every pair of a model with a scheme and of a scheme with an optimizer, but not all triples
_CASES = [
    (model, scheme, list(OPTIMIZERS)[(place + turn) % 2])
    for place, model in enumerate(MODELS)
    for turn, scheme in enumerate(SCHEMES)
]


@pytest.mark.slow
@pytest.mark.parametrize(("model", "scheme", "optimizer"), _CASES)
def test_numbers_are_pytorchs(model: str, scheme: str, optimizer: str) -> None:
    """Losses and parameters agree with eager PyTorch's; one thread and two leave the same bits."""
    case = small_case(model, scheme, optimizer)
    run = train(case)
    found = judge(case, run, train_in_pytorch(case), train_in_pytorch(case, torch.float64))
    assert found.failures == []
    assert train(case, threads=2).same_bits(run)


@pytest.mark.slow
@pytest.mark.parametrize(("model", "scheme", "optimizer"), _CASES)
def test_every_pass_keeps_the_mathematics(model: str, scheme: str, optimizer: str) -> None:
    """After each pass, each entry point's graph gives autograd's numbers in float64."""
    case = small_case(model, scheme, optimizer)
    oracle = checked_passes(case)
    assert oracle.failures == []
    assert {entry for entry, _ in oracle.checked} == {"captured", "step", "predict", "evaluate"}


def test_keys_have_no_gradient() -> None:
    """The biases of attention's keys are what has a gradient of zero in MiniLM, and are found."""
    double = train_in_pytorch(small_case("bert", "full", "sgd"), torch.float64)
    quiet = [name for name in double.without_gradient if not name.startswith("embeddings.")]
    assert quiet == [f"encoder.layer.{layer}.attention.self.key.bias" for layer in (0, 1, 2)]


def test_judgement_can_fail() -> None:
    """A wrong loss, a frozen parameter that moved and one that is a little off are all named."""
    case = small_case("mlp", "bias_only", "sgd")
    single, double = train_in_pytorch(case), train_in_pytorch(case, torch.float64)
    run = train(case)
    run.losses[2] *= 1 + 2e-4
    run.state["2.bias"].mul_(1 + 2e-4)
    run.state["0.weight"][0, 0] += 1e-6
    failures = judge(case, run, single, double).failures
    assert [failure.split(":")[0].split(" ")[0] for failure in failures] == [
        "loss",
        "0.weight",
        "2.bias",
    ]
