"""Every row through the compiler: special values, other strides, axes of one or no element."""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import pytest

from tests.conftest import MORE
from tests.vocabulary.compiled import wrong_in_trainer
from tests.vocabulary.harness import Case
from tests.vocabulary.tables import ALL, TABLES, UNCOMPARED, UNDEFINED
from tests.vocabulary.variants import layouts, sizes

_TABLES = {**ALL, **TABLES}
_EVERY = 25 if MORE == 1 else 1
"""Of so many variants one is compiled, unless there is time."""


def _special(table: dict[str, Case]) -> dict[str, Case]:
    return dict(list(table.items())[::_EVERY])


def _variants(table: dict[str, Case]) -> Iterator[tuple[str, Case]]:
    """Of each chosen row, one variant of each kind in turn, or all."""
    chosen = list(table.items())[_EVERY // 2 :: _EVERY]
    for turn, (name, row) in enumerate(chosen):
        for kind in (layouts, sizes):
            found = list(kind(row))
            if MORE == 1 and found:
                found = [found[turn % len(found)]]
            named = ((f"{name}, {label}", variant) for label, variant in found)
            yield from (each for each in named if each[0] not in UNCOMPARED)


@pytest.mark.slow
@pytest.mark.parametrize("name", _TABLES)
def test_special_values(name: str) -> None:
    """Outputs and gradients of a trainer whose operands hold NaN, infinities and zeros."""
    warnings.simplefilter("ignore")
    assert wrong_in_trainer(_special(_TABLES[name]), UNDEFINED) == []


@pytest.mark.slow
@pytest.mark.parametrize("name", _TABLES)
def test_variants(name: str) -> None:
    """Outputs and gradients for operands that are not contiguous, of one element or of none."""
    warnings.simplefilter("ignore")
    assert wrong_in_trainer(dict(_variants(_TABLES[name])), (), [""]) == []


@pytest.mark.slow
def test_most_rows_have_variants() -> None:
    """PyTorch takes most functions with other strides and with an axis of one element or none."""
    warnings.simplefilter("ignore")
    rows = [row for table in _TABLES.values() for row in list(table.values())[::_EVERY]]
    strided = sum(any(True for _ in layouts(row)) for row in rows)
    resized = sum(any(True for _ in sizes(row)) for row in rows)
    assert strided > 0.9 * len(rows)
    assert resized > 0.9 * len(rows)
