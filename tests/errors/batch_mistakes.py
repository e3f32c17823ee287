"""The example batch, further shapes or the loss do not fit the model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import pockengine as pe
from pockengine.errors import CaptureError, InputError, SchemeError
from tests.errors.mistake import Mistakes, Written, X, Y, build

mistakes = Mistakes()


@mistakes(CaptureError)
def batch_is_a_tensor(_: Path) -> object:
    """The example batch is the inputs alone."""
    return build(batch=X)


@mistakes(CaptureError)
def batch_is_a_loader(_: Path) -> object:
    """The example batch is a ``DataLoader`` instead of one of its batches."""
    return build(batch=DataLoader(TensorDataset(X, Y)))


@mistakes(CaptureError)
def batch_is_a_dict(_: Path) -> object:
    """The example batch is one dict of inputs and labels."""
    return build(batch={"x": X, "labels": Y})


@mistakes(CaptureError)
def batch_of_three(_: Path) -> object:
    """The example batch has three parts."""
    return build(batch=(X, X, Y))


@mistakes(CaptureError)
def batch_without_targets(_: Path) -> object:
    """The example batch has no targets, and the loss needs them."""
    return build(batch=(X, None))


@mistakes(CaptureError)
def batch_of_text(_: Path) -> object:
    """The inputs are texts that were not turned into tokens."""
    return build(batch=(["good", "bad"], Y))


@mistakes(CaptureError)
def batch_of_objects(_: Path) -> object:
    """The inputs are objects that are no numbers."""
    return build(batch=(np.array([object()] * 4), Y))


@mistakes(CaptureError)
def ragged_batch(_: Path) -> object:
    """The inputs are arrays of different lengths in one list."""
    return build(batch=([[0.0, 1.0, 2.0], [0.0]], Y))


@mistakes(CaptureError)
def double_inputs(_: Path) -> object:
    """The example inputs are 64-bit, as NumPy makes them."""
    return build(batch=(X.double().numpy(), Y))


@mistakes(CaptureError)
def sparse_inputs(_: Path) -> object:
    """The example inputs are a sparse tensor."""
    return build(batch=(X.to_sparse(), Y))


@mistakes(CaptureError)
def inputs_without_values(_: Path) -> object:
    """The example inputs are on the meta device."""
    return build(batch=(X.to("meta"), Y))


@mistakes(CaptureError)
def channels_last_axis(_: Path) -> object:
    """Pictures with their channels last, for a convolution."""
    return build(nn.Sequential(nn.Conv2d(3, 2, 1), nn.Flatten()), (torch.zeros(4, 8, 8, 3), Y))


@mistakes(CaptureError)
def labels_as_floats(_: Path) -> object:
    """Class labels are floating-point numbers."""
    return build(batch=(X, Y.float()))


@mistakes(CaptureError)
def fewer_labels(_: Path) -> object:
    """The example batch has fewer labels than samples."""
    return build(batch=(X, Y[:3]))


@mistakes(CaptureError)
def targets_of_another_shape(_: Path) -> object:
    """Regression targets lack the last axis of the outputs, which would broadcast."""
    return build(nn.Linear(3, 1), (X, X[:, 0]), loss="mse")


@mistakes(CaptureError)
def unknown_loss(_: Path) -> object:
    """The loss is a name that is not known."""
    return build(loss="crossentropy")


@mistakes(CaptureError)
def loss_is_none(_: Path) -> object:
    """The loss is None."""
    return build(loss=None)


@mistakes(CaptureError)
def loss_is_a_class(_: Path) -> object:
    """The loss is PyTorch's class, not an instance."""
    return build(loss=nn.CrossEntropyLoss)


@mistakes(CaptureError)
def loss_is_a_list(_: Path) -> object:
    """The loss is a list of names."""
    return build(loss=["cross_entropy"])


@mistakes(CaptureError)
def loss_per_sample(_: Path) -> object:
    """The loss gives a number for each sample."""
    return build(loss=nn.CrossEntropyLoss(reduction="none"))


@mistakes(CaptureError)
def loss_as_a_number(_: Path) -> object:
    """The loss gives a Python number."""
    return build(loss=lambda output, _: float(output.sum()))


@mistakes(CaptureError)
def loss_with_one_argument(_: Path) -> object:
    """The loss takes the output alone."""
    return build(loss=lambda output: output.sum())


@mistakes(SchemeError)
def loss_without_the_output(_: Path) -> object:
    """The loss does not depend on the model's output."""
    return build(loss=lambda _, target: target.float().mean())


@mistakes(CaptureError)
def model_without_own_loss(_: Path) -> object:
    """The model is to compute its loss, and takes no labels."""
    return build(loss="model")


@mistakes(CaptureError)
def two_own_losses(_: Path) -> object:
    """The model is to compute its loss, and returns two scalars."""

    class Own(nn.Linear):
        def forward(self, x: torch.Tensor, labels: torch.Tensor) -> object:  # type: ignore[override]
            y = super().forward(x)
            return y.sum(), y.mean() + labels.sum()

    return build(Own(3, 2), loss="model")


@mistakes(InputError)
def shapes_is_a_number(_: Path) -> object:
    """The further shapes are a number."""
    return build(shapes=8)


@mistakes(CaptureError)
def shapes_are_sizes(_: Path) -> object:
    """The further shapes are batch sizes."""
    return build(shapes=[8, 16])


@mistakes(CaptureError)
def shape_nests_differently(_: Path) -> object:
    """A further shape has another number of inputs."""
    return build(Written(lambda y: y), shapes=[({"x": X[:2]}, Y[:2])])


@mistakes(InputError)
def same_shape_twice(_: Path) -> object:
    """A further shape is the example batch's."""
    return build(shapes=[(X, Y)])


@mistakes(CaptureError)
def resized_no_batch(_: Path) -> object:
    """``resized`` is given the inputs alone."""
    return pe.resized(X, samples=2)


@mistakes(InputError)
def resized_to_nothing(_: Path) -> object:
    """``resized`` is asked for no samples."""
    return pe.resized((X, Y), samples=0)


@mistakes(InputError)
def resized_by_a_number(_: Path) -> object:
    """``resized`` is given one length instead of old and new."""
    return pe.resized((X, Y), lengths=64)  # type: ignore[arg-type]


@mistakes(CaptureError)
def partial_with_batch_norm(_: Path) -> object:
    """Smaller batches are asked for, and BatchNorm sees the whole batch."""
    return build(nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2)), partial=True)


@mistakes(CaptureError)
def partial_with_own_loss(_: Path) -> object:
    """Smaller batches are asked for, and the loss takes no weights."""
    return build(loss=lambda output, target: (output.sum(1) - target).mean(), partial=True)


@mistakes(CaptureError)
def partial_without_a_batch_axis(_: Path) -> object:
    """Smaller batches are asked for, and the inputs have no axis in common."""

    class Scaled(nn.Linear):
        def forward(self, x: torch.Tensor, by: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
            return super().forward(x) * by

    return build(Scaled(3, 2), ((X, torch.ones(1)), Y), partial=True)
