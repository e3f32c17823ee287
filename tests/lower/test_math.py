"""Elementary functions: units in the last place against float64, and PyTorch's special values."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from tvm import tirx

from pockengine.lower import math, nest
from pockengine.lower.blob import undefined_symbols
from pockengine.lower.codegen import compile_function
from pockengine.lower.power import power
from tests.lower.harness import built

Floats = NDArray[np.float32]
Emit = Callable[..., nest.Expr]

LANES = 16
LIMIT_ULP = 4.0
GENERIC = {"kind": "llvm", "mtriple": "x86_64-linux-gnu", "mcpu": "x86-64"}  # no FMA, no rounding
UNARY: dict[str, tuple[Emit, Callable[[torch.Tensor], torch.Tensor]]] = {
    "absolute": (math.absolute, torch.abs),
    "clamp": (lambda x: math.clamp(x, -1.5, 6.0), lambda x: torch.clamp(x, -1.5, 6.0)),
    "cos": (math.cos, torch.cos),
    "erf": (math.erf, torch.erf),
    "exp": (math.exp, torch.exp),
    "expm1": (math.expm1, torch.expm1),
    "floor": (math.floor, torch.floor),
    "log": (math.log, torch.log),
    "log1p": (math.log1p, torch.log1p),
    "reciprocal": (math.reciprocal, torch.reciprocal),
    "relu": (math.relu, torch.relu),
    "round_half_even": (math.round_half_even, torch.round),
    "rsqrt": (math.rsqrt, torch.rsqrt),
    "sigmoid": (math.sigmoid, torch.sigmoid),
    "sign": (math.sign, torch.sign),
    "sin": (math.sin, torch.sin),
    "sqrt": (math.sqrt, torch.sqrt),
    "tanh": (math.tanh, torch.tanh),
}
SPECIAL = np.array(
    [0.0, -0.0, 1.0, -1.0, 0.5, -0.5, 2.0, -2.0, 3.0, -3.0, np.inf, -np.inf, np.nan, 1e-40, -1e-40,
     3e38, -3e38, 1e10, 16777216.0, 16777215.0, 8388607.5],
    dtype=np.float32,
)  # fmt: skip


def apply(emit: Emit, folder: Path, *inputs: Floats, lanes: int = LANES) -> Floats:
    """The function of all elements, by a kernel of vectors or of scalars."""
    count = -(-inputs[0].size // LANES) * LANES
    operands = [nest.operand(f"x{k}", count) for k in range(len(inputs))]
    out = nest.operand("out", count)

    def step(i: nest.Expr) -> nest.Stmt:
        values = [nest.load(operand, i * lanes, lanes) for operand in operands]
        made, value = nest.held("value", emit(*values))
        return nest.block(*made, nest.store(out, i * lanes, value, lanes))

    body = nest.kernel([*operands, out], lambda b, e: nest.serial("i", e - b, step, b))
    padded = [np.resize(x, count) for x in inputs]
    result = np.empty(count, dtype=np.float32)
    built(body, folder)(0, count // lanes, *padded, result)
    return result[: inputs[0].size]


def ulps(got: Floats, expected: NDArray[np.float64]) -> NDArray[np.float64]:
    """Distance in units of the expected value's last place; inf where special values differ."""
    with np.errstate(over="ignore", invalid="ignore"):
        rounded = expected.astype(np.float32)
        same = (got == rounded) | (np.isnan(got) & np.isnan(rounded))
        unit = np.spacing(np.abs(rounded)).astype(np.float64)
        distance = np.abs(got.astype(np.float64) - expected) / unit
    return np.where(same, 0.0, np.where(np.isfinite(distance), distance, np.inf))


def grid(name: str) -> Floats:
    """Float32 numbers of all exponents and signs, subnormal ones and NaNs too, and a dense part."""
    everything = np.arange(0, 1 << 32, 14983, dtype=np.uint64).astype(np.uint32).view(np.float32)
    near = np.linspace(-10.0, 10.0, 40001, dtype=np.float32)
    points = np.concatenate([everything, near, SPECIAL])
    return points[~(np.abs(points) > 12800)] if name in ("sin", "cos") else points


@pytest.mark.parametrize("name", UNARY)
def test_unary_function_is_accurate_over_the_whole_range(name: str, tmp_path: Path) -> None:
    """No value, normal or special, is further from the float64 result than the limit."""
    emit, reference = UNARY[name]
    x = grid(name)
    expected = reference(torch.from_numpy(x).double()).numpy()
    error = ulps(apply(emit, tmp_path, x), expected)
    worst = int(np.argmax(error))
    assert error[worst] <= LIMIT_ULP, f"{name}({x[worst]}) is off by {error[worst]} ulp"


