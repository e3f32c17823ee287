"""A model and its data brought together, and compiled: what `train` and `evaluate` begin with."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pockengine.cli.data import Data, Wanted, find_data
from pockengine.cli.reading import Reading, tensor
from pockengine.cli.weights import load_weights, read_weights
from pockengine.compile import compile as build
from pockengine.errors import CaptureError, InputError
from pockengine.frontend.losses import Loss
from pockengine.frontend.shapes import Shape
from pockengine.frontend.weighted import check_independent, weighted_loss
from pockengine.optimizer import SGD, Optimizer
from pockengine.report.model_source import is_exported
from pockengine.report.workloads import OPTIMIZERS, PRETRAINED, READS, find_model, find_scheme
from pockengine.scheme import Rule, Scheme
from pockengine.trainer import Trainer

RANDOM, USUAL = "random", "pretrained"
"""What ``--init`` takes besides a file: random weights, or pretrained ones where there are any."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """A model and the tensors of its data.

    Args:
        model: in the mode it is trained in.
        reading: what it reads.
        loss: as ``compile`` takes it.
        optimizer: what steps.
        train: inputs and targets.
        test: likewise.
        batch: examples of a step.
    """

    model: nn.Module
    reading: Reading
    loss: Loss
    optimizer: Optimizer
    train: tuple[Any, Tensor]
    test: tuple[Any, Tensor]
    batch: int

    def compile(
        self,
        scheme: str | None,
        threads: int | None,
        seed: int = 0,
        tuning: Path | None = None,
    ) -> Trainer:
        """The trainer. A smaller last batch is padded where that is exact.

        Where it is not (batch normalization by the batch's statistics, a loss of the user's own),
        the rest of the training examples is left out of an epoch, and the rest of the test part has
        a shape of its own.

        Raises:
            PockEngineError: as ``pockengine.compile``.
        """
        partial = _pads(self.model, self.loss)
        inputs, targets = self.test
        whole = len(targets) // self.batch * self.batch
        rest = _each(inputs, lambda leaf: leaf[whole:]), targets[whole:]
        shapes = [] if partial or whole == len(targets) else [Shape(rest, train=False)]
        chosen: Scheme | Rule | None = find_scheme(scheme)
        return build(
            self.model,
            (rows(self.train[0], 0, self.batch), self.train[1][: self.batch]),
            loss=self.loss,
            optimizer=self.optimizer,
            scheme=chosen,
            shapes=shapes,
            partial=partial,
            threads=threads,
            seed=seed,
            tuning=tuning,
        )


def open_session(
    model: str,
    data: str,
    wanted: Wanted,
    *,
    batch: int,
    optimizer: str | None = None,
    loss: str | None = None,
    init: str = USUAL,
    weights: Path | None = None,
) -> Session:
    """A session from what the command line says.

    Args:
        model: as ``find_model``.
        data: as ``find_data``.
        wanted: how data are read.
        batch: examples of a step, if there are as many; of an exported program, its own number.
        optimizer: a name of ``OPTIMIZERS``; None for the model's own, or SGD with momentum 0.9.
        loss: a name; None for the model's own, or the one for the targets.
        init: ``pretrained`` (where a built-in model is), ``random``, or a safetensors file.
        weights: a safetensors file that tells what the model reads.

    Raises:
        PockEngineError: the model, the data or the weights cannot be had, or do not fit.
    """
    tensors, known = ({}, None) if weights is None else read_weights(weights)
    found_data = find_data(data, wanted, known)
    _check_kind(model, data, found_data.reading.kind)
    pretrained = init == USUAL and weights is None and model in PRETRAINED
    found = find_model(model, found_data.reading.given(found_data.train[0]), pretrained=pretrained)
    module = found.model
    if weights is not None:
        load_weights(module, tensors, weights)
    elif init not in (USUAL, RANDOM):
        load_weights(module, read_weights(Path(init))[0], Path(init))
    parts = {
        "train": _tensors(found_data, "train", module),
        "test": _tensors(found_data, "test", module),
    }
    size = fixed_batch(found.batch) if is_exported(model) else batch
    return Session(
        model=module,
        reading=found_data.reading,
        loss=loss or found.loss or _usual_loss(parts["train"][1]),
        optimizer=OPTIMIZERS[optimizer] if optimizer else found.optimizer or SGD(momentum=0.9),
        train=parts["train"],
        test=parts["test"],
        batch=min(size or batch, len(parts["train"][1])),
    )


def _check_kind(model: str, data: str, kind: str) -> None:
    """A built-in model is not given what it cannot read."""
    reads = READS.get(model, kind)
    if kind not in (reads, "arrays"):
        fitting = ", ".join(name for name, each in READS.items() if each == kind)
        raise InputError(
            where=f"--data {data}",
            found=f"data of the kind {kind}",
            needed=f"{reads}, which {model} reads",
            remedy=f"Name other data, or another model: {fitting}, or one of your own",
        )


def rows(inputs: Any, start: int, count: int) -> Any:
    """So many examples from one on; the last again where there are fewer."""
    return _each(
        inputs, lambda leaf: leaf[torch.arange(start, start + count).clamp(max=len(leaf) - 1)]
    )


def _tensors(data: Data, part: str, model: nn.Module) -> tuple[Any, Tensor]:
    examples, targets = data.train if part == "train" else data.test
    if len(targets) == 0:
        raise InputError(
            where=f"--data {data.name}",
            found=f"no example in its {part} part",
            needed="at least one",
            remedy="Add examples, or leave --limit out",
        )
    return data.reading.inputs(examples, model), tensor(targets)


def _usual_loss(targets: Tensor) -> str:
    return "mse" if targets.is_floating_point() else "cross_entropy"


def _pads(model: nn.Module, loss: Loss) -> bool:
    """Whether smaller batches can be padded exactly."""
    try:
        check_independent(model, "fit", "fit whole batches")
        weighted_loss(loss)
    except CaptureError:
        return False
    return True


def fixed_batch(batch: tuple[Any, Any] | None) -> int | None:
    """The number of examples that a program was exported with."""
    if batch is None:
        return None
    inputs = batch[0]
    first = next(iter(inputs.values() if isinstance(inputs, Mapping) else inputs))
    return int(first.shape[0])


def _each(inputs: Any, change: Callable[[Tensor], Tensor]) -> Any:
    if isinstance(inputs, Mapping):
        return {name: change(leaf) for name, leaf in inputs.items()}
    if isinstance(inputs, tuple):
        return tuple(change(leaf) for leaf in inputs)
    return change(inputs)
