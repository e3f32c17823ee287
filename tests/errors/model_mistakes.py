"""The model is not what can be compiled."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save, save_file
from torch import Tensor, nn

from pockengine.errors import CaptureError, InputError, SchemeError
from tests.errors.mistake import Mistakes, Written, X, Y, build, network

mistakes = Mistakes()


@mistakes(CaptureError)
def model_is_a_function(_: Path) -> object:
    """The model is a function."""
    return build(lambda x: x)


@mistakes(CaptureError)
def model_is_a_class(_: Path) -> object:
    """The model is a class that was not instantiated."""
    return build(nn.Linear)


@mistakes(CaptureError)
def model_is_a_path(_: Path) -> object:
    """The model is the name of a file."""
    return build("model.pt")


@mistakes(CaptureError)
def model_is_a_state_dict(_: Path) -> object:
    """The model is its ``state_dict()``."""
    return build(network().state_dict())


@mistakes(CaptureError)
def model_is_exported(_: Path) -> object:
    """The model is an ``ExportedProgram``."""
    return build(torch.export.export(network(), (X,)))


@mistakes(CaptureError)
def model_is_scripted(_: Path) -> object:
    """The model went through ``torch.jit.trace``."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(network(), X)  # type: ignore[no-untyped-call]
    return build(traced)


@mistakes(CaptureError)
def model_is_half(_: Path) -> object:
    """The model has 16-bit weights."""
    return build(network().half())


@mistakes(CaptureError)
def model_is_double(_: Path) -> object:
    """The model has 64-bit weights."""
    return build(network().double())


@mistakes(CaptureError)
def model_is_complex(_: Path) -> object:
    """The model has complex weights."""
    return build(nn.Linear(3, 2, dtype=torch.complex64))


@mistakes(CaptureError)
def model_without_values(_: Path) -> object:
    """The model is on the meta device, and no file has its values."""
    return build(nn.Linear(3, 2, device="meta"))


@mistakes(CaptureError)
def model_is_quantized(_: Path) -> object:
    """The model is quantized."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        quantized = torch.ao.quantization.quantize_dynamic(network())
    return build(quantized)


@mistakes(CaptureError)
def model_is_lazy(_: Path) -> object:
    """A lazy layer of the model has no weights yet."""
    return build(nn.Sequential(nn.LazyLinear(4), nn.Linear(4, 2)))


@mistakes(CaptureError)
def weight_is_sparse(_: Path) -> object:
    """A weight is a sparse tensor."""
    model = nn.Linear(3, 2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.weight = nn.Parameter(model.weight.detach().to_sparse())
    return build(model)


@mistakes(CaptureError)
def branch_on_a_value(_: Path) -> object:
    """The model chooses a way by a tensor's value."""
    return build(Written(lambda y: y if y.sum() > 0 else -y))


@mistakes(CaptureError)
def item(_: Path) -> object:
    """The model takes a number out of a tensor."""
    return build(Written(lambda y: y / y.max().item()))


@mistakes(CaptureError)
def loop_over_a_value(_: Path) -> object:
    """The model loops as often as a tensor says."""
    return build(Written(lambda y: sum(y for _ in range(int(y.abs().sum())))))


@mistakes(CaptureError)
def selection_by_a_mask(_: Path) -> object:
    """The model keeps the elements that a mask selects."""
    return build(Written(lambda y: y[y > 0]))


@mistakes(CaptureError)
def numpy_inside(_: Path) -> object:
    """The model computes with NumPy."""
    return build(Written(lambda y: y + torch.from_numpy(np.sin(y.detach().numpy()))))


class _Double(torch.autograd.Function):
    """Without a backward."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:  # type: ignore[override]
        """Twice x."""
        del ctx
        return x * 2


@mistakes(CaptureError)
def function_without_backward(_: Path) -> object:
    """The model uses an ``autograd.Function`` that has no ``backward``."""
    return build(Written(_Double.apply))


@mistakes(CaptureError)
def unsupported_op(_: Path) -> object:
    """The model uses ops that have no form in the vocabulary."""
    return build(Written(lambda y: torch.fft.rfft(y).abs()))


@mistakes(CaptureError)
def layers_do_not_fit(_: Path) -> object:
    """A layer expects another width than the one before it gives."""
    return build(nn.Sequential(nn.Linear(3, 4), nn.Linear(5, 2)))


@mistakes(SchemeError)
def no_gradient(_: Path) -> object:
    """The model computes its output without gradients."""
    return build(Written(torch.no_grad()(lambda y: y.relu())))


@mistakes(SchemeError)
def detached(_: Path) -> object:
    """The model detaches its output."""
    return build(Written(lambda y: y.detach()))


@mistakes(CaptureError)
def too_many_inputs(_: Path) -> object:
    """The batch has more inputs than the model takes."""
    return build(batch=((X, X), Y))


@mistakes(CaptureError)
def unknown_keyword(_: Path) -> object:
    """The batch names an input that the model does not have."""
    return build(batch=({"pixels": X}, Y))


@mistakes(CaptureError)
def output_is_nothing(_: Path) -> object:
    """The model returns nothing."""
    return build(Written(lambda _: None))


@mistakes(CaptureError)
def two_outputs(_: Path) -> object:
    """The model returns two tensors, and the loss is a name."""
    return build(Written(lambda y: (y, y)))


@mistakes(CaptureError)
def model_error(_: Path) -> object:
    """The model raises an error of its own."""
    return build(Written(lambda _: {}["logits"]))


@mistakes(CaptureError)
def weights_change_in_forward(_: Path) -> object:
    """The model writes into a parameter while it runs."""

    class Norm(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            with torch.no_grad():
                self.weight.div_(2)
            return super().forward(x)

    return build(Norm(3, 2))


@mistakes(CaptureError)
def packed_sequence(_: Path) -> object:
    """The batch is a packed sequence."""
    packed = nn.utils.rnn.pack_sequence([X[:3], X[:2]])
    return build(nn.GRU(3, 2), (packed, Y))


@mistakes(InputError)
def missing_weights_file(folder: Path) -> object:
    """The file of weights does not exist."""
    return build(weights=folder / "model.safetensors")


@mistakes(InputError)
def weights_of_torch_save(folder: Path) -> object:
    """The file of weights was written by ``torch.save``."""
    torch.save(network().state_dict(), folder / "model.pt")
    return build(weights=folder / "model.pt")


@mistakes(InputError)
def empty_weights_file(folder: Path) -> object:
    """The file of weights is empty."""
    (folder / "model.safetensors").touch()
    return build(weights=folder / "model.safetensors")


@mistakes(InputError)
def weights_are_tensors(_: Path) -> object:
    """The weights are a ``state_dict`` instead of a file."""
    return build(weights=network().state_dict())


@mistakes(InputError)
def truncated_weights(folder: Path) -> object:
    """The file of weights was copied only in part."""
    (folder / "model.safetensors").write_bytes(save(network().state_dict())[:-8])
    return build(weights=folder / "model.safetensors")


@mistakes(InputError)
def weights_of_another_model(folder: Path) -> object:
    """The file of weights is another model's."""
    save_file({"0.weight": torch.zeros(5, 3)}, folder / "model.safetensors")
    return build(weights=folder / "model.safetensors")


@mistakes(InputError)
def weights_lack_a_tensor(folder: Path) -> object:
    """The file of weights lacks a tensor of a model without values."""
    save_file({"weight": torch.zeros(2, 3)}, folder / "model.safetensors")
    return build(nn.Linear(3, 2, device="meta"), weights=folder / "model.safetensors")
