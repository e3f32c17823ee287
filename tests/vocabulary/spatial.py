"""Convolutions, pooling, normalization and resizing of ``tests.spatial``, as rows like the rest."""

from __future__ import annotations

import torch.nn.functional as F  # noqa: N812 - the name everybody knows

from tests.spatial import FAMILIES
from tests.vocabulary.harness import Case, case

SPATIAL: dict[str, Case] = {
    f"{family}: {name}": case(lambda x, m: m(x), row.shape, modules=[row.model()])
    for family, rows in FAMILIES.items()
    if family != "random"
    for name, row in rows.items()
}

SPATIAL |= {  # whose weights are operands, which tests give special values
    "weights: padded": case(lambda x, w: F.conv2d(x, w, padding=1), (1, 2, 4, 4), (3, 2, 3, 3)),
    "weights: depthwise": case(
        lambda x, w: F.conv2d(x, w, padding=1, groups=2), (1, 2, 5, 5), (2, 1, 3, 3)
    ),
    "weights: transposed": case(
        lambda x, w: F.conv_transpose2d(x, w, stride=2, padding=1), (1, 2, 4, 4), (2, 3, 3, 3)
    ),
    "weights: unpadded": case(F.conv2d, (1, 2, 4, 4), (3, 2, 3, 3)),
}
