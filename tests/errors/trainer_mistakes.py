"""A trainer is called with what it was not compiled for."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

import pockengine as pe
from pockengine.errors import CheckpointError, InputError, TrainError
from tests.errors.mistake import Mistakes, X, Y, build, network, trainer

mistakes = Mistakes()


@cache
def _of_names() -> pe.Trainer:
    """A trainer whose inputs are named."""

    class Named(nn.Linear):
        def forward(self, x: Tensor, mask: Tensor) -> Tensor:  # type: ignore[override]
            return super().forward(x * mask)

    return build(Named(3, 2), ({"x": X, "mask": X}, Y))


@cache
def _of_shapes() -> pe.Trainer:
    """A trainer of two shapes, one of which is not trained."""
    return build(shapes=[pe.Shape((X[:1], Y[:1]), train=False)])


@cache
def _of_sums() -> pe.Trainer:
    """A trainer that accumulates gradients."""
    return build(accumulate=2)


@cache
def _of_pi() -> pe.Trainer:
    """A trainer for another machine."""
    return build(target="linux-arm64")


@mistakes(InputError)
def larger_batch(_: Path) -> object:
    """A batch has more samples than were compiled for."""
    return trainer().step(torch.cat([X, X]), torch.cat([Y, Y]), lr=0.1)


@mistakes(InputError)
def last_batch_is_smaller(_: Path) -> object:
    """The last batch of an epoch has fewer samples."""
    return trainer().step(X[:3], Y[:3], lr=0.1)


@mistakes(InputError)
def inputs_of_another_rank(_: Path) -> object:
    """One sample lacks the batch's axis."""
    return trainer().predict(X[0])


@mistakes(InputError)
def integer_batch(_: Path) -> object:
    """Inputs are integers where the example batch has reals."""
    return trainer().predict(X.long())


@mistakes(InputError)
def texts_as_inputs(_: Path) -> object:
    """Inputs are texts."""
    return trainer().predict("a text")


@mistakes(InputError)
def nothing_as_input(_: Path) -> object:
    """The input is None."""
    return trainer().predict(None)


@mistakes(InputError)
def ragged_inputs(_: Path) -> object:
    """Inputs are lists of different lengths."""
    return trainer().predict([[0.0, 1.0, 2.0], [0.0]])


@mistakes(InputError)
def complex_inputs(_: Path) -> object:
    """Inputs are complex numbers."""
    return trainer().predict(X.to(torch.complex64))


@mistakes(InputError)
def sparse_batch(_: Path) -> object:
    """Inputs are a sparse tensor."""
    return trainer().predict(X.to_sparse())


@mistakes(InputError)
def batch_without_values(_: Path) -> object:
    """Inputs are on the meta device."""
    return trainer().predict(X.to("meta"))


@mistakes(InputError)
def nan_in_the_batch(_: Path) -> object:
    """An input is not a number."""
    return trainer().step(X.clone().index_fill_(1, torch.tensor(2), float("nan")), Y, lr=0.1)


@mistakes(InputError)
def infinite_double(_: Path) -> object:
    """A 64-bit input is too large for 32 bits."""
    return trainer().predict(X.double().numpy() * 1e300)


@mistakes(InputError)
def label_too_large(_: Path) -> object:
    """A label is not below the number of classes."""
    return trainer().step(X, Y + 1, lr=0.1)


@mistakes(InputError)
def label_negative(_: Path) -> object:
    """A label is -1, for a sample that is to be left out."""
    return trainer().step(X, Y - 1, lr=0.1)


@mistakes(InputError)
def labels_as_reals(_: Path) -> object:
    """Labels are reals where the example batch has integers."""
    return trainer().step(X, Y.float(), lr=0.1)


@mistakes(InputError)
def labels_one_hot(_: Path) -> object:
    """Labels are one-hot where the example batch has indices."""
    return trainer().step(X, torch.eye(2)[Y], lr=0.1)


