"""docs/design.md tells what is there."""

from __future__ import annotations

import re
from pathlib import Path

from pockengine.ir.ops import OPS, Kind
from pockengine.pipeline import GRADIENTS, LAYOUT, SAVING, UPDATES

DESIGN = Path(__file__).parents[1] / "docs" / "design.md"


def _part(name: str) -> str:
    """What stands between the marks of a name."""
    found = re.search(rf"<!-- {name}: .*?-->\n(.*?)<!-- end -->", DESIGN.read_text(), re.DOTALL)
    assert found, name
    return found[1]


def test_design_lists_the_vocabulary() -> None:
    """Every op of the IR stands in the table, in the row of its kind."""
    rows = (line.split("|")[1:3] for line in _part("ops").splitlines()[2:])
    told = {kind.strip(): re.findall(r"`(\w+)`", names) for kind, names in rows}
    kinds = {kind.value: [n for n, row in OPS.items() if row.kind is kind] for kind in Kind}
    assert told == {kind: names for kind, names in kinds.items() if names}


def test_design_lists_the_passes() -> None:
    """The passes stand in the order in which they run."""
    assert re.findall(r"`(\w+)`", _part("passes")) == [
        name for name, _ in (*GRADIENTS, *UPDATES, *LAYOUT, *SAVING)
    ]
