"""A third of the zoo, tiny: five steps of the compiled trainer are PyTorch's."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from tests.spine import judge, train, train_in_pytorch
from tests.zoo.cases import zoo_case

CASES = (
    ("efficientnet_lite", "mixed", "sgd"),
    ("vit", "bias_only", "adamw"),
    ("t5", "full", "sgd"),
    ("mamba", "full", "adamw"),
    ("signal_net", "mixed", "adamw"),
    ("gru", "full", "adamw"),
    ("autoencoder", "full", "adamw"),
    ("dropout_mlp", "mixed", "sgd"),
)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "scheme", "optimizer"), CASES)
def test_zoo(name: str, scheme: str, optimizer: str) -> None:
    """Losses and parameters, against float32 and float64."""
    case = zoo_case(name, scheme, optimizer, steps=5, tiny=True)
    double = train_in_pytorch(case, torch.float64)
    assert judge(case, train(case), train_in_pytorch(case), double).failures == []


@pytest.mark.slow
def test_batches_need_not_be_contiguous() -> None:
    """The same numbers with other strides give the same bits."""
    case = zoo_case("autoencoder", "full", "sgd", steps=2, tiny=True)
    strided = [(x.T.contiguous().T, y.repeat_interleave(2, 1)[:, ::2]) for x, y in case.batches]
    assert not strided[0][0].is_contiguous()
    assert train(replace(case, batches=strided)).same_bits(train(case))
