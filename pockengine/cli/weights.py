"""Weights in a safetensors file with what their model reads: `train` writes, `predict` needs it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from pockengine.checks import some
from pockengine.cli.reading import Reading
from pockengine.disk import replace_file
from pockengine.errors import InputError

_KEY = "pockengine.reading"


def write_weights(path: Path, state: Mapping[str, Tensor], reading: Reading) -> None:
    """Write a model's tensors under PyTorch's names, whole or not at all.

    Raises:
        InputError: the file cannot be written.
    """
    tensors = {name: tensor.clone().contiguous() for name, tensor in state.items()}  # tied ones too
    content = save(tensors, {"format": "pt", _KEY: reading.to_json()})
    try:
        replace_file(path.resolve(), [memoryview(content)])
    except OSError as error:
        raise InputError(
            where=f"weights {path}",
            found=f"cannot be written ({error.strerror or error})",
            needed="a place with room for them",
            remedy="Name another file with --out",
        ) from error


def read_weights(path: Path) -> tuple[dict[str, Tensor], Reading | None]:
    """The tensors of a safetensors file, and what their model reads where that is known.

    Raises:
        InputError: the file cannot be read.
    """
    try:
        with safe_open(path, framework="pt") as file:
            told = (file.metadata() or {}).get(_KEY)
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise InputError(
            where=f"weights {path}",
            found=f"cannot be read ({error})",
            needed="a whole safetensors file",
            remedy="Write it with pockengine train --out",
        ) from error
    return tensors, None if told is None else Reading.from_json(told)


def load_weights(model: nn.Module, tensors: Mapping[str, Tensor], path: Path) -> None:
    """Put tensors into a model.

    Raises:
        InputError: they are those of another model.
    """
    own = model.state_dict()
    wrong = {
        "missing": sorted(own.keys() - tensors.keys()),
        "unknown": sorted(tensors.keys() - own.keys()),
        "of another shape": sorted(
            name for name in own.keys() & tensors.keys() if own[name].shape != tensors[name].shape
        ),
    }
    if any(wrong.values()):
        told = "; ".join(f"{what}: {some(names)}" for what, names in wrong.items() if names)
        raise InputError(
            where=f"weights {path}",
            found=told,
            needed="the tensors of MODEL",
            remedy="Name the model, and the number of classes, that they were trained for",
        )
    model.load_state_dict(dict(tensors))
