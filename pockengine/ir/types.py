"""Types of values: shape, dtype, storage layout, quantization; and values' roles and regions."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum, IntEnum
from math import prod
from typing import TypeAlias

import torch

TorchDType: TypeAlias = torch.dtype  # inside DType, ``torch`` is a property


class DType(Enum):
    """Element types a value can have."""

    F32 = "f32"
    BF16 = "bf16"
    F16 = "f16"
    I8 = "i8"
    I32 = "i32"
    I64 = "i64"
    U8 = "u8"
    BOOL = "bool"

    __hash__ = object.__hash__  # Enum hashes the name anew each time, and types are hashed a lot

    @property
    def bits(self) -> int:
        """Bits an element takes in storage."""
        return _BITS[self]

    @property
    def is_float(self) -> bool:
        """Whether the element is a floating-point number."""
        return self in (DType.F32, DType.BF16, DType.F16)

    @property
    def torch(self) -> torch.dtype:
        """The dtype of the reference implementation."""
        return _TORCH[self]

    @classmethod
    def of(cls, dtype: TorchDType) -> DType:
        """The element type of a torch dtype; KeyError where there is none."""
        return _FROM_TORCH[dtype]


_BITS = {
    DType.F32: 32,
    DType.BF16: 16,
    DType.F16: 16,
    DType.I8: 8,
    DType.I32: 32,
    DType.I64: 64,
    DType.U8: 8,
    DType.BOOL: 8,
}
_TORCH = {
    DType.F32: torch.float32,
    DType.BF16: torch.bfloat16,
    DType.F16: torch.float16,
    DType.I8: torch.int8,
    DType.I32: torch.int32,
    DType.I64: torch.int64,
    DType.U8: torch.uint8,
    DType.BOOL: torch.bool,
}
_FROM_TORCH = {dtype: name for name, dtype in _TORCH.items()}
_FROM_TORCH[torch.float64] = DType.F32  # float64 oracles run the same graph


class Region(IntEnum):
    """Where a value's bytes live (DESIGN.md, decision 3)."""

    CONST = 0
    PARAM = 1
    STATE = 2
    ARENA = 3


class Role(Enum):
    """What a placeholder stands for."""

    INPUT = "input"
    TARGET = "target"
    CONST = "const"
    PARAM = "param"
    STATE = "state"
    HYPER = "hyper"

    @property
    def region(self) -> Region:
        """The region a placeholder of this role lives in; inputs are transient."""
        return _REGION.get(self, Region.ARENA)


_REGION = {Role.CONST: Region.CONST, Role.PARAM: Region.PARAM, Role.STATE: Region.STATE}


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantization:
    """Affine quantization: real = scale * (stored - zero_point), both *values* of the graph.

    Args:
        scale: name of the value that holds the scale: one element, or one an index of ``axis``.
        zero_point: name of the value that holds the zero point, of the same shape.
        axis: the quantized axis; None for one scale a tensor.
    """

    scale: str
    zero_point: str
    axis: int | None = None


@dataclass(frozen=True, slots=True)
class TensorType:
    """What is known of a value before it runs.

    Args:
        shape: the canonical (PyTorch) extents, outermost first.
        dtype: the element type.
        order: storage order: stored axis i is canonical axis order[i]. Empty: row-major as in
            PyTorch. A convolution's (N, C, H, W) activation stored as NHWC has order (0, 2, 3, 1).
        quantization: how stored integers map to real numbers.
    """

    shape: tuple[int, ...]
    dtype: DType = DType.F32
    order: tuple[int, ...] = ()
    quantization: Quantization | None = None

    @property
    def size(self) -> int:
        """The number of elements."""
        return prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes in storage."""
        return self.size * self.dtype.bits // 8

    @property
    def strides(self) -> tuple[int, ...]:
        """Elements between neighbours along each canonical axis."""
        strides = [0] * len(self.shape)
        step = 1
        for axis in reversed(self.order or range(len(self.shape))):
            strides[axis] = step
            step *= self.shape[axis]
        return tuple(strides)

    def ordered(self, order: tuple[int, ...]) -> TensorType:
        """The same value in another storage order."""
        return replace(self, order=() if order == tuple(range(len(order))) else order)

    def __str__(self) -> str:
        dims = "x".join(str(extent) for extent in self.shape)
        order = f"@{'.'.join(map(str, self.order))}" if self.order else ""
        return f"{self.dtype.value}[{dims}]{order}"
