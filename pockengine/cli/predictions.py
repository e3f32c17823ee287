"""Raw inputs of the command line, read as the weights say, and what the model makes of them."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pockengine.cli.data import arrays_as_inputs, load_arrays
from pockengine.cli.reading import Reading
from pockengine.cli.session import fixed_batch, rows
from pockengine.cli.weights import load_weights, read_weights
from pockengine.compile import compile as build
from pockengine.errors import InputError
from pockengine.frontend.losses import main_output
from pockengine.frontend.modes import evaluating
from pockengine.frontend.structure import arguments
from pockengine.optimizer import SGD
from pockengine.report.model_source import is_exported
from pockengine.report.workloads import find_model
from pockengine.tasks.pictures import pictures_below, read_images


def predict(
    model: str, inputs: Sequence[str], weights: Path, *, batch: int, top: int, threads: int | None
) -> list[dict[str, Any]]:
    """A prediction for each input: its classes with scores, the best first, or its outputs.

    Args:
        model: as ``find_model``.
        inputs: as ``pockengine predict`` takes them.
        weights: a file of ``write_weights``.
        batch: examples at once.
        top: how many classes.
        threads: as ``compile``.

    Raises:
        PockEngineError: the model, the weights or an input cannot be had, or do not fit.
    """
    tensors, reading = read_weights(weights)
    if reading is None:
        raise InputError(
            where=f"weights {weights}",
            found="tensors alone",
            needed="also what their model reads",
            remedy="Write them with pockengine train --out, or predict in Python",
        )
    names, examples = _examples(inputs, reading)
    found = find_model(model, reading.given(examples))
    load_weights(found.model, tensors, weights)
    ready = reading.inputs(examples, found.model)
    size = (fixed_batch(found.batch) if is_exported(model) else None) or min(batch, len(names))
    scores = _scores(found.model, ready, len(names), size, threads)
    if not reading.classes:
        return [{"input": n, "output": s.tolist()} for n, s in zip(names, scores, strict=True)]
    shares = torch.softmax(scores.flatten(1).double(), dim=1)
    return [
        {"input": name, "classes": _best(share, reading.classes, top)}
        for name, share in zip(names, shares, strict=True)
    ]


def _best(shares: Tensor, classes: Sequence[str], top: int) -> list[dict[str, Any]]:
    if len(shares) != len(classes):
        raise InputError(
            where="MODEL",
            found=f"{len(shares)} scores",
            needed=f"one for each of {len(classes)} classes",
            remedy="Name the model that the weights were trained for",
        )
    order = torch.argsort(shares, descending=True, stable=True)[:top].tolist()
    return [{"class": classes[index], "score": float(shares[index])} for index in order]


def _scores(model: nn.Module, inputs: Any, count: int, size: int, threads: int | None) -> Tensor:
    """The model's main output for each example, ``(count, ...)``; any loss serves for that."""
    first = rows(inputs, 0, size)
    with evaluating(model), torch.no_grad():
        output = model(**first) if isinstance(first, dict) else model(*arguments(first))
    targets = torch.zeros_like(main_output(output))
    trainer = build(model, (first, targets), loss="mse", optimizer=SGD(), threads=threads)
    with trainer:
        found = [
            main_output(trainer.predict(rows(inputs, start, size)))
            for start in range(0, count, size)
        ]
    return torch.cat(found)[:count]


def _examples(inputs: Sequence[str], reading: Reading) -> tuple[list[str], Any]:
    """A name for each example, and the examples as ``Reading.inputs`` takes them."""
    if reading.kind == "image":
        paths = [path for given in inputs for path in _pictures(Path(given))]
        return [str(path) for path in paths], read_images(paths, reading.size)
    if reading.kind == "text":
        texts = [text for given in inputs for text in _texts(given)]
        array: NDArray[np.object_] = np.empty(len(texts), dtype=np.object_)
        array[:] = texts
        return texts, array
    if len(inputs) != 1:
        raise _no_input(" ".join(inputs), f"{len(inputs)} files", "one .npz file")
    if Path(inputs[0]).suffix != ".npz":
        raise _no_input(inputs[0], "no .npz file", "one, for these weights are a model's of arrays")
    arrays = arrays_as_inputs(load_arrays(Path(inputs[0])))
    first = next(iter(arrays.values())) if isinstance(arrays, dict) else arrays
    return [str(index) for index in range(len(first))], arrays


def _pictures(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    found = pictures_below(path)
    if not found:
        raise _no_input(str(path), "a folder without pictures", "pictures")
    return found


def _texts(given: str) -> list[str]:
    path = Path(given)
    if path.suffix not in (".txt", ".csv"):
        return [given]
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            if path.suffix == ".txt":
                found = [line.strip() for line in file if line.strip()]
            else:
                found = [row["text"] for row in csv.DictReader(file)]
    except KeyError as error:
        raise _no_input(given, "no column text", "a CSV file with the column text") from error
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise _no_input(given, f"cannot be read ({error})", "a file of texts") from error
    if not found:
        raise _no_input(given, "no texts", "at least one")
    return found


def _no_input(where: str, found: str, needed: str) -> InputError:
    return InputError(
        where=where,
        found=found,
        needed=needed,
        remedy="`pockengine predict --help` says what INPUTS may be",
    )
