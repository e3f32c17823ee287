"""What arguments are, before a message says what is wrong with them."""

from __future__ import annotations

from math import isfinite
from typing import TypeGuard


def is_number(value: object) -> TypeGuard[float]:
    """Whether a value is a finite number, and no flag."""
    return is_whole(value) or (isinstance(value, float) and isfinite(value))


def is_whole(value: object) -> TypeGuard[int]:
    """Whether a value is a whole number, and no flag."""
    return isinstance(value, int) and not isinstance(value, bool)
