"""A toy trainer: linear regression on one sample, its tables by hand (kernels: csrc/toy.c)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pockengine.ir.types import DType, Region
from pockengine.runtime.descriptor import Call, Check, Descriptor, Entry, Operand, Port

SIZE = 1000
CHUNKS = SIZE // 8
KERNELS = ("toy_dot", "toy_loss", "toy_scale", "toy_update", "toy_fail")


def _arena(offset: int) -> Operand:
    return Operand(Region.ARENA, offset)


X, Y, RATE, LABEL, EARLY, LATE = map(_arena, (0, 4096, 4160, 4224, 4288, 4352))
LOSS, ERROR, PARTIALS, GRADIENT = map(_arena, (4416, 4480, 4544, 5120))
W = Operand(Region.PARAM, 0)


def toy_descriptor() -> Descriptor:
    """Entry points ``step`` (inputs of `batch` -> loss) and ``predict`` (x -> partials)."""
    loss = Port("loss", DType.F32, LOSS, 1)
    x = Port("x", DType.F32, X, SIZE, Check.finite())
    partials = Port("partials", DType.F32, PARTIALS, CHUNKS)
    step = Entry(
        "step",
        (
            x,
            Port("y", DType.F32, Y, 1),
            Port("rate", DType.F32, RATE, 1, Check.finite()),
            Port("label", DType.I64, LABEL, 2, Check.index(0, 10, ignore=-100)),
            Port("early", DType.I32, EARLY, 1),
            Port("late", DType.I32, LATE, 1),
        ),
        (loss,),
        first_call=0,
        calls=6,
        commit=4,
        guard=loss,
    )
    return Descriptor(
        region_bytes=(0, SIZE * 4, 0, 9216),
        kernels=KERNELS,
        calls=(
            Call(4, (EARLY,), 1),
            Call(0, (PARTIALS, W, X), CHUNKS, grain=10),
            Call(1, (LOSS, ERROR, PARTIALS, Y), CHUNKS),
            Call(2, (GRADIENT, X, ERROR), SIZE, grain=100),
            Call(3, (W, GRADIENT, RATE), SIZE, grain=100),
            Call(4, (LATE,), 1),
            Call(0, (PARTIALS, W, X), CHUNKS, grain=10),
        ),
        entries=(step, Entry("predict", (x,), (partials,), first_call=6, calls=1)),
    )


def batch(**changes: NDArray[Any]) -> list[NDArray[Any]]:
    """Inputs of ``step``: a good sample, but for what is changed by name."""
    x = np.random.default_rng(0).standard_normal(SIZE).astype(np.float32)
    inputs: dict[str, NDArray[Any]] = {
        "x": x,
        "y": np.array([3], np.float32),
        "rate": np.array([1e-4], np.float32),
        "label": np.array([9, -100], np.int64),
        "early": np.array([0], np.int32),
        "late": np.array([0], np.int32),
    }
    return [changes.get(name, value) for name, value in inputs.items()]
