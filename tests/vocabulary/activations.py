"""Every activation of torch.nn and every elementwise function: one row a case."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812 - the name everybody knows
from torch import Tensor, nn

from tests.vocabulary.harness import Case, case

_SHAPE = (3, 7)
_WIDE = torch.linspace(-7, 7, 36).reshape(4, 9) + 0.013
_POSITIVE = torch.linspace(1, 6, 21).reshape(3, 7)  # stays positive when it is trained
_UNIT = torch.linspace(0.3, 0.7, 21).reshape(3, 7)
_BOOLS = torch.tensor([True, False, True, True, False, False, True])
_INTS = torch.tensor([[3, -4, 0, 7, -1, 2, 5], [1, 2, -2, 9, 4, -9, 0], [1] * 7])
_MORE_INTS = torch.tensor([2, -3, 5, 4, 1, -2, 3])


def _module(module: nn.Module, operand: object = _WIDE) -> Case:
    return case(lambda x, m: m(x), operand, modules=[module.eval()])  # type: ignore[arg-type]


ACTIVATIONS: dict[str, Case] = {
    **{
        name: _module(getattr(nn, name)())
        for name in (
            "ReLU ReLU6 LeakyReLU PReLU RReLU ELU CELU SELU GELU SiLU Mish Softplus Softsign "
            "Tanhshrink Hardtanh Hardswish Hardsigmoid Hardshrink Softshrink LogSigmoid Sigmoid "
            "Tanh Identity"
        ).split()
    },
    "GELU tanh": _module(nn.GELU("tanh")),
    "PReLU channels": _module(nn.PReLU(9)),
    "PReLU images": _module(nn.PReLU(3), (2, 3, 4, 5)),
    "ELU alpha": _module(nn.ELU(0.3)),
    "CELU alpha": _module(nn.CELU(2.0)),
    "Softplus beta": _module(nn.Softplus(3.0, 2.0)),
    "Hardtanh bounds": _module(nn.Hardtanh(-0.3, 2.5)),
    "Threshold": _module(nn.Threshold(0.2, 5.0)),
    "GLU": _module(nn.GLU(), (3, 8)),
    "GLU first axis": _module(nn.GLU(0), (4, 5)),
    "Softmax": _module(nn.Softmax(-1)),
    "Softmax columns": _module(nn.Softmax(0)),
    "LogSoftmax": _module(nn.LogSoftmax(-1)),
    "LogSoftmax middle": _module(nn.LogSoftmax(1), (2, 5, 3)),
    "Softmin": _module(nn.Softmin(-1)),
    "Softmax2d": _module(nn.Softmax2d(), (2, 3, 4, 5)),
    "logsigmoid ReLU6 chain": case(lambda x: F.relu6(F.logsigmoid(x) + 3), _WIDE),
    "swiglu": case(lambda x, y: F.silu(x) * y, _SHAPE, _SHAPE),
    "relu in place": case(lambda x: F.relu_(x * 1.5), _SHAPE),
}

_FLOAT_UNARY = "exp expm1 sin cos tan erf erfc abs sign floor ceil trunc round frac square".split()
_MORE_UNARY = "sinh cosh asinh atan sigmoid tanh neg exp2 softplus silu deg2rad".split()
_OF_POSITIVE = "sqrt rsqrt log log2 log10 log1p reciprocal".split()
_OF_UNIT = "asin acos atanh logit".split()

FUNCTIONS: dict[str, Case] = {
    **{
        name: case(getattr(torch, name, None) or getattr(F, name), _WIDE)
        for name in (*_FLOAT_UNARY, *_MORE_UNARY)
    },
    **{name: case(getattr(torch, name), _POSITIVE) for name in _OF_POSITIVE},
    **{name: case(getattr(torch, name), _UNIT) for name in _OF_UNIT},
    "acosh": case(torch.acosh, _POSITIVE + 1),
    **{
        f"pow {exponent}": case(lambda x, e=exponent: x.pow(e), _POSITIVE)
        for exponent in (0, 1, 2, 3, 4, 5, -1, -2, 0.5, -0.5, 1.5, 2.7, -3)
    },
    "pow of negatives": case(lambda x: x**3 + x**2 + x**5, _WIDE),
    "pow tensors": case(torch.pow, _POSITIVE, _SHAPE),
    "pow of a number": case(lambda x: 2.0**x + torch.pow(0.5, x), _SHAPE),
    "clamp": case(lambda x: x.clamp(-1, 2), _WIDE),
    "clamp below": case(lambda x: x.clamp(min=-1) + x.clamp_min(0.5), _WIDE),
    "clamp above": case(lambda x: x.clamp(max=-1) + x.clamp_max(0.5), _WIDE),
    "clamp by tensors": case(lambda x, a, b: x.clamp(a, b), _WIDE, (9,), torch.rand(4, 1) + 2),
    "clamp by one tensor": case(lambda x, a: x.clamp(min=a), _WIDE, (9,)),
    "maximum": case(torch.maximum, _SHAPE, (7,)),
    "minimum": case(torch.minimum, _SHAPE, (3, 1)),
    "maximum of equals": case(lambda x: torch.maximum(x, x * 1.0), _SHAPE),
    "fmax": case(lambda x, y: torch.fmax(x, y) + torch.fmin(x, 2 * y), _SHAPE, _SHAPE),
    "fmod": case(lambda x: torch.fmod(x, 1.7) + torch.fmod(x, -2.0), _WIDE),
    "fmod tensors": case(torch.fmod, _WIDE, _POSITIVE.flatten()[:9]),
    "remainder": case(lambda x: torch.remainder(x, 1.7) + x % -2.0, _WIDE),
    "remainder tensors": case(torch.remainder, _WIDE, _POSITIVE.flatten()[:9]),
    "div floor": case(lambda x: torch.div(x, 1.3, rounding_mode="floor") + x, _WIDE),
    "div trunc": case(lambda x: torch.div(x, 1.3, rounding_mode="trunc") + x, _WIDE),
    "round decimals": case(lambda x: torch.round(x, decimals=1) + x, _WIDE),
    "lerp": case(lambda x, y: torch.lerp(x, y, 0.3), _SHAPE, _SHAPE),
    "lerp tensor": case(torch.lerp, _SHAPE, _SHAPE, (7,)),
    "addcmul": case(lambda x, y, z: torch.addcmul(x, y, z, value=0.4), _SHAPE, (7,), (3, 1)),
    "addcdiv": case(lambda x, y: torch.addcdiv(x, y, y.abs() + 1, value=0.4), _SHAPE, (7,)),
    "atan2": case(torch.atan2, _SHAPE, _SHAPE),
    "hypot": case(torch.hypot, _SHAPE, _SHAPE),
    "floor_divide": case(lambda x, y: torch.floor_divide(x.detach(), y.detach()) + y, _SHAPE, (7,)),
    "copysign number": case(lambda x: torch.copysign(x, -1.0), _SHAPE),
    "xlogy": case(torch.xlogy, _SHAPE, _POSITIVE),
    "logaddexp": case(torch.logaddexp, _SHAPE, _SHAPE),
    "copysign": case(torch.copysign, _SHAPE, _SHAPE),
    "sinc": case(torch.sinc, _SHAPE),
    "nan_to_num": case(lambda x: torch.nan_to_num(x / (x > 0), 0.5, 3.0, -3.0), _SHAPE),
    "add and sub alpha": case(
        lambda x, y: torch.add(x, y, alpha=2) - torch.sub(x, y, alpha=3) + (1 - y), _SHAPE, (7,)
    ),
    "where": case(lambda x, y: torch.where(x > y, x * 2, y), _SHAPE, _SHAPE),
    "where numbers": case(lambda x: torch.where(x > 0, 1.0, -0.5) * x, _SHAPE),
    "where and number": case(lambda x: torch.where(x > 0, x, 0.25), _SHAPE),
    "masked_fill": case(lambda x, m: x.masked_fill(m, -2.0) * x, _SHAPE, _BOOLS),
    "masked_fill tensor": case(lambda x, v, m: x.masked_fill(m, v.sum()), _SHAPE, (2,), _BOOLS),
    "mask by product": case(lambda x, m: x * m + x * ~m * 2, _SHAPE, _BOOLS),
    "dist": case(lambda x, y: (x - y).abs().pow(2).sum().sqrt(), _SHAPE, _SHAPE),
    "cosine_similarity": case(F.cosine_similarity, _SHAPE, _SHAPE),
    "losses of nothing": case(
        lambda x, y: tuple(
            torch.nan_to_num(f(x, y), 0.5) for f in (F.mse_loss, F.smooth_l1_loss, F.huber_loss)
        ),
        (0, 3),
        (0, 3),
    ),
    "huber": case(lambda x, y: F.huber_loss(x, y) + F.smooth_l1_loss(x, y), _SHAPE, _SHAPE),
    "kl_div": case(
        lambda x, y: F.kl_div(x.log_softmax(-1), y.softmax(-1), reduction="batchmean"),
        (3, 5),
        (3, 5),
    ),
    "bce": case(lambda x, y: F.binary_cross_entropy(x.sigmoid(), y.sigmoid()), _SHAPE, _SHAPE),
    "heaviside": case(lambda x, y: torch.heaviside(x.detach(), y.detach()) * x, _SHAPE, _SHAPE),
    "size one": case(lambda x: (x.exp() + x.tanh()).squeeze(), (1, 1)),
    "scalar": case(lambda x: x.exp() * 2, ()),
    "no elements": case(lambda x: (x.exp() * 2).sum() + x.numel(), (0, 3)),
    "transposed": case(lambda x, y: x.t().exp() + y, (7, 3), _SHAPE),
}

LOGIC: dict[str, Case] = {
    "number on the left": case(
        lambda x: (torch.zeros(3, 4) == x, torch.ones(3, 4) < x, torch.full((3, 4), 0.5) >= x),
        (3, 4),
    ),
    **{
        name: case(getattr(torch, name), _SHAPE, (7,))
        for name in "eq ne lt le gt ge isclose".split()
    },
    **{
        f"{name} of integers": case(getattr(torch, name), _INTS, _MORE_INTS)
        for name in (
            "eq ne lt le gt ge add sub mul maximum minimum div floor_divide remainder fmod "
            "bitwise_and bitwise_or bitwise_xor"
        ).split()
    },
    "compare with numbers": case(lambda x: (x > 0) & (x <= 1) | (x == 2) ^ (x != 3), _SHAPE),
    "logical": case(
        lambda a, b: (
            a & b.bool(),
            a | b.bool(),
            a ^ b.bool(),
            ~a,
            torch.logical_and(a, b),
            torch.logical_or(a, b),
            torch.logical_xor(a, b),
            torch.logical_not(b),
        ),
        _BOOLS,
        _INTS,
    ),
    "and of numbers": case(lambda x: torch.logical_and(x, x > 0.5), _SHAPE),
    "compare bools": case(lambda a: (a == ~a, a != True), _BOOLS),  # noqa: E712
    "bitwise_not": case(lambda a: ~a, _INTS),
    "shifts": case(lambda a: (a << 2, a >> 1, a.bitwise_left_shift(3)), _INTS),
    "right shift": case(lambda a: a.bitwise_right_shift(1), _INTS),
    "bits and numbers": case(
        lambda a: (
            torch.bitwise_and(a, 3),
            torch.bitwise_or(a, 3),
            torch.bitwise_xor(a, 3),
        ),
        _INTS,
    ),
    "isnan": case(lambda x: (torch.isnan(x / 0 * 0), torch.isnan(x)), _SHAPE),
    "isinf": case(lambda x: (torch.isinf(x / 0), torch.isinf(x)), _SHAPE),
    "isfinite": case(lambda x: (torch.isfinite(x / (x > 0)), torch.isfinite(x)), _SHAPE),
    "isposinf": case(lambda x: (torch.isposinf(x / 0), torch.isneginf(x / 0)), _SHAPE),
    "signbit": case(lambda x: (torch.signbit(x), torch.sgn(x)), _SHAPE),
    "float to integer": case(lambda x: (x.long(), x.int(), (x * 9).to(torch.int8)), _WIDE),
    "float to bool": case(lambda x: (x.bool(), x.round().bool()), _SHAPE),
    "integer to float": case(lambda a: (a.float() / 3, a / 3, a.int().float()), _INTS),
    "integer to bool": case(lambda a: (a.bool(), a.int().bool()), _INTS),
    "bool to numbers": case(lambda a: (a.float(), a.long(), a + 1, a * 2.5), _BOOLS),
    "uint8": case(lambda a: (a.to(torch.uint8), a.abs().to(torch.uint8) // 2), _INTS),
    "double": case(lambda x: x.double().exp().float(), _SHAPE),
    "integer arithmetic": case(
        lambda a, b: (a * b + a // 3 - (b % 4), -a, a.abs()), _INTS, _MORE_INTS
    ),
    "integer pow": case(lambda a: (a**2, a**3), _INTS),
    "integer clamp": case(lambda a: (a.clamp(-2, 4), a.sign(), a.clamp(min=0)), _INTS),
    "integers and floats": case(lambda x, a: x * a + a * 0.5, _SHAPE, _INTS),
    "div modes of integers": case(
        lambda a: (torch.div(a, 3, rounding_mode="floor"), torch.div(a, 3, rounding_mode="trunc")),
        _INTS,
    ),
}


def ste(x: Tensor) -> Tensor:
    """A straight-through rounding."""
    return x + (x.round() - x).detach()


FUNCTIONS["straight through"] = case(ste, _WIDE)
