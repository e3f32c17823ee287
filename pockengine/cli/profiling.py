"""`pockengine profile`: which layers are worth updating on the user's data."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pockengine.cli.options import (
    as_json,
    check_writable,
    documented,
    model_argument,
    of_data,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from concurrent.futures import Executor
