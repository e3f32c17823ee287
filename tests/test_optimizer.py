"""Optimizers as data: validation, groups and state."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from pockengine.errors import InputError
from pockengine.ir.types import TensorType
from pockengine.optimizer import SGD, AdamW, ParamGroup, Settings, initial_state, settings


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SGD(momentum=-0.1), r"SGD\(momentum\): -0.1"),
        (lambda: SGD(weight_decay=float("nan")), r"SGD\(weight_decay\): nan"),
        (lambda: SGD(nesterov=True), "a momentum above 0"),
        (lambda: AdamW(betas=(0.9, 1.0)), r"AdamW\(betas\[1\]\): 1.0.*below 1"),
        (lambda: AdamW(eps=-1), r"AdamW\(eps\)"),
        (lambda: ParamGroup("", lr_scale=1), "a pattern of names"),
        (lambda: ParamGroup("*", lr_scale=-1), r"ParamGroup\(lr_scale\): -1"),
    ],
)
def test_bad_numbers_are_refused(make: Callable[[], object], message: str) -> None:
    """Each mistake is one error that names the argument."""
    with pytest.raises(InputError, match=message):
        make()


def test_first_matching_group_holds() -> None:
    """Later groups do not add to it; without a match the optimizer's own numbers hold."""
    groups = (ParamGroup("*.bias", weight_decay=0.0), ParamGroup("head.*", lr_scale=10.0))
    optimizer = SGD(weight_decay=0.1, groups=groups)
    assert settings(optimizer, "head.bias") == Settings(0.0, 1.0)
    assert settings(optimizer, "head.weight") == Settings(0.1, 10.0)
    assert settings(optimizer, "stem.weight") == Settings(0.1, 1.0)


def test_state_by_optimizer() -> None:
    """Plain SGD has none, momentum one number an element, AdamW two; all zero."""
    updated = {"w": TensorType((4, 2))}
    assert SGD().state(updated) == {}
    assert SGD(momentum=0.9).state(updated) == {"optimizer.momentum_buffer.w": TensorType((4, 2))}
    state = AdamW().state(updated)
    assert sum(found.size for found in state.values()) == 2 * 8 + 2
    assert not any(zeros.any() for zeros in initial_state(AdamW(), state).values())