@mistakes(InputError)
def labels_are_words(_: Path) -> object:
    """Labels are the classes' names."""
    return trainer().step(X, ["cat", "dog", "cat", "dog"], lr=0.1)


@mistakes(InputError)
def targets_left_out(_: Path) -> object:
    """A step has no targets."""
    return trainer().step(X, lr=0.1)


@mistakes(InputError)
def batch_as_one_argument(_: Path) -> object:
    """A step is given the batch as one pair."""
    return trainer().step((X, Y), lr=0.1)


@mistakes(InputError)
def missing_key(_: Path) -> object:
    """A named input is missing."""
    return _of_names().predict({"x": X})


@mistakes(InputError)
def unknown_key(_: Path) -> object:
    """An input has a name that the example batch does not have."""
    return _of_names().predict({"x": X, "mask": X, "position": X})


@mistakes(InputError)
def rate_in_words(_: Path) -> object:
    """The learning rate is a word."""
    return trainer().step(X, Y, lr="0.1")  # type: ignore[arg-type]


@mistakes(InputError)
def rate_is_none(_: Path) -> object:
    """The learning rate is None."""
    return trainer().step(X, Y, lr=None)  # type: ignore[arg-type]


@mistakes(InputError)
def rate_is_nan(_: Path) -> object:
    """The learning rate is not a number."""
    return trainer().step(X, Y, lr=float("nan"))


@mistakes(InputError)
def rate_is_negative(_: Path) -> object:
    """The learning rate is negative."""
    return trainer().step(X, Y, lr=-0.1)


@mistakes(InputError)
def rate_is_a_schedule(_: Path) -> object:
    """The learning rate is a schedule that was not called."""
    return trainer().step(X, Y, lr=pe.schedules.constant(0.1))  # type: ignore[arg-type]


@mistakes(InputError)
def rate_per_group(_: Path) -> object:
    """The learning rate is a list, one for each group."""
    return trainer().step(X, Y, lr=[0.1, 0.01])  # type: ignore[arg-type]


@mistakes(InputError)
def rate_of_the_rest(_: Path) -> object:
    """The learning rate of an update that was accumulated is infinite."""
    _of_sums().step(X, Y, lr=0.1)
    return _of_sums().apply(lr=float("inf"))


@mistakes(TrainError)
def loss_overflows(_: Path) -> object:
    """The loss is not finite."""
    return build(nn.Linear(3, 3), (X, X), loss="mse").step(X, X * 1e30, lr=0.1)


@mistakes(InputError)
def trainer_is_closed(_: Path) -> object:
    """A trainer is used after it was closed."""
    with build() as closed:
        pass
    return closed.step(X, Y, lr=0.1)


@mistakes(InputError)
def undeclared_shape(_: Path) -> object:
    """A batch has none of the shapes that were declared."""
    return _of_shapes().predict(X[:3])


@mistakes(InputError)
def shape_is_not_trained(_: Path) -> object:
    """A step has a shape that was declared for predictions."""
    return _of_shapes().step(X[:1], Y[:1], lr=0.1)


@mistakes(InputError)
def no_average(_: Path) -> object:
    """Averaged weights are asked for that the trainer does not keep."""
    return trainer().predict(X, ema=True)


