"""Every mistake of the catalogue gives one clear error, and docs/errors.md lists it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from pockengine import errors
from tests.errors.cases import CASES
from tests.errors.mistake import Mistake, trainer, values
from tests.errors.write import PAGE, entry, failure, heading, ordered

VERBS = frozenset(
    "Add Allow Arrange Ask Build Call Choose Compile Compute Connect Correct Count Declare "
    "Derive Drop Export Freeze Give Keep Leave Let Load Lower Make Name Pad Pass Put Rename "
    "Repair Reduce Regroup Reshape Rewrite Run Save Say See Set Split Turn Update Use Write".split()
)
ASIDES = re.compile(r"^(Nothing|No parameter) was changed[;,.]? ?")
VAGUE = re.compile(r"\bNone\b\.?$|compiler|internal|object at 0x|\bbug\b", re.IGNORECASE)


@pytest.mark.parametrize("mistake", CASES, ids=lambda each: each.name)
def test_a_mistake(mistake: Mistake, tmp_path: Path) -> None:
    """One error of the right class, in whole and concrete parts, on the page, with no trace."""
    before = values(trainer())
    error = failure(mistake, tmp_path)
    assert type(error) is mistake.kind
    parts = error.where, error.found, error.needed, error.remedy
    message = str(error)
    assert all(part.strip() == part and part for part in parts), parts
    assert error.found != error.needed
    assert "\n" not in message
    assert not any(VAGUE.search(part) for part in (error.where, error.needed, error.remedy)), parts
    assert "object at 0x" not in error.found
    assert _first_word(error.remedy) in VERBS, error.remedy
    assert entry(mistake, error, tmp_path) in PAGE.read_text(), "python -m tests.errors.write"
    after = values(trainer())
    assert all(torch.equal(after[name], kept) for name, kept in before.items())


def _first_word(remedy: str) -> str:
    """The verb of a remedy, whatever is said ahead of it."""
    rest = ASIDES.sub("", remedy)
    if match := re.match(r"Did you mean ", rest):  # a question that says what to write
        return "Write" if rest[match.end() :] else ""
    word = re.match(r"\w+", rest)
    return word[0].capitalize() if word else ""


def test_the_page_lists_the_cases() -> None:
    """Classes and mistakes stand on the page in their order, once each, and nothing else does."""
    assert len(CASES) >= 60
    text = PAGE.read_text()
    titles = [heading(kind) for kind, _ in ordered()]
    assert re.findall(r"^## .*\n\n.*\n", text, re.MULTILINE) == titles
    told = re.findall(r"^(.+)\n\n> ", text, re.MULTILINE)
    assert told == [each.told for _, found in ordered() for each in found]
    assert len(set(told)) == len(told)


def test_every_class_has_a_case() -> None:
    """No class of errors is left out but one that needs a broken toolchain."""
    classes = set(errors.PockEngineError.__subclasses__())
    assert classes - {each.kind for each in CASES} <= {errors.BuildError}
