"""The packer on its own: CSV in, a dictionary for JSON out."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pockengine.errors import PlanError
from pockengine.plan.buffers import plan_buffers, read_buffers
from pockengine.plan.model import Buffer
from tests.plan.instances import CAPACITY, perfect


def test_columns_in_any_order(tmp_path: Path) -> None:
    """The header says which column is which; further columns are ignored."""
    path = tmp_path / "b.csv"
    path.write_text("size,note, upper,id,lower\n8,x,3,w,0\n\n4,,5,v,2\n")
    assert read_buffers(path) == [
        Buffer(id="w", lower=0, upper=3, size=8),
        Buffer(id="v", lower=2, upper=5, size=4),
    ]


def test_result_is_json_with_four_keys(tmp_path: Path) -> None:
    """A perfect packing is found within its capacity and survives JSON."""
    path = tmp_path / "b.csv"
    rows = [f"{b.id},{b.lower},{b.upper},{b.size}" for b in perfect(150, 5)]
    path.write_text("\n".join(["id,lower,upper,size", *rows]) + "\n")
    result = json.loads(json.dumps(plan_buffers(path, CAPACITY)))
    assert list(result) == ["offsets", "peak", "lower_bound", "seconds"]
    assert result["peak"] == result["lower_bound"] == CAPACITY
    assert len(result["offsets"]) == 150


def test_too_small_a_capacity_is_refused(tmp_path: Path) -> None:
    """The message says capacity, best peak and bound."""
    path = tmp_path / "b.csv"
    path.write_text("id,lower,upper,size\na,0,2,4\nb,1,3,4\n")
    with pytest.raises(PlanError, match=r"arena of 7 bytes: .* peak of 8 bytes; .*bound 8 bytes"):
        plan_buffers(path, 7)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "line 1: an empty file"),
        ("id,lower,upper,size\n", "no buffers"),
        ("id,lower,size\na,0,4\n", "line 1: no column upper"),
        ("id,lower,upper,size\na,0,2,4\nb,0,x,4\n", "line 3: upper is 'x'"),
        ("id,lower,upper,size\na,0,2\n", "line 2: size is None"),
        ("id,lower,upper,size\na,0,2,-4\n", "line 2: size -4"),
        ("id,lower,upper,size\na,2,2,4\n", r"line 2: lifetime \[2, 2\)"),
        ("id,lower,upper,size\na,0,2,4\na,0,2,4\n", "line 3: id a again, first in line 2"),
        ("id,lower,upper,size\n,0,2,4\n", "line 2: no id"),
    ],
)
def test_bad_files_are_refused_by_line(tmp_path: Path, text: str, message: str) -> None:
    """Each kind of fault has its message with the line."""
    path = tmp_path / "b.csv"
    path.write_text(text)
    with pytest.raises(PlanError, match=message):
        read_buffers(path)


def test_missing_file_is_refused(tmp_path: Path) -> None:
    """A path that leads nowhere is a plan error, not a traceback."""
    with pytest.raises(PlanError, match=r"none\.csv"):
        read_buffers(tmp_path / "none.csv")