@pytest.mark.parametrize("name", UNARY)
def test_special_values_are_as_in_pytorch(name: str, tmp_path: Path) -> None:
    """NaN, infinities and zeros give what float32 PyTorch gives, by scalar code as well."""
    emit, reference = UNARY[name]
    x = np.array([0.0, -0.0, np.inf, -np.inf, np.nan], dtype=np.float32)
    expected = reference(torch.from_numpy(x)).numpy()
    for lanes in (1, LANES):
        np.testing.assert_array_equal(apply(emit, tmp_path, x, lanes=lanes), expected)


@pytest.mark.parametrize("name", ["sin", "cos"])
def test_far_angles_lose_only_absolute_accuracy(name: str, tmp_path: Path) -> None:
    """To 1e6 the error stays near the angle's own rounding; beyond, results stay within [-1, 1]."""
    emit, reference = UNARY[name]
    x = np.linspace(12800.0, 1e6, 50001, dtype=np.float32)
    expected = reference(torch.from_numpy(x).double()).numpy()
    assert np.abs(apply(emit, tmp_path, x) - expected).max() <= 0.1
    far = np.array([1e8, -1e20, 3e38], dtype=np.float32)
    assert np.abs(apply(emit, tmp_path, far)).max() <= 1.0


def test_maximum_and_minimum_propagate_nan(tmp_path: Path) -> None:
    """A NaN on either side wins, as in torch.maximum and torch.minimum."""
    x, y = (axis.ravel() for axis in np.meshgrid(SPECIAL, SPECIAL))
    for emit, reference in ((math.maximum, torch.maximum), (math.minimum, torch.minimum)):
        expected = reference(torch.from_numpy(x), torch.from_numpy(y)).numpy()
        np.testing.assert_array_equal(apply(emit, tmp_path, x, y), expected)


def test_power_is_accurate_where_the_exponent_is_large(tmp_path: Path) -> None:
    """Random bases and exponents, up to overflow and underflow, stay within the limit."""
    random = np.random.default_rng(1)
    for center, spread, scale in ((1.0, 0.3, 100.0), (1.0, 1e-3, 3e4), (50.0, 20.0, 4.0)):
        x = np.abs(random.normal(center, spread, 20000)).astype(np.float32)
        y = random.normal(0.0, scale, 20000).astype(np.float32)
        expected = torch.pow(torch.from_numpy(x).double(), torch.from_numpy(y).double()).numpy()
        assert ulps(apply(power, tmp_path, x, y), expected).max() <= LIMIT_ULP


def test_power_of_special_values_is_as_in_pytorch(tmp_path: Path) -> None:
    """All pairs of zeros, ones, infinities, NaN, negative bases, odd, even and broken exponents."""
    x, y = (axis.ravel() for axis in np.meshgrid(SPECIAL, SPECIAL))
    expected = torch.pow(torch.from_numpy(x).double(), torch.from_numpy(y).double()).numpy()
    assert ulps(apply(power, tmp_path, x, y), expected).max() <= LIMIT_ULP


@pytest.mark.parametrize("exponent", [-1.0, -0.5, 0.5, 1.0, 2.0, 3.0, 4.0])
def test_power_with_a_constant_exponent(exponent: float, tmp_path: Path) -> None:
    """Short cuts give the same as the general power."""
    x = np.linspace(0.1, 9.0, 999, dtype=np.float32)
    got = apply(lambda x: power(x, math.splat(exponent, x)), tmp_path, x)
    assert ulps(got, x.astype(np.float64) ** exponent).max() <= LIMIT_ULP


@pytest.mark.parametrize("name", [*UNARY, "power"])
def test_no_function_needs_a_library(name: str) -> None:
    """Even without FMA and rounding instructions the object refers to nothing outside itself."""
    emit: Emit = UNARY[name][0] if name in UNARY else lambda x: power(x, x)
    x = nest.operand("x", 4)
    made, value = nest.held("value", emit(nest.load(x, nest.const(0), 4)))
    store = nest.store(x, nest.const(0), value, 4)
    body = nest.kernel([x], lambda _b, _e: nest.block(*made, store))
    assert not undefined_symbols(compile_function(body, GENERIC, "kernel"))


@pytest.mark.parametrize("name", [*UNARY, "power"])
def test_bindings_are_one_chain(name: str) -> None:
    """No Let hides inside another one's value, where compile time would explode."""
    x = tirx.Var("x", "float32")
    expression = power(x, x) if name == "power" else UNARY[name][0](x)
    while isinstance(expression, tirx.Let):
        assert "T.Let" not in expression.value.script()
        expression = expression.body
    assert "T.Let" not in expression.script()
