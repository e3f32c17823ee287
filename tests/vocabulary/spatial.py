"""Convolutions, pooling, normalization and resizing of ``tests.spatial``, as rows like the rest."""

from __future__ import annotations

from tests.spatial import FAMILIES
from tests.vocabulary.harness import Case, case

SPATIAL: dict[str, Case] = {
    f"{family}: {name}": case(lambda x, m: m(x), row.shape, modules=[row.model()])
    for family, rows in FAMILIES.items()
    if family != "random"
    for name, row in rows.items()
}
