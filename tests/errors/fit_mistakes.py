"""``Trainer.fit`` and ``Trainer.metrics`` are given what they cannot train on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

import pockengine as pe
from pockengine.errors import CheckpointError, InputError
from tests.errors.mistake import Mistakes, X, Y, build, trainer

mistakes = Mistakes()


def _fit(data: Any = (X, Y), **options: Any) -> object:
    return trainer().fit(data, progress=False, **options)


@mistakes(InputError)
def fit_on_inputs_alone(_: Path) -> object:
    """The training data are the inputs alone."""
    return _fit(X)


@mistakes(InputError)
def fit_on_a_path(_: Path) -> object:
    """The training data are a path."""
    return _fit("photos/")


@mistakes(InputError)
def fit_on_nothing(_: Path) -> object:
    """The training data are an empty list."""
    return _fit([])


@mistakes(InputError)
def fit_with_fewer_labels(_: Path) -> object:
    """There are fewer labels than samples."""
    return _fit((torch.cat([X, X]), Y))


@mistakes(InputError)
def fit_on_other_columns(_: Path) -> object:
    """A data set has columns that the model does not take."""
    return _fit({"pixels": X, "depth": X, "labels": Y})


@mistakes(InputError)
def fit_with_a_bad_label(_: Path) -> object:
    """A label of the data is not below the number of classes."""
    return _fit((X, Y + 1))


@mistakes(InputError)
def fit_no_epochs(_: Path) -> object:
    """The run has -1 epochs."""
    return _fit(epochs=-1)


@mistakes(InputError)
def fit_epochs_in_words(_: Path) -> object:
    """The number of epochs is a word."""
    return _fit(epochs="3")


@mistakes(InputError)
def fit_rate_in_words(_: Path) -> object:
    """A run's learning rate is a word."""
    return _fit(lr="0.1")


@mistakes(InputError)
def fit_larger_batches(_: Path) -> object:
    """A run's batches are larger than what was compiled for."""
    return _fit((torch.cat([X, X]), torch.cat([Y, Y])), batch_size=8)


@mistakes(InputError)
def fit_unknown_metric(_: Path) -> object:
    """A metric has a name that is not known."""
    return _fit(validation=(X, Y), metrics=["auc"])


@mistakes(InputError)
def fit_callback_is_a_word(_: Path) -> object:
    """A callback is a word."""
    return _fit(callbacks=["early_stopping"])


@mistakes(InputError)
def fit_saves_never(_: Path) -> object:
    """A checkpoint is to be written every 0 steps."""
    return _fit(checkpoint="run.ckpt", save_every=0)


@mistakes(InputError)
def early_stopping_at_once(_: Path) -> object:
    """Early stopping has a patience of -1."""
    return pe.EarlyStopping(patience=-1)


@mistakes(InputError)
def metrics_of_an_unknown_name(_: Path) -> object:
    """Metrics are asked for by a name that is not known."""
    return trainer().metrics((X, Y), metrics=["auc"])


@mistakes(CheckpointError)
def fit_resumes_something_else(folder: Path) -> object:
    """The checkpoint that a run is to go on from is no checkpoint."""
    (folder / "run.ckpt").write_text("a diary")
    return build().fit((X, Y), checkpoint=folder / "run.ckpt", progress=False)
