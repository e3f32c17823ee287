"""Every rule: its gradient is the slope of PyTorch's function, its special values are PyTorch's."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping

import pytest

from pockengine.frontend import legalize
from pockengine.frontend.rules import RULES
from tests.conftest import MORE
from tests.vocabulary.differences import traced, wrong_gradients
from tests.vocabulary.harness import Case
from tests.vocabulary.special_values import KINDS, wrong_values
from tests.vocabulary.tables import ALL, NO_SLOPE, TABLES, UNDEFINED, UNREACHED

_LONG = ("convolution", "resizing", "Multihead", "Transformer", "attention ")
"""Of cases named so, whose capture takes long, every fifth unless there is time."""
_KINDS = tuple(KINDS) if MORE > 1 else ("both infinities", "all")
"""The others come out of the compiler in test_variants.py."""


class _Seen(dict[str, Callable[..., object]]):
    """The rules, noting which are asked for."""

    def __init__(self, rules: Mapping[str, Callable[..., object]]) -> None:
        super().__init__(rules)
        self.seen: set[str] = set()

    def __getitem__(self, name: str) -> Callable[..., object]:
        self.seen.add(name)
        return super().__getitem__(name)


def _rows(name: str) -> dict[str, Case]:
    table = {**ALL, **TABLES}[name]
    long = [label for label in table if label.startswith(_LONG)]
    left_out = {label for place, label in enumerate(long) if place % 5} if MORE == 1 else set()
    return {label: row for label, row in table.items() if label not in left_out}


@pytest.mark.slow
def test_rules(monkeypatch: pytest.MonkeyPatch, subtests: pytest.Subtests) -> None:
    """All tables, each captured once, in float64 and for special operands; no rule is left out."""
    warnings.simplefilter("ignore")
    rules = _Seen(RULES)
    monkeypatch.setattr(legalize, "RULES", rules)
    for name in (*ALL, "experts"):
        with subtests.test(name):
            found = traced(_rows(name), training=name == "spatial")
            if name in ALL:
                assert wrong_gradients(found, NO_SLOPE) == []
            wrong = [text for kind in _KINDS for text in wrong_values(found, kind, UNDEFINED)]
            assert wrong == []
    with subtests.test("rules without a row"):
        assert sorted(RULES.keys() - rules.seen - UNREACHED.keys()) == []
    with subtests.test("reasons without need"):
        assert sorted(UNREACHED.keys() & rules.seen) == []
