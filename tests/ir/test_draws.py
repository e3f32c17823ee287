"""Random numbers are those of Philox4x32-10, one element a counter."""

from __future__ import annotations

import torch

from pockengine.ir.draws import uniform


def _draw(seed: int, step: int, shape: tuple[int, ...], stream: int) -> torch.Tensor:
    return uniform(torch.tensor(seed), torch.tensor(step), shape, stream)


def test_known_answer() -> None:
    """The first word of a zero counter and key, from the authors' test vectors (Random123)."""
    assert _draw(0, 0, (1,), 0).item() * 2**24 == 0x6627E8D5 >> 8


def test_each_argument_matters() -> None:
    """Other seeds, steps and streams give other numbers; another shape does not."""
    first = _draw(2**40 + 1, 3, (8,), 0)
    others = (_draw(1, 3, (8,), 0), _draw(2**40 + 1, 4, (8,), 0), _draw(2**40 + 1, 3, (8,), 1))
    assert all(not torch.equal(first, other) for other in others)
    assert torch.equal(first.reshape(2, 4), _draw(2**40 + 1, 3, (2, 4), 0))


def test_numbers_are_uniform() -> None:
    """Mean and variance of 100 000 numbers are within five standard errors."""
    found = _draw(5, 0, (100_000,), 2)
    assert 0 <= found.min().item() < found.max().item() < 1
    assert abs(found.mean().item() - 1 / 2) < 5 * (1 / 12 / 1e5) ** 0.5
    assert abs(found.var().item() - 1 / 12) < 5 * (1 / 180 / 1e5) ** 0.5
