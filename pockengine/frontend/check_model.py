"""What a model and a batch must be ahead of capture: a module of float32 values on the CPU."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from pockengine.checks import kind_of, some
from pockengine.errors import CaptureError

_QUANTIZED = ("torch.ao.nn.quantized", "torch.ao.nn.intrinsic.quantized", "torch.nn.quantized")


def check_module(model: object) -> None:
    """Refuse what is no module, or none that can be looked into.

    Raises:
        CaptureError: it is something else, a scripted module, or has a layer without weights yet.
    """
    if not isinstance(model, nn.Module):
        raise CaptureError(
            where="compile(model)",
            found=f"the class {model.__name__}" if isinstance(model, type) else kind_of(model),
            needed="an instance of torch.nn.Module",
            remedy=_remedy_for(model),
        )
    if isinstance(model, torch.jit.ScriptModule):
        raise CaptureError(
            where="compile(model)",
            found=f"{kind_of(model)}, which hides its code",
            needed="the module that was scripted or traced",
            remedy="Pass the model as it was ahead of torch.jit",
        )
    lazy = [name for name, tensor in _tensors(model) if nn.parameter.is_lazy(tensor)]
    if lazy:
        raise CaptureError(
            where=f"compile of {type(model).__name__}",
            found=f"lazy layers: {some(lazy)} without a shape",
            needed="weights",
            remedy="Call the model once with an example's inputs",
        )


def _remedy_for(model: object) -> str:
    if isinstance(model, type):
        return f"Make one: {model.__name__}(...)"
    if isinstance(model, Mapping):
        return "Build the model, call its load_state_dict with this, and pass the model"
    if isinstance(model, torch.export.ExportedProgram):
        return "Pass exported.module()"
    if callable(model):
        return "Put the function into the forward of a module that owns its parameters"
    return "Build the model in Python, load its weights and pass it"


def check_model(
    model: nn.Module,
    batch: tuple[Any, Any],
    weights: bool = False,
    *,
    where: str = "compile(example_batch)",
) -> None:
    """Refuse a model or an example batch that cannot be compiled, whatever its ops.

    Args:
        model: what is compiled.
        batch: ``(inputs, targets)`` of tensors.
        weights: whether values come from a file, so that the model may be on the meta device.
        where: what the batch is.

    Raises:
        CaptureError: a quantized module, an element type other than float32, a sparse tensor, or
            another device.
    """
    check_module(model)
    kind = type(model).__name__
    _refuse_quantized(kind, model)
    parameters = dict(model.named_parameters())
    _check_dtypes(f"parameters of {kind}", parameters, "model.float()")
    devices = ("cpu", "meta") if weights else ("cpu",)
    owned = {**parameters, **dict(model.named_buffers())}
    _check_devices(f"compile of {kind}", owned, devices)
    _check_dense(f"parameters of {kind}", owned)
    leaves = {
        f"leaf {place}": leaf
        for place, leaf in enumerate(pytree.tree_leaves(batch))
        if isinstance(leaf, Tensor)
    }
    _check_dtypes(where, leaves, "x.float()")
    _check_devices(where, leaves, ("cpu",), "Give an example with values: torch.zeros(shape)")
    _check_dense(where, leaves)


def check_call(where: str, function: Callable[..., Any], inputs: Any, more: Any = None) -> None:
    """Refuse arguments that a function does not take; one whose signature is hidden takes all.

    Args:
        where: what the arguments are.
        function: a model's forward, or a loss.
        inputs: a tuple of arguments or a dict of keyword arguments.
        more: further keyword arguments.

    Raises:
        CaptureError: there are too many, too few or unknown ones.
    """
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return
    keywords = {**(inputs if isinstance(inputs, dict) else {}), **(more or {})}
    try:
        signature.bind(*(() if isinstance(inputs, dict) else inputs), **keywords)
    except TypeError as error:
        taken = ", ".join(signature.parameters) or "nothing"
        raise CaptureError(
            where=where,
            found=str(error),
            needed=f"what the function takes: {taken}",
            remedy="Pass one value for each, in a tuple in this order or in a dict by name",
        ) from None


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
            found=f"quantized modules: {some(f'{name} ({what})' for name, what in found.items())}",
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
            found=some(f"{name} of {dtype}" for name, dtype in wrong.items()),
            needed="float32",
            remedy="Split complex numbers into real and imaginary parts"
            if any(dtype.startswith("complex") for dtype in wrong.values())
            else f"Call {remedy}",
        )


def _check_dense(where: str, tensors: Mapping[str, Tensor]) -> None:
    wrong = {n: t.layout for n, t in tensors.items() if t.layout != torch.strided or t.is_nested}
    if wrong:
        raise CaptureError(
            where=where,
            found=some(f"{n} of layout {layout}" for n, layout in wrong.items()),
            needed="dense tensors",
            remedy="Call .to_dense(), or pad what is nested",
        )


def _check_devices(
    where: str,
    tensors: Mapping[str, Tensor],
    allowed: tuple[str, ...],
    without_values: str = "Give compile(weights='file.safetensors'), or build the model on the CPU",
) -> None:
    wrong = {n: t.device.type for n, t in tensors.items() if t.device.type not in allowed}
    if wrong:
        meta = "meta" in wrong.values()
        raise CaptureError(
            where=where,
            found=some(f"{name} on {device}" for name, device in wrong.items()),
            needed="values" if meta else "tensors on the CPU",
            remedy=without_values
            if meta
            else "Call .cpu(): a trainer copies the model's values and runs on its own",
        )
