"""Decoding, resizing and normalizing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pockengine.errors import InputError
from pockengine.tasks import IMAGENET, prepare_images
from pockengine.tasks.pictures import pixel_count, read_images, resize_images


def test_prepare_images() -> None:
    """White and black become (1 - mean) / std and -mean / std, channels first."""
    images = np.stack([np.full((4, 4, 3), 255, np.uint8), np.zeros((4, 4, 3), np.uint8)])
    result = prepare_images(images, IMAGENET, size=4)
    mean, std = np.array(IMAGENET.mean), np.array(IMAGENET.std)
    assert result.shape == (2, 3, 4, 4)
    assert result.dtype == np.float32
    np.testing.assert_allclose(result[:, :, 1, 2], [(1 - mean) / std, -mean / std], rtol=1e-5)


def test_prepare_images_refuses_texts() -> None:
    """Texts are not taken for pictures."""
    with pytest.raises(InputError, match=r"object \(1,\); needs pictures.*encode_texts"):
        prepare_images(np.array(["text"], dtype=object))


def test_resize_averages() -> None:
    """Making a checkerboard smaller gives its mean; a picture of the right size is untouched."""
    board = (np.indices((300, 8, 8)).sum(0) % 2 * 255).astype(np.uint8)
    images = np.repeat(board[..., None], 3, axis=3)
    assert np.abs(resize_images(images, 2).astype(int) - 128).max() <= 2
    assert resize_images(images, 8) is images


def test_read_images(tmp_path: Path) -> None:
    """Grey, palette and colour files become RGB squares; what is transparent becomes white."""
    Image.new("L", (8, 6), 50).save(tmp_path / "grey.png")
    Image.new("P", (5, 5), 0).save(tmp_path / "palette.png")
    Image.new("RGBA", (4, 9), (255, 0, 0, 0)).save(tmp_path / "clear.png")
    Image.new("RGB", (30, 30), (0, 0, 200)).save(tmp_path / "blue.jpg")
    names = ("grey.png", "palette.png", "clear.png", "blue.jpg")
    images = read_images([tmp_path / name for name in names], 4)
    assert images.shape == (4, 4, 4, 3)
    assert images[[0, 1, 2], 1, 1].tolist() == [[50] * 3, [0] * 3, [255] * 3]
    assert abs(int(images[3, 1, 1, 2]) - 200) < 5
    assert pixel_count(tmp_path / "grey.png") == 48


def test_missing_picture(tmp_path: Path) -> None:
    """A path that leads nowhere is told as such."""
    with pytest.raises(InputError, match=r"new\.png: there is no such file; a picture"):
        read_images([tmp_path / "new.png"], 8)


def test_broken_picture(tmp_path: Path) -> None:
    """A file that is cut short is named."""
    path = tmp_path / "cut.png"
    Image.effect_noise((40, 40), 50).save(path)
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(InputError, match=r"cut\.png: cannot be read as a picture"):
        read_images([path], 8)
