"""What an entry point takes and gives, as NumPy arrays; and the messages when it does not fit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pockengine.errors import InputError
from pockengine.ir.types import DType
from pockengine.runtime.descriptor import CheckKind, Port

NUMPY_DTYPE: Mapping[DType, np.dtype[Any]] = {
    DType.F32: np.dtype(np.float32),
    DType.BF16: np.dtype(np.uint16),  # NumPy has no bfloat16: its bits
    DType.F16: np.dtype(np.float16),
    DType.I8: np.dtype(np.int8),
    DType.I32: np.dtype(np.int32),
    DType.I64: np.dtype(np.int64),
    DType.U8: np.dtype(np.uint8),
    DType.BOOL: np.dtype(np.bool_),
}


class BoundPort:
    """A port as Python meets it: what an array has to be, and how one becomes it."""

    def __init__(self, port: Port) -> None:
        self.port = port
        self.dtype = NUMPY_DTYPE[port.dtype]
        self.nbytes = port.size * self.dtype.itemsize

    def view(self, regions: Sequence[NDArray[np.uint8]]) -> NDArray[Any]:
        """The port's place in its region, flat, in its dtype."""
        place = self.port.operand
        return regions[place.region][place.offset : place.offset + self.nbytes].view(self.dtype)

    def accept(self, value: NDArray[Any]) -> NDArray[Any]:
        """The array itself where it fits as it is, else a dense copy in the port's dtype."""
        if value.dtype == self.dtype and value.flags.c_contiguous and value.size == self.port.size:
            return value
        self._require(value.size == self.port.size, f"it has {value.size} elements")
        self._require(self._converts(value.dtype), f"it has elements of {value.dtype}")
        return np.ascontiguousarray(self._narrow(value))

    def _converts(self, given: np.dtype[Any]) -> bool:
        """Whether integers become integers, or reals reals; everything else is a mistake."""
        if given == self.dtype:
            return True
        if self.port.dtype is DType.BF16:
            return False
        return given.kind == self.dtype.kind == "f" or (given.kind in "iu" and self._is_integer)

    @property
    def _is_integer(self) -> bool:
        return self.dtype.kind in "iu"

    def _narrow(self, value: NDArray[Any]) -> NDArray[Any]:
        """In the port's dtype; an integer it cannot hold is an error, where it would wrap."""
        if self._is_integer and not np.can_cast(value.dtype, self.dtype):
            limits = np.iinfo(self.dtype)
            unfit = (value < limits.min) | (value > limits.max)
            if unfit.any():
                element = int(unfit.argmax())
                raise out_of_range(self.port, element, int(value.reshape(-1)[element]))
        with np.errstate(over="ignore"):  # becomes infinite, which the C core checks
            return value.astype(self.dtype)

    def _require(self, holds: bool, found: str) -> None:
        if not holds:
            raise InputError(
                where=self.port.name,
                found=found,
                needed=f"{self.port.size} elements of {self.dtype} are needed",
                remedy="Pass what the trainer was compiled for.",
            )


def out_of_range(port: Port, element: int, value: int) -> InputError:
    """The error for an integer that the port does not permit."""
    ignore = port.check.ignore
    besides = "" if ignore is None else f", or {ignore}"
    indexed = port.check.kind is CheckKind.INDEX
    low, high = (port.check.low, port.check.high) if indexed else _dtype_range(port.dtype)
    return InputError(
        where=f"{port.name}[{element}]",
        found=f"it is {value}",
        needed=f"an integer from {low} to {high - 1}{besides} is needed",
        remedy="Nothing was changed; correct the batch.",
    )


def _dtype_range(dtype: DType) -> tuple[int, int]:
    limits = np.iinfo(NUMPY_DTYPE[dtype])
    return int(limits.min), int(limits.max) + 1
