"""What the command line looks at: a model, a batch, a loss; by name or from the user's code."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from pockengine.errors import InputError
from pockengine.frontend.exported import load_exported
from pockengine.frontend.losses import Loss, main_output
from pockengine.frontend.modes import evaluating
from pockengine.optimizer import SGD, Adagrad, Adam, AdamW, Lion, Optimizer, RMSprop
from pockengine.report.model_source import FORMS, call_source, is_exported, wrong_model
from pockengine.scheme import Rule, Scheme
from pockengine.tasks import mini_lm, mobilenet_v2, small_cnn, small_encoder

OPTIMIZERS: MappingProxyType[str, Optimizer] = MappingProxyType(
    {
        "sgd": SGD(),
        "momentum": SGD(momentum=0.9),
        "adam": Adam(),
        "adamw": AdamW(),
        "lion": Lion(),
        "rmsprop": RMSprop(),
        "adagrad": Adagrad(),
    }
)
"""What ``--optimizer`` takes."""

_CLASSES = 10
_SEED = 0
_WORDS = 30522  # of BERT's vocabulary
_FEATURES = 64
_NOTHING: Mapping[str, int] = MappingProxyType({})
_TEXT_INPUTS = ("input_ids", "attention_mask")


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """A fine-tuning run to look at.

    Args:
        model: in the mode it is trained in.
        batch: ``(inputs, targets)``.
        loss: as ``compile`` takes it.
        optimizer: what steps.
    """

    model: nn.Module
    batch: tuple[Any, Any]
    loss: Loss
    optimizer: Optimizer


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A model, and what its source says besides; None where it says nothing.

    Args:
        model: in the mode it is trained in.
        batch: ``(inputs, targets)``; targets are None where only inputs are known.
        loss: as ``compile`` takes it.
        optimizer: what steps.
    """

    model: nn.Module
    batch: tuple[Any, Any] | None = None
    loss: Loss | None = None
    optimizer: Optimizer | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """How large the batch of a built-in model is.

    Args:
        batch: examples.
        side: of a square image, in pixels.
        length: of a text, in tokens.
    """

    batch: int = 8
    side: int = 128
    length: int = 128


def find_model(
    name: str, given: Mapping[str, int] = _NOTHING, *, pretrained: bool = False
) -> Found:
    """The model of a name.

    Args:
        name: one of ``BUILT_IN``; ``module:function``, ``file.py:function`` or ``file.py``, whose
            function gives a model, ``(model, example_batch, loss)`` or ``(model, example_batch,
            loss, optimizer)``; or ``file.pt2``, which ``torch.export.save`` wrote.
        given: what data tell: ``classes``, ``vocabulary`` (tokens) and ``features`` (numbers of an
            example). Functions that take arguments of these names are called with them.
        pretrained: whether a built-in model has its pretrained weights; else random ones.

    Raises:
        InputError: there is no such model, or its function does not give what it should.
        PayloadError: pretrained weights cannot be had.
    """
    torch.manual_seed(_SEED)
    if name in BUILT_IN:
        if pretrained and name not in PRETRAINED:
            raise wrong_model(name, "there are no pretrained weights of it", "--init random")
        return Found(model=BUILT_IN[name](given, pretrained))
    if is_exported(name):
        model, inputs = load_exported(name)
        return Found(model=model, batch=None if inputs is None else (inputs, None))
    if ":" not in name and not name.endswith(".py"):
        raise wrong_model(name, "no such model", f"{', '.join(BUILT_IN)}, {FORMS}")
    return _found(name, call_source(name, given))


def _found(name: str, made: Any) -> Found:
    """What a function of the user's gave."""
    if isinstance(made, nn.Module):
        return Found(model=made)
    if not isinstance(made, tuple) or len(made) not in (3, 4) or not isinstance(made[0], nn.Module):
        raise wrong_model(
            name,
            f"its function gives {_told(made)}",
            "a model, (model, example_batch, loss) or (model, example_batch, loss, optimizer)",
        )
    optimizer = made[3] if len(made) == 4 else None
    return Found(model=made[0], batch=made[1], loss=made[2], optimizer=optimizer)


def find_workload(
    name: str,
    sizes: Sizes | None = None,
    optimizer: Optimizer | None = None,
    loss: str | None = None,
) -> Workload:
    """The workload of a name, with the batch that its source gives.

    Args:
        name: as ``find_model``. Of an exported program the targets are made up: classes for an
            output of two axes, else zeros.
        sizes: of a built-in model's batch.
        optimizer: instead of the workload's own.
        loss: instead of the workload's own.

    Raises:
        InputError: there is no such model, or it comes without a batch.
    """
    found = find_model(name)
    batch = found.batch
    if name in BUILT_IN:
        batch = _BATCHES[name](sizes or Sizes())
    if batch is None:
        raise wrong_model(
            name,
            "a model without an example batch",
            "(model, example_batch, loss), or a command that takes --data",
        )
    own_loss = found.loss
    if batch[1] is None and is_exported(name):
        batch, own_loss = _with_targets(found.model, batch[0])
    return Workload(
        model=found.model,
        batch=batch,
        loss=loss or own_loss or "cross_entropy",
        optimizer=optimizer or found.optimizer or SGD(momentum=0.9),
    )


