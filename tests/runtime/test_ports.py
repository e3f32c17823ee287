"""Which arrays a port takes, and as what."""

from __future__ import annotations

import numpy as np
import pytest

from pockengine.errors import InputError
from pockengine.ir.types import DType, Region
from pockengine.runtime.descriptor import Check, Operand, Port
from pockengine.runtime.ports import NUMPY_DTYPE, BoundPort


def _port(dtype: DType, check: Check | None = None) -> BoundPort:
    return BoundPort(Port("x", dtype, Operand(Region.ARENA, 0), 3, check or Check()))


@pytest.mark.parametrize("dtype", DType)
def test_the_ports_own_dtype_is_not_copied(dtype: DType) -> None:
    """A dense array of the right dtype passes as it is."""
    value = np.zeros(3, NUMPY_DTYPE[dtype])
    assert _port(dtype).accept(value) is value


@pytest.mark.parametrize(
    ("dtype", "given"),
    [
        (DType.I32, np.array([1, -2, 3], np.int64)),
        (DType.U8, np.array([1, 2, 255], np.int32)),
        (DType.I64, np.array([1, 2, 3], np.uint8)),
        (DType.F16, np.array([1, 2, 3], np.float64)),
        (DType.F32, np.array([[1], [2], [3]], np.float32, order="F")[::-1]),
    ],
)
def test_values_survive_conversion(dtype: DType, given: np.ndarray) -> None:
    """What converts keeps its values and becomes dense."""
    taken = _port(dtype).accept(given)
    assert taken.dtype == NUMPY_DTYPE[dtype]
    assert taken.flags.c_contiguous
    np.testing.assert_array_equal(taken, given)


@pytest.mark.parametrize(
    ("dtype", "given"),
    [
        (DType.F32, np.zeros(3, np.int32)),
        (DType.I32, np.zeros(3, np.float32)),
        (DType.BOOL, np.zeros(3, np.uint8)),
        (DType.I8, np.zeros(3, np.bool_)),
        (DType.BF16, np.zeros(3, np.float32)),
        (DType.BF16, np.zeros(3, np.uint8)),
    ],
)
def test_other_kinds_are_refused(dtype: DType, given: np.ndarray) -> None:
    """Kinds never mix silently."""
    with pytest.raises(InputError, match=f"x: it has elements of {given.dtype}; 3 elements of"):
        _port(dtype).accept(given)


def test_integers_do_not_wrap() -> None:
    """A value beyond the port's integers is named, with the range that is permitted."""
    with pytest.raises(InputError, match=r"x\[2\]: it is 256; an integer from 0 to 255 is needed"):
        _port(DType.U8).accept(np.array([1, 2, 256]))
    with pytest.raises(InputError, match=r"x\[0\]: it is 4294967296; an integer from 0 to 9 "):
        _port(DType.I32, Check.index(0, 10)).accept(np.array([2**32, 0, 0]))
