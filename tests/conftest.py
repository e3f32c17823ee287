"""Settings of all tests."""

from __future__ import annotations

import pytest
import torch


@pytest.fixture(autouse=True)
def _seed() -> None:
    """Every test starts from the same random numbers."""
    torch.manual_seed(0)
