"""``Signature``: batches of every kind, and messages for those that do not fit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from pockengine.errors import InputError
from pockengine.frontend.structure import flatten
from pockengine.ir.types import DType, TensorType
from pockengine.runtime.signature import Signature

_X = torch.arange(24.0).reshape(2, 3, 2, 2)
_IDS = torch.tensor([[1, 2], [3, 4]])


def _signature(inputs: Any, names: tuple[str, ...]) -> Signature:
    types = {"input": TensorType((2, 3, 2, 2)), "input.x": TensorType((2, 3, 2, 2))}
    types |= dict.fromkeys(("input.ids", "target"), TensorType((2, 2), DType.I64))
    return Signature(
        inputs=names,
        targets=("target",),
        types=types,
        input_structure=flatten(inputs)[1],
        target_structure=flatten(_IDS)[1],
        output_structure=flatten({"logits": _IDS, "all": (_IDS, _IDS)})[1],
        outputs=(TensorType((2, 2)), TensorType((4,)), TensorType(())),
    )


_ONE = _signature((_X,), ("input",))
_NAMED = _signature({"x": _X, "ids": _IDS}, ("input.x", "input.ids"))


@pytest.mark.parametrize(
    "inputs",
    [_X, (_X,), [_X], _X.numpy(), _X.to(memory_format=torch.channels_last), _X.to(torch.bfloat16)],
)
def test_one_input(inputs: Any) -> None:
    """A lone input may be a tensor or an array of any memory format, or in a tuple."""
    (array,) = _ONE.bind_inputs(inputs)
    assert np.array_equal(array, _X.numpy())


def test_keywords() -> None:
    """A dict gives keyword arguments, in any order."""
    x, ids = _NAMED.bind_inputs({"ids": _IDS.to(torch.int32), "x": _X})
    assert np.array_equal(x, _X.numpy())
    assert np.array_equal(ids, _IDS.numpy())


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (_X[:1], r"input: shape \(1, 3, 2, 2\); shape \(2, 3, 2, 2\) of f32 .* is smaller than"),
        (torch.cat([_X, _X]), "the batch, which is larger"),
        (_X.permute(0, 2, 3, 1), r"shape \(2, 2, 2, 3\); .* Pass what"),
        (_X.long(), "input: elements of int64"),
        ((_X, _X), "inputs: a tuple of 2; a tuple of 1"),
        ({"x": _X}, "inputs: a dict with the keys 'x'"),
        ("text", "input: "),
    ],
)
def test_misfits(inputs: Any, message: str) -> None:
    """A wrong structure, shape or dtype is refused, and the message says what is needed."""
    with pytest.raises(InputError, match=message):
        _ONE.bind_inputs(inputs)


def test_labels() -> None:
    """Labels have to be integers, and a missing keyword is named."""
    with pytest.raises(InputError, match="target: elements of float32"):
        _ONE.bind_targets(_IDS.float())
    with pytest.raises(InputError, match="keys 'x'; a dict with the keys 'x', 'ids'"):
        _NAMED.bind_inputs({"x": _X})


def test_structured() -> None:
    """Outputs come back in the model's own structure, as tensors or arrays."""
    flat = [np.arange(4.0), np.arange(4.0), np.zeros(1)]
    found = _ONE.structured(flat, as_tensors=True)
    assert torch.equal(found["logits"], torch.arange(4.0).double().reshape(2, 2))
    assert isinstance(_ONE.structured(flat, as_tensors=False)["all"][1], np.ndarray)
