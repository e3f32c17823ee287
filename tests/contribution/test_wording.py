"""Figures in words."""

from __future__ import annotations

import pytest

from pockengine.contribution.choice import Choice
from pockengine.contribution.wording import (
    bytes_text,
    choice_text,
    counted,
    joules_text,
    ms_text,
    part,
    points,
    shortened,
)
from tests.contribution.synthetic import plain_layers

GAP = "\N{NO-BREAK SPACE}"


@pytest.mark.parametrize(
    ("fraction", "text"),
    [(0.0234, "+2.3"), (-0.0051, "\N{MINUS SIGN}0.5"), (0.0, "0.0"), (-1e-9, "0.0")],
)
def test_points(fraction: float, text: str) -> None:
    """Percentage points have one digit and a sign; nothing has none."""
    assert points(fraction) == text


@pytest.mark.parametrize(
    ("ratio", "text"),
    [(1.0, "whole"), (0.125, "1/8"), (1 / 3, "1/3"), (0.3141, f"31.4{GAP}%"), (1e-3, f"0.1{GAP}%")],
)
def test_parts(ratio: float, text: str) -> None:
    """Simple fractions are written as such."""
    assert part(ratio) == text


def test_units() -> None:
    """Three digits in the unit that suits, on one line with it."""
    texts = [
        *(bytes_text(count) for count in (0, 1000, 1280, 5 << 20, 3 << 29)),
        *(ms_text(each) for each in (1234.5, 0.0123)),
        *(joules_text(each) for each in (2.5, 0.0031, 4e-6)),
    ]
    assert [text.replace(GAP, " ") for text in texts] == [
        *("0 B", "1000 B", "1.25 KiB", "5.00 MiB", "1.50 GiB", "1234 ms", "0.0123 ms"),
        *("2.50 J", "3.10 mJ", "4.00 \N{MICRO SIGN}J"),
    ]
    assert " " not in "".join(texts)
    assert ms_text(None) == joules_text(None) == "\N{EN DASH}"


def test_shortened() -> None:
    """As long as asked for, both ends kept."""
    assert shortened("abcdefghij", 5) == "ab\N{HORIZONTAL ELLIPSIS}ij"
    assert shortened("abcde", 5) == "abcde"


def test_choices() -> None:
    """A choice names its first weights and counts the others."""
    layers = plain_layers(4)
    choice = Choice(2, {0: 0.5, 1: 1.0, 3: 0.25})
    text = "head, biases of the last 2 layers, 1/2 of layer0, whole of layer1, 1 more"
    assert choice_text(choice, layers, most=2) == text
    assert choice_text(Choice(0), layers) == "head"
    assert counted(1, "seed") == "1 seed"
