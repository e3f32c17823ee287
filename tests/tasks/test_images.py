"""A user's folder of pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pockengine.errors import InputError
from pockengine.tasks import image_folder


def _pictures(folder: Path, count: int, shade: int) -> None:
    folder.mkdir(parents=True)
    for index in range(count):
        Image.new("RGB", (6, 6), (shade, index, 0)).save(folder / f"{index}.png")


def test_folder(tmp_path: Path) -> None:
    """Class folders become classes by name; a fifth of each is for testing."""
    _pictures(tmp_path / "dog", 10, 200)
    _pictures(tmp_path / "cat" / "young", 5, 100)
    task = image_folder(tmp_path, size=6)
    assert task.classes == ("cat", "dog")
    assert np.bincount(task.train_labels).tolist() == [4, 8]
    assert np.bincount(task.test_labels).tolist() == [1, 2]
    assert (task.train_inputs[:, 0, 0, 0] == np.where(task.train_labels == 0, 100, 200)).all()


def test_own_split(tmp_path: Path) -> None:
    """Folders named train and test are the split, and the limit holds in each."""
    for part in ("train", "test"):
        _pictures(tmp_path / part / "cat", 4, 100)
        _pictures(tmp_path / part / "dog", 3, 200)
    task = image_folder(tmp_path, size=6, limit=3)
    assert task.classes == ("cat", "dog")
    assert np.bincount(task.test_labels).tolist() == [3, 3]


def test_hidden_files_are_no_pictures(tmp_path: Path) -> None:
    """What notebooks and file managers leave behind is neither a class nor a picture."""
    _pictures(tmp_path / "cat", 5, 100)
    _pictures(tmp_path / "dog", 5, 200)
    (tmp_path / ".ipynb_checkpoints").mkdir()
    (tmp_path / "__MACOSX").mkdir()
    (tmp_path / "cat" / "._0.png").write_bytes(b"a file manager's notes")
    task = image_folder(tmp_path, size=6)
    assert task.classes == ("cat", "dog")
    assert len(task.train_labels) + len(task.test_labels) == 10


def test_no_folder(tmp_path: Path) -> None:
    """A path that is no folder is named, with the layout that is needed."""
    with pytest.raises(InputError, match=r"none: is no folder.*FOLDER/CLASS/PICTURE\.png"):
        image_folder(tmp_path / "none")


def test_one_class(tmp_path: Path) -> None:
    """One class is nothing to tell apart."""
    _pictures(tmp_path / "cat", 2, 100)
    with pytest.raises(InputError, match="holds 1 class folders"):
        image_folder(tmp_path)


def test_empty_class(tmp_path: Path) -> None:
    """A class without pictures is named."""
    _pictures(tmp_path / "cat", 2, 100)
    (tmp_path / "dog").mkdir()
    with pytest.raises(InputError, match="dog: holds no pictures"):
        image_folder(tmp_path)
