"""ATen ops that make a tensor out of numbers."""

from __future__ import annotations

from pockengine.frontend.rules.table import Legalizer, Value, rule


def _full(to: Legalizer, value: float) -> Value:
    typed = float(value) if to.dtype.is_float else int(value)
    return to.emit("full", to.shape, typed, to.dtype.value)


@rule("full.default")
def _full_default(to: Legalizer, shape: Value, value: float, **_: Value) -> Value:
    del shape
    return _full(to, value)


@rule("full_like.default", "new_full.default")
def _full_like(to: Legalizer, *args: Value, **_: Value) -> Value:
    return _full(to, args[-1])


@rule("scalar_tensor.default")
def _scalar_tensor(to: Legalizer, value: float, **_: Value) -> Value:
    return _full(to, value)


@rule("zeros_like.default", "zeros.default", "new_zeros.default")
def _zeros(to: Legalizer, *_: Value, **__: Value) -> Value:
    return _full(to, 0)


@rule("empty_like.default", "empty.memory_format", "empty_permuted.default")
@rule("new_empty.default", "new_empty_strided.default")
def _empty(to: Legalizer, *_: Value, **__: Value) -> Value:
    return _full(to, 0)  # whoever reads it has written it


@rule("ones_like.default", "ones.default", "new_ones.default")
def _ones(to: Legalizer, *_: Value, **__: Value) -> Value:
    return _full(to, 1)


@rule("arange.start_step", "arange.default", "arange.start")
def _arange(to: Legalizer, *args: float, **_: Value) -> Value:
    start, step = (args[0] if len(args) > 1 else 0), (args[2] if len(args) > 2 else 1)
    index = to.cast(to.emit("iota", to.shape, 0), to.dtype)
    if step != 1:
        index = to.emit("mul", index, step)
    return index if start == 0 else to.emit("add", index, start)
