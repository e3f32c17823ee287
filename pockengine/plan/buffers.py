"""The packer on its own: buffers from a CSV file, offsets as a dictionary fit for JSON."""

from __future__ import annotations

import csv
from pathlib import Path

from pockengine.errors import PlanError
from pockengine.plan.check import check
from pockengine.plan.model import Buffer
from pockengine.plan.pack import pack

COLUMNS = ("id", "lower", "upper", "size")
_EFFORT = 150_000  # search nodes: up to some ten seconds for hundreds of buffers


def read_buffers(path: str | Path) -> list[Buffer]:
    """Buffers of a CSV file with the columns id, lower, upper, size in any order.

    Further columns are ignored. A buffer lives on [lower, upper); size is in bytes.

    Raises:
        PlanError: the file cannot be read or is empty, a column is missing, or a row is malformed;
            the message names the line.
    """
    try:
        with Path(path).open(newline="", encoding="utf-8-sig") as file:
            rows = csv.DictReader(file, skipinitialspace=True)
            names = [name.strip() for name in rows.fieldnames or ()]
            _check_header(path, names)
            rows.fieldnames = names
            buffers = _buffers(path, rows)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise _malformed(str(path), str(error), "a readable CSV file") from error
    if not buffers:
        raise _malformed(str(path), "no buffers", "at least one row below the header")
    return buffers


def plan_buffers(
    path: str | Path, capacity: int | None = None, *, seconds: float = 60.0
) -> dict[str, object]:
    """Packs the buffers of a CSV file; what ``pockengine plan --buffers`` prints as JSON.

    Args:
        path: the file, see ``read_buffers``.
        capacity: bytes the arena may have; without it, as small as a short search finds.
        seconds: how long to search for a packing within ``capacity``.

    Returns:
        ``offsets`` (bytes by id), ``peak`` and ``lower_bound`` (bytes), ``seconds``.

    Raises:
        PlanError: the file is malformed, or no packing within ``capacity`` was found.
    """
    buffers = read_buffers(path)
    packing = pack(buffers, capacity=capacity, seconds=seconds, effort=_EFFORT)
    check(buffers, packing.offsets, packing.peak)
    return {
        "offsets": packing.offsets,
        "peak": packing.peak,
        "lower_bound": packing.lower_bound,
        "seconds": packing.seconds,
    }


def _check_header(path: str | Path, names: list[str]) -> None:
    missing = [column for column in COLUMNS if column not in names]
    if missing:
        found = f"no column {', '.join(missing)}" if names else "an empty file"
        raise _malformed(f"{path}, line 1", found, f"a header with {', '.join(COLUMNS)}")


def _buffers(path: str | Path, rows: csv.DictReader[str]) -> list[Buffer]:
    seen: dict[str, int] = {}
    buffers = []
    for row in rows:
        where = f"{path}, line {rows.line_num}"
        buffer = _buffer(where, row)
        if buffer.id in seen:
            found = f"id {buffer.id} again, first in line {seen[buffer.id]}"
            raise _malformed(where, found, "ids are unique")
        seen[buffer.id] = rows.line_num
        buffers.append(buffer)
    return buffers


def _buffer(where: str, row: dict[str, str]) -> Buffer:
    """One row; ``where`` is its file and line."""
    name = (row["id"] or "").strip()
    if not name:
        raise _malformed(where, "no id", "an id in every row")
    numbers = {}
    for column in COLUMNS[1:]:
        try:
            numbers[column] = int(row[column] or "")
        except ValueError as error:
            found = f"{column} is {row[column]!r}"
            raise _malformed(where, found, "a whole number") from error
    buffer = Buffer(id=name, **numbers)
    if buffer.upper <= buffer.lower:
        raise _malformed(where, f"lifetime [{buffer.lower}, {buffer.upper})", "upper after lower")
    if buffer.size < 0:
        raise _malformed(where, f"size {buffer.size}", "a size that is not negative")
    return buffer


def _malformed(where: str, found: str, needed: str) -> PlanError:
    return PlanError(where=where, found=found, needed=needed, remedy="Correct the file.")
