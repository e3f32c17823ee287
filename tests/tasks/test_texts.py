"""A user's CSV of texts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pockengine.errors import InputError
from pockengine.tasks import text_csv

_ROWS = [f'"text, {index}",{"yes" if index % 2 else "no"}' for index in range(20)]


def _write(folder: Path, lines: list[str]) -> Path:
    path = folder / "t.csv"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8-sig")
    return path


def test_csv(tmp_path: Path) -> None:
    """Columns in any order and a byte-order mark are read; equal texts count once."""
    lines = ["label,id,text", *(f"{'a' if i < 5 else 'b'},{i},ünï {i % 15}" for i in range(20))]
    task = text_csv(_write(tmp_path, lines))
    assert task.classes == ("a", "b")
    assert np.bincount(task.train_labels).tolist() == [4, 8]
    assert set(task.train_inputs) | set(task.test_inputs) == {f"ünï {i}" for i in range(15)}


def test_quotes_and_limit(tmp_path: Path) -> None:
    """A quoted comma belongs to the text, and the limit holds per class."""
    task = text_csv(_write(tmp_path, ["text,label", *_ROWS]), limit=5)
    assert len(task.train_inputs) + len(task.test_inputs) == 10
    assert all(text.startswith("text, ") for text in task.train_inputs)


def test_missing_file(tmp_path: Path) -> None:
    """A file that is not there is named."""
    with pytest.raises(InputError, match=r"none\.csv: cannot be read"):
        text_csv(tmp_path / "none.csv")


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["text,class", *_ROWS], "has no column 'label' .its first row: text, class"),
        ([""], "has no column 'text' .its first row: nothing"),
        (["text,label", *_ROWS, "alone"], "line 22: the label is empty"),
        (["text,label", *_ROWS, " ,yes"], "line 22: the text is empty"),
        (["text,label", "a,yes", "b,yes"], "has fewer than two labels .yes."),
        (["text,label"], "has fewer than two labels .it has no rows."),
    ],
)
def test_bad_files(tmp_path: Path, lines: list[str], message: str) -> None:
    """Each way to be wrong has its line, with the row where there is one."""
    with pytest.raises(InputError, match=rf"t\.csv.*{message}.*needs a UTF-8 CSV"):
        text_csv(_write(tmp_path, lines))


def test_not_text(tmp_path: Path) -> None:
    """A file in another encoding is refused."""
    (tmp_path / "t.csv").write_bytes(b"text,label\n\xff\xfe,yes\n")
    with pytest.raises(InputError, match="cannot be read"):
        text_csv(tmp_path / "t.csv")
