"""What a model must be ahead of capture: float32, on the CPU, not quantized."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from pockengine.errors import CaptureError

_QUANTIZED = ("torch.ao.nn.quantized", "torch.ao.nn.intrinsic.quantized", "torch.nn.quantized")


def check_model(model: nn.Module, batch: tuple[Any, Any], weights: bool = False) -> None:
    """Refuse a model or an example batch that cannot be compiled, whatever its ops.

    Args:
        model: what is compiled.
        batch: ``(inputs, targets)`` of tensors.
        weights: whether values come from a file, so that the model may be on the meta device.

    Raises:
        CaptureError: a quantized module, an element type other than float32, or another device.
    """
    kind = type(model).__name__
    _refuse_quantized(kind, model)
    parameters = dict(model.named_parameters())
    _check_dtypes(f"parameters of {kind}", parameters, "model.float()")
    devices = ("cpu", "meta") if weights else ("cpu",)
    owned = {**parameters, **dict(model.named_buffers())}
    _check_devices(f"compile of {kind}", owned, devices)
    leaves = {
        f"leaf {place}": leaf
        for place, leaf in enumerate(pytree.tree_leaves(batch))
        if isinstance(leaf, Tensor)
    }
    _check_dtypes("compile(example_batch)", leaves, "x.float()")
    _check_devices("compile(example_batch)", leaves, ("cpu",))


def _refuse_quantized(kind: str, model: nn.Module) -> None:
    found = {
        name: type(module).__name__
        for name, module in model.named_modules()
        if type(module).__module__.startswith(_QUANTIZED)
    }
    found |= {name: "a quantized tensor" for name, t in _tensors(model) if t.is_quantized}
    if found:
        raise CaptureError(
            where=f"capture of {kind}",
            found=f"quantized modules: {_some(f'{name} ({what})' for name, what in found.items())}",
            needed="a float32 model: quantized weights have no gradient",
            remedy="Load the model without quantization",
        )


def _tensors(model: nn.Module) -> Iterable[tuple[str, Tensor]]:
    yield from model.named_parameters()
    yield from model.named_buffers()


def _check_dtypes(where: str, tensors: Mapping[str, Tensor], remedy: str) -> None:
    wrong = {
        name: str(tensor.dtype).removeprefix("torch.")
        for name, tensor in tensors.items()
        if tensor.is_complex() or (tensor.is_floating_point() and tensor.dtype != torch.float32)
    }
    if wrong:
        raise CaptureError(
            where=where,
            found=_some(f"{name} of {dtype}" for name, dtype in wrong.items()),
            needed="float32",
            remedy="Split complex numbers into real and imaginary parts"
            if any(dtype.startswith("complex") for dtype in wrong.values())
            else f"Call {remedy}",
        )


def _check_devices(where: str, tensors: Mapping[str, Tensor], allowed: tuple[str, ...]) -> None:
    wrong = {n: t.device.type for n, t in tensors.items() if t.device.type not in allowed}
    if wrong:
        meta = "meta" in wrong.values()
        raise CaptureError(
            where=where,
            found=_some(f"{name} on {device}" for name, device in wrong.items()),
            needed="values" if meta else "tensors on the CPU",
            remedy="Give compile(weights='file.safetensors'), or build the model on the CPU"
            if meta
            else "Call .cpu(): a trainer copies the model's values and runs on its own",
        )


def _some(found: Iterable[str]) -> str:
    listed = list(found)
    more = f" and {len(listed) - 3} more" if len(listed) > 3 else ""
    return ", ".join(listed[:3]) + more
