"""What arguments are, before a message says what is wrong with them."""

from __future__ import annotations

from collections.abc import Iterable
from math import isfinite
from typing import TypeGuard


def is_number(value: object) -> TypeGuard[float]:
    """Whether a value is a finite number, and no flag."""
    return is_whole(value) or (isinstance(value, float) and isfinite(value))


def is_whole(value: object) -> TypeGuard[int]:
    """Whether a value is a whole number, and no flag."""
    return isinstance(value, int) and not isinstance(value, bool)


def kind_of(value: object) -> str:
    """The kind of a value in words: ``an OrderedDict``; None is None."""
    if value is None:
        return "None"
    name = type(value).__name__
    return f"{'an' if name[0] in 'AEIOUaeiou' else 'a'} {name}"


def some(names: Iterable[str]) -> str:
    """The first three names, and how many more there are."""
    listed = list(names)
    more = f" and {len(listed) - 3} more" if len(listed) > 3 else ""
    return (", ".join(listed[:3]) or "nothing") + more
