"""Decode, resize and normalize pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from pockengine.errors import InputError

IMAGE_SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tiff", ".webp"})
"""Files with these names are pictures."""

_CHUNK = 256


def pictures_below(folder: Path) -> list[Path]:
    """The pictures in a folder and in those below it, sorted; none that is hidden."""
    return sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in IMAGE_SUFFIXES and not is_hidden(path.relative_to(folder))
    )


def is_hidden(path: Path) -> bool:
    """Whether a file manager or a notebook put it there: ``.name``, or ``__MACOSX``."""
    return any(part.startswith(".") or part == "__MACOSX" for part in path.parts)


@dataclass(frozen=True, slots=True, kw_only=True)
class Preprocessing:
    """What a model expects: ``(pixel / 255 - mean) / std`` per channel, at ``size`` pixels.

    Attributes:
        size: side of the square the model was trained on, in pixels.
        mean: of red, green, blue, in 0..1.
        std: of red, green, blue, in 0..1.
    """

    size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


IMAGENET = Preprocessing(size=224, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
"""What torchvision's models were trained with."""


def prepare_images(
    images: npt.NDArray[np.uint8],
    preprocessing: Preprocessing = IMAGENET,
    *,
    size: int | None = None,
) -> npt.NDArray[np.float32]:
    """Return a model's input from pictures.

    Args:
        images: uint8 ``(N, H, W, 3)``.
        preprocessing: mean and standard deviation, and the default size.
        size: side in pixels of the result.

    Returns:
        float32 ``(N, 3, size, size)``, normalized.

    Raises:
        InputError: ``images`` are no pictures.
    """
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != 3:
        raise InputError(
            where="prepare_images",
            found=f"{images.dtype} {images.shape}",
            needed="needs pictures, uint8 (N, H, W, 3)",
            remedy="Pass an image task's inputs; encode_texts is for texts",
        )
    resized = resize_images(images, preprocessing.size if size is None else size)
    scale = np.float32(1) / (np.float32(255) * np.asarray(preprocessing.std, np.float32))
    shift = np.asarray(preprocessing.mean, np.float32) / np.asarray(preprocessing.std, np.float32)
    return np.ascontiguousarray((resized * scale - shift).transpose(0, 3, 1, 2))


def resize_images(images: npt.NDArray[np.uint8], size: int) -> npt.NDArray[np.uint8]:
    """Return uint8 ``(N, size, size, 3)`` of uint8 ``(N, H, W, 3)`` (bilinear, antialiased)."""
    if images.shape[1:3] == (size, size):
        return images
    result = np.empty((len(images), size, size, 3), dtype=np.uint8)
    for start in range(0, len(images), _CHUNK):
        chunk = torch.from_numpy(images[start : start + _CHUNK]).permute(0, 3, 1, 2).float()
        resized = torch.nn.functional.interpolate(
            chunk, size=(size, size), mode="bilinear", antialias=True
        )
        whole = resized.round().clamp(0, 255).to(torch.uint8)
        result[start : start + _CHUNK] = whole.permute(0, 2, 3, 1).numpy()
    return result


def read_images(paths: Sequence[Path], size: int) -> npt.NDArray[np.uint8]:
    """Decode pictures to uint8 ``(N, size, size, 3)``: squeezed to a square, transparent is white.

    Raises:
        InputError: a file is no picture that Pillow reads.
    """
    images = np.empty((len(paths), size, size, 3), dtype=np.uint8)
    for index, path in enumerate(paths):
        images[index] = _read_image(path, size)
    return images


def pixel_count(path: Path) -> int:
    """Return width times height of a PNG file, from its header (PNG specification, 11.2.1)."""
    with path.open("rb") as file:
        header = file.read(24)
    return int.from_bytes(header[16:20], "big") * int.from_bytes(header[20:24], "big")


def _read_image(path: Path, size: int) -> npt.NDArray[np.uint8]:
    if not path.exists():
        raise InputError(
            where=str(path),
            found="there is no such file",
            needed="a picture",
            remedy="Correct the path",
        )
    try:
        with Image.open(path) as picture:
            rgba = picture.convert("RGBA")
    except (
        OSError,
        ValueError,
        SyntaxError,
        Image.DecompressionBombError,
        Image.DecompressionBombWarning,
    ) as error:
        raise InputError(
            where=str(path),
            found=f"cannot be read as a picture ({error})",
            needed="needs a whole PNG, JPEG, BMP, GIF, PPM, TIFF or WebP file",
            remedy="Repair or remove the file",
        ) from error
    small = rgba.resize((size, size), Image.Resampling.BILINEAR, reducing_gap=3.0)
    white = Image.new("RGBA", small.size, "white")
    return np.asarray(Image.alpha_composite(white, small).convert("RGB"))
