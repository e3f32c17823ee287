"""What goes into each kind of model, and the module that makes plain tensors of what comes out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
import transformers
from torch import Tensor, nn

from experiments.coverage.models import SMALL, Row

BATCH, TOKENS, VOCABULARY = 2, 16, 64
Inputs = dict[str, Tensor]


class Logits(nn.Module):
    """A model of the package as a function from tensors to logits of two axes.

    Args:
        model: whatever gives an output with ``logits``.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, **inputs: Tensor) -> Tensor:
        """Logits (N, classes), one row a place where the model gives several."""
        logits: Tensor = self.model(**inputs).logits
        return logits.reshape(-1, logits.shape[-1])


def _text(_: Any) -> Inputs:
    """Ids and a mask with the last places of the second text padded."""
    mask = torch.ones(BATCH, TOKENS, dtype=torch.int64)
    mask[1, TOKENS - 4 :] = 0
    ids = torch.randint(4, VOCABULARY, (BATCH, TOKENS))
    return {"input_ids": ids * mask, "attention_mask": mask}


def _sequence_to_sequence(config: Any) -> Inputs:
    ids = torch.randint(4, VOCABULARY, (BATCH, TOKENS))
    return {**_text(config), "decoder_input_ids": ids}


def _causal(config: Any) -> Inputs:
    return _text(config)


def _image(config: Any) -> Inputs:
    size = getattr(config, "image_size", 32)
    size = size[0] if isinstance(size, (list, tuple)) else size
    return {"pixel_values": torch.randn(BATCH, 3, min(size, 64), min(size, 64))}


def _audio(_: Any) -> Inputs:
    return {"input_values": torch.randn(BATCH, 800)}


def _features(config: Any) -> Inputs:
    return {"input_features": torch.randn(BATCH, TOKENS, config.feature_projection_input_dim)}


def _spectrogram(config: Any) -> Inputs:
    return {"input_values": torch.randn(BATCH, config.max_length, config.num_mel_bins)}


def _mel(config: Any) -> Inputs:
    frames = 2 * config.max_source_positions
    return {"input_features": torch.randn(BATCH, config.num_mel_bins, frames)}


INPUTS: Mapping[str, Callable[[Any], Inputs]] = {
    "text": _text,
    "causal": _causal,
    "seq2seq": _sequence_to_sequence,
    "image": _image,
    "audio": _audio,
    "features": _features,
    "spectrogram": _spectrogram,
    "mel": _mel,
}


def config_of(row: Row) -> Any:
    """A small configuration."""
    kind = getattr(transformers, row.config)
    known = kind()
    given = dict(row.overrides)
    for part in [name for name, value in given.items() if value == "small"]:
        given[part] = _usual(getattr(known, part))
    return kind(**{n: v for n, v in _usual(known).items() if n not in given}, **given)


def _usual(config: Any) -> dict[str, Any]:
    """The small sizes under the configuration's own names, where it has plain ones."""
    names = {config.attribute_map.get(name, name): value for name, value in SMALL.items()}
    return {name: value for name, value in names.items() if _is_plain(config, name)}


def _is_plain(config: Any, name: str) -> bool:
    """Whether an attribute may be set, to one number."""
    computed = isinstance(getattr(type(config), name, None), property)
    return not computed and not isinstance(getattr(config, name, []), (list, tuple))


def build(row: Row) -> tuple[nn.Module, list[tuple[Inputs, Tensor]]]:
    """A random model in eval mode, and five batches; the same for every call."""
    torch.manual_seed(0)
    config = config_of(row)
    model = Logits(getattr(transformers, row.model)(config)).eval()
    inputs = [INPUTS[row.kind](config) for _ in range(5)]
    with torch.no_grad():
        rows, classes = model(**inputs[0]).shape
    return model, [(given, torch.randint(0, classes, (rows,))) for given in inputs]