@mistakes(InputError)
def prediction_from_targets(_: Path) -> object:
    """A prediction is asked for of a model whose outputs need the labels."""

    class Own(nn.Linear):
        def forward(self, x: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
            y = super().forward(x)
            return (y[:, 0] - labels).square().mean(), y + labels[:, None]

    return build(Own(3, 2), loss="model").predict(X)


@mistakes(TrainError)
def step_of_another_machine(_: Path) -> object:
    """A trainer for another machine is to step here."""
    return _of_pi().step(X, Y, lr=0.1)


@mistakes(InputError)
def export_for_the_host(folder: Path) -> object:
    """A trainer for this machine is exported."""
    trainer().export(folder / "out")


@mistakes(InputError)
def export_of_sums(folder: Path) -> object:
    """A trainer that accumulates gradients is exported."""
    build(accumulate=2, target="linux-arm64").export(folder / "out")


@mistakes(InputError)
def emulate_the_host(_: Path) -> object:
    """A trainer for this machine is to run in an emulator."""
    return trainer().emulate([(X, Y)], lr=0.1)


@mistakes(InputError)
def state_lacks_a_name(_: Path) -> object:
    """A ``state_dict`` lacks a tensor."""
    return trainer().load_state_dict({"0.weight": torch.zeros(4, 3)})


@mistakes(InputError)
def state_of_another_shape(_: Path) -> object:
    """A ``state_dict`` has a tensor of another shape."""
    return trainer().load_state_dict({**network().state_dict(), "2.bias": torch.zeros(3)})


@mistakes(InputError)
def state_is_a_model(_: Path) -> object:
    """The model itself is loaded instead of its ``state_dict``."""
    return trainer().load_state_dict(network())  # type: ignore[arg-type]


@mistakes(InputError)
def state_of_words(_: Path) -> object:
    """A ``state_dict`` holds a word."""
    return trainer().load_state_dict({**network().state_dict(), "2.bias": "zeros"})  # type: ignore[dict-item]


@mistakes(InputError)
def state_without_values(_: Path) -> object:
    """A ``state_dict`` is on the meta device."""
    return trainer().load_state_dict(network().to("meta").state_dict())


@mistakes(InputError)
def state_unties(_: Path) -> object:
    """A ``state_dict`` has two values for one tied tensor."""
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    model[1].weight = model[0].weight  # type: ignore[assignment]
    state = {name: t.clone() for name, t in model.state_dict().items()}
    state["1.weight"] += 1
    return build(model).load_state_dict(state)


@mistakes(CheckpointError)
def saved_nowhere(folder: Path) -> object:
    """A checkpoint is saved into a folder that does not exist."""
    trainer().save(folder / "runs" / "user.ckpt")


@mistakes(CheckpointError)
def saved_as_a_folder(folder: Path) -> object:
    """A checkpoint is saved under the name of a folder."""
    trainer().save(folder)


@mistakes(CheckpointError)
def missing_checkpoint(folder: Path) -> object:
    """The checkpoint does not exist."""
    return trainer().load(folder / "user.ckpt")


@mistakes(CheckpointError)
def truncated_checkpoint(folder: Path) -> object:
    """The checkpoint was copied only in part."""
    path = folder / "user.ckpt"
    trainer().save(path)
    path.write_bytes(path.read_bytes()[:-7])
    return trainer().load(path)


@mistakes(CheckpointError)
def damaged_checkpoint(folder: Path) -> object:
    """A bit of the checkpoint is wrong."""
    path = folder / "user.ckpt"
    trainer().save(path)
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    return trainer().load(path)


@mistakes(CheckpointError)
def checkpoint_of_torch(folder: Path) -> object:
    """The checkpoint was written by ``torch.save``."""
    torch.save(network().state_dict(), folder / "user.pt")
    return trainer().load(folder / "user.pt")


@mistakes(CheckpointError)
def checkpoint_of_something_else(folder: Path) -> object:
    """The checkpoint is a safetensors file of weights alone."""
    save_file(network().state_dict(), folder / "model.safetensors")
    return trainer().load(folder / "model.safetensors")


@mistakes(CheckpointError)
def checkpoint_of_another_model(folder: Path) -> object:
    """The checkpoint is another model's."""
    build(nn.Linear(3, 2)).save(folder / "user.ckpt")
    return trainer().load(folder / "user.ckpt")


@mistakes(InputError)
def labels_wrap(_: Path) -> object:
    """An unsigned label is too large for the trainer's integers."""
    return trainer().step(X, np.full(4, 2**63, np.uint64), lr=0.1)
