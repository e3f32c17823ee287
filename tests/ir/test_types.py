"""Types: sizes, storage order, regions."""

from __future__ import annotations

import pytest
import torch

from pockengine.ir.types import DType, Region, Role, TensorType


def test_sizes() -> None:
    """Elements and bytes follow from shape and dtype; a scalar has one element."""
    assert TensorType((2, 3, 4)).size == 24
    assert TensorType((2, 3, 4)).nbytes == 96
    assert TensorType((2, 3), DType.BF16).nbytes == 12
    assert TensorType((), DType.I64).nbytes == 8
    assert TensorType((0, 4)).nbytes == 0


def test_strides_follow_the_order() -> None:
    """Strides are by canonical axis: channels of an NHWC value are neighbours."""
    plain = TensorType((2, 3, 4, 5))
    assert plain.strides == (60, 20, 5, 1)
    assert plain.ordered((0, 2, 3, 1)).strides == (60, 1, 15, 3)


def test_the_row_major_order_is_the_empty_one() -> None:
    """A value put back into row-major order has the type it began with."""
    plain = TensorType((2, 3, 4))
    assert plain.ordered((2, 0, 1)) != plain
    assert plain.ordered((2, 0, 1)).ordered((0, 1, 2)) == plain


@pytest.mark.parametrize("dtype", DType)
def test_dtypes(dtype: DType) -> None:
    """Each dtype is a torch dtype of as many bits, and comes back from it."""
    assert DType.of(dtype.torch) is dtype
    assert torch.empty((), dtype=dtype.torch).element_size() * 8 == dtype.bits
    assert dtype.is_float == dtype.torch.is_floating_point


def test_double_is_the_oracles_float() -> None:
    """Float64 stands for f32; a dtype the IR lacks is an error."""
    assert DType.of(torch.float64) is DType.F32
    with pytest.raises(KeyError):
        DType.of(torch.complex64)


def test_regions() -> None:
    """What outlives the step has its region; inputs and rates are transient."""
    assert [Role.CONST.region, Role.PARAM.region, Role.STATE.region] == [0, 1, 2]
    assert {Role.INPUT.region, Role.TARGET.region, Role.HYPER.region} == {Region.ARENA}


def test_text() -> None:
    """A type reads dtype, shape, and order where it is not row-major."""
    assert str(TensorType((1, 2), DType.I8)) == "i8[1x2]"
    assert str(TensorType(())) == "f32[]"
    assert str(TensorType((1, 2, 3, 4)).ordered((0, 2, 3, 1))) == "f32[1x2x3x4]@0.2.3.1"
