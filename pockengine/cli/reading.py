"""How pictures, texts and arrays become a model's inputs: kept beside the weights, for later."""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, Self, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pockengine.errors import InputError
from pockengine.tasks import bert_vocabulary, encode_texts, prepare_images

_FORMAT = "pockengine.reading"
_VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What a model was trained to read.

    Args:
        kind: pictures, texts, or arrays as they are.
        classes: their names; empty where the targets are numbers.
        size: pixels that a picture's sides are squeezed to; 0 for others. Pictures are normalized
            by ImageNet's mean and deviation, as ``pockengine.tasks.IMAGENET``.
        length: tokens that a text is cut or filled to; 0 for others.
        words: the vocabulary of texts, in order; None for BERT's.
    """

    kind: Literal["image", "text", "arrays"]
    classes: tuple[str, ...]
    size: int = 0
    length: int = 0
    words: tuple[str, ...] | None = None

    def vocabulary(self) -> dict[str, int]:
        """Token -> id.

        Raises:
            PayloadError: BERT's cannot be had.
        """
        if self.words is None:
            return bert_vocabulary()
        return {word: index for index, word in enumerate(self.words)}

    def given(self, examples: Any) -> dict[str, int]:
        """What a model is told of its data: classes, tokens, numbers of an example."""
        found = {"classes": len(self.classes)} if self.classes else {}
        if self.kind == "text":
            found["vocabulary"] = len(self.vocabulary())
        if self.kind == "arrays" and not isinstance(examples, Mapping):
            found["features"] = int(np.prod(examples.shape[1:]))
        return found

    def inputs(self, examples: Any, model: nn.Module) -> Any:
        """A model's inputs.

        Args:
            examples: pictures, uint8 ``(N, H, W, 3)``; texts; an array, or arrays by name.
            model: texts become its arguments ``input_ids`` and ``attention_mask``, or its first
                two if it has no such names; one alone gets the ids.
        """
        if self.kind == "image":
            return torch.from_numpy(prepare_images(examples, size=self.size))
        if self.kind == "text":
            return _of_texts(examples, self.vocabulary(), self.length, model)
        if isinstance(examples, Mapping):
            return {name: tensor(array) for name, array in examples.items()}
        return tensor(examples)

    def to_json(self) -> str:
        """As a versioned JSON document."""
        return json.dumps({"format": _FORMAT, "version": _VERSION, **asdict(self)})

    @classmethod
    def from_json(cls, text: str) -> Self:
        """What ``to_json`` wrote.

        Raises:
            InputError: it is something else.
        """
        try:
            found = json.loads(text)
            same = (found.pop("format"), found.pop("version")) == (_FORMAT, _VERSION)
            words = found.pop("words")
            classes = tuple(map(str, found.pop("classes")))
            if same:
                return cls(**found, classes=classes, words=None if words is None else tuple(words))
            error: Exception = ValueError("another format or version")
        except (AttributeError, KeyError, TypeError, ValueError) as caught:
            error = caught
        raise InputError(
            where="weights, how they read data",
            found=f"not understood ({error})",
            needed=f"{_FORMAT} of version {_VERSION}",
            remedy="Write the weights with this version: pockengine train --out",
        ) from error


def tensor(array: NDArray[Any]) -> Tensor:
    """A tensor of the dtype that models take: float32, int64 or bool."""
    if array.dtype.kind == "f":
        return torch.from_numpy(np.ascontiguousarray(array, np.float32))
    if array.dtype.kind in "iu":
        return torch.from_numpy(np.ascontiguousarray(array, np.int64))
    return torch.from_numpy(np.ascontiguousarray(array))


def _of_texts(
    texts: Iterable[str], vocabulary: Mapping[str, int], length: int, model: nn.Module
) -> Any:
    ids, mask = (torch.from_numpy(each) for each in encode_texts(texts, vocabulary, length))
    parameters = inspect.signature(cast("Any", model).forward).parameters
    named = {"input_ids": ids, "attention_mask": mask}
    if "input_ids" in parameters:
        return {name: value for name, value in named.items() if name in parameters}
    return (ids, mask) if len(parameters) > 1 else ids