def find_scheme(spec: str | None) -> Scheme | Rule | None:
    """The scheme of ``full``, ``bias_only``, ``bias_only:N``, ``last_blocks:N`` or a JSON file.

    None stays None: what the model's ``requires_grad`` says. ``lora:RANK:LAYER,LAYER`` adapts the
    layers of these names, and updates the head.

    Raises:
        SchemeError: the file holds no scheme, or N is not positive.
        InputError: none of these.
    """
    if spec is None:
        return None
    kind, _, count = spec.partition(":")
    if kind == "full" and not count:
        return Scheme.full()
    if kind == "bias_only" and (not count or count.isdecimal()):
        return Scheme.bias_only(int(count) if count else None)
    if kind == "last_blocks" and count.isdecimal():
        return Scheme.last_blocks(int(count))
    rank, _, layers = count.partition(":")
    if kind == "lora" and rank.isdecimal() and layers:
        return Scheme.lora(int(rank), layers.split(","), head=True)
    if not Path(spec).is_file():
        raise InputError(
            where="--scheme",
            found=repr(spec),
            needed="full, bias_only, bias_only:N, last_blocks:N, lora:RANK:LAYER,LAYER or the "
            "path of a JSON file",
            remedy="Write a file with pe.Scheme({...}).save(path)",
        )
    return Scheme.load(spec)


def _mobilenet_v2(given: Mapping[str, int], pretrained: bool) -> nn.Module:
    return mobilenet_v2(1.0, given.get("classes", _CLASSES), pretrained=pretrained).eval()


def _mini_lm(given: Mapping[str, int], pretrained: bool) -> nn.Module:
    return mini_lm(given.get("classes", _CLASSES), pretrained=pretrained).eval()


def _mlp(given: Mapping[str, int], pretrained: bool) -> nn.Module:
    del pretrained
    return nn.Sequential(
        *(nn.Linear(given.get("features", _FEATURES), 128), nn.ReLU()),
        *(nn.Linear(128, 128), nn.ReLU()),
        nn.Linear(128, given.get("classes", _CLASSES)),
    )


def _small_cnn(given: Mapping[str, int], pretrained: bool) -> nn.Module:
    del pretrained
    return small_cnn(given.get("classes", _CLASSES))


def _small_encoder(given: Mapping[str, int], pretrained: bool) -> nn.Module:
    del pretrained
    return small_encoder(given.get("classes", _CLASSES), given.get("vocabulary", _WORDS))


BUILT_IN: MappingProxyType[str, Callable[[Mapping[str, int], bool], nn.Module]] = MappingProxyType(
    {
        "mobilenet_v2": _mobilenet_v2,
        "mini_lm": _mini_lm,
        "mlp": _mlp,
        "small_cnn": _small_cnn,
        "small_encoder": _small_encoder,
    }
)
"""Models by name, from what data tell and whether they are pretrained."""

READS: MappingProxyType[str, str] = MappingProxyType(
    {
        "mobilenet_v2": "image",
        "mini_lm": "text",
        "small_cnn": "image",
        "small_encoder": "text",
        "mlp": "arrays",
    }
)
"""The kind of data that a built-in model reads; all read arrays of the right shape as well."""

PRETRAINED = ("mobilenet_v2", "mini_lm")
"""Built-in models with pretrained weights."""


def _images(sizes: Sizes) -> tuple[Any, Any]:
    images = torch.randn(sizes.batch, 3, sizes.side, sizes.side)
    return images, _labels(sizes.batch)


def _texts(sizes: Sizes) -> tuple[Any, Any]:
    shape = (sizes.batch, sizes.length)
    ids = torch.randint(0, _WORDS, shape)
    mask = torch.ones(shape, dtype=torch.int64)
    return dict(zip(_TEXT_INPUTS, (ids, mask), strict=True)), _labels(sizes.batch)


def _rows(sizes: Sizes) -> tuple[Any, Any]:
    return torch.randn(sizes.batch, _FEATURES), _labels(sizes.batch)


_BATCHES: MappingProxyType[str, Callable[[Sizes], tuple[Any, Any]]] = MappingProxyType(
    {
        "mobilenet_v2": _images,
        "mini_lm": _texts,
        "mlp": _rows,
        "small_cnn": _images,
        "small_encoder": _texts,
    }
)


def _labels(count: int) -> Tensor:
    return torch.arange(count) % _CLASSES


def _with_targets(model: nn.Module, inputs: Any) -> tuple[tuple[Any, Any], Loss]:
    """A batch with made-up targets, and the loss that goes with them."""
    with evaluating(model), torch.no_grad():
        output = model(**inputs) if isinstance(inputs, dict) else model(*inputs)
    scores = main_output(output)
    if scores.ndim == 2 and scores.shape[1] > 1:
        return (inputs, torch.arange(scores.shape[0]) % scores.shape[1]), "cross_entropy"
    return (inputs, torch.zeros_like(scores)), "mse"


def _told(made: object) -> str:
    return f"a tuple of {len(made)}" if isinstance(made, tuple) else f"a {type(made).__name__}"
