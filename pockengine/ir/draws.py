"""Random numbers of the vocabulary: a function of (seed, step, stream, element) and nothing else.

Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011): the key is
the seed, the counter is (element, element >> 32, step, stream). So a value can be computed again
anywhere and in any order: in the backward pass, on any number of threads, or in a test.
"""

from __future__ import annotations

from math import prod

import torch
from torch import Tensor

from pockengine.ir.ops import Kind, _op

SEED = "random.seed"  # canonical names of the two states that draws depend on
STEP = "random.step"
MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
WEYL = (0x9E3779B9, 0xBB67AE85)
ROUNDS = 10
MANTISSA_BITS = 24
_WORD = 0xFFFFFFFF


@_op(Kind.MAP)
def uniform(seed: Tensor, step: Tensor, shape: tuple[int, ...], stream: int) -> Tensor:
    """float32 multiples of 2^-24 in [0, 1), the same for the same arguments.

    Args:
        seed: i64 scalar.
        step: i64 scalar, of which 32 bits count.
        shape: of the result; an element's row-major number is its counter.
        stream: which draw of a step it is.
    """
    device = seed.device
    if device.type == "meta":
        return torch.empty(shape, dtype=torch.float32, device=device)
    element = torch.arange(prod(shape), dtype=torch.int64, device=device)
    whole = torch.zeros_like(element)
    seed, step = seed.to(torch.int64), step.to(torch.int64)
    counter = [element & _WORD, element >> 32, whole + (step & _WORD), whole + stream]
    key = [seed & _WORD, (seed >> 32) & _WORD]
    for _ in range(ROUNDS):
        high, low = _product(MULTIPLIERS[0], counter[0])
        other_high, other_low = _product(MULTIPLIERS[1], counter[2])
        counter = [other_high ^ counter[1] ^ key[0], other_low, high ^ counter[3] ^ key[1], low]
        key = [(k + weyl) & _WORD for k, weyl in zip(key, WEYL, strict=True)]
    bits = counter[0] >> (32 - MANTISSA_BITS)
    return (bits.to(torch.float32) * 2.0**-MANTISSA_BITS).reshape(shape)


def _product(factor: int, word: Tensor) -> tuple[Tensor, Tensor]:
    """High and low 32 bits of a product of 32-bit numbers, without leaving int64."""
    low, high = (factor * part for part in (word & 0xFFFF, word >> 16))
    middle = high + (low >> 16)  # below 2^49
    return middle >> 16, ((middle << 16) | (low & 0xFFFF)) & _WORD
