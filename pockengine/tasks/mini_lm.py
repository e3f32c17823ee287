"""MiniLM (Wang et al. 2020), a small BERT encoder, in plain PyTorch with Hugging Face's names.

It has no dropout: fine-tuning here is short, and a step is a function of its batch.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F  # noqa: N812 - the name everybody knows
from safetensors.torch import load_file
from torch import Tensor, nn

from pockengine.errors import InputError
from pockengine.tasks import sources
from pockengine.tasks.payload import fetch
from pockengine.tasks.task import check_positive


@dataclass(frozen=True, slots=True, kw_only=True)
class EncoderShape:
    """Sizes of a BERT encoder; the defaults are MiniLM-L6's."""

    layers: int = 6
    width: int = 384
    heads: int = 12
    intermediate: int = 1536
    vocabulary: int = 30522
    positions: int = 512


MINI_LM_SHAPE = EncoderShape()

_LAYER_NORM_EPSILON = 1e-12


class MiniLM(nn.Module):
    """Token ids and attention mask, int64 ``(N, L)``, to logits ``(N, classes)``.

    The sentence is the mean of its tokens' states, as MiniLM was trained to be read.
    """

    def __init__(self, classes: int, shape: EncoderShape = MINI_LM_SHAPE) -> None:
        super().__init__()
        self.embeddings = Embeddings(shape)
        self.encoder = Encoder(shape)
        self.classifier = nn.Linear(shape.width, classes)
        self.apply(_initialize)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Return the logits."""
        logits: Tensor = self.classifier(self.embed(input_ids, attention_mask))
        return logits

    def embed(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Return the sentences' means, float32 ``(N, width)``."""
        states = self.states(input_ids, attention_mask)
        weights = attention_mask.unsqueeze(2).to(states.dtype)
        return (states * weights).sum(dim=1) / weights.sum(dim=1)

    def states(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Return the last layer's states, float32 ``(N, L, width)``."""
        is_token = attention_mask[:, None, None, :] != 0
        states: Tensor = self.encoder(self.embeddings(input_ids), is_token)
        return states


class Embeddings(nn.Module):
    """Sum of word, position and (one) segment embedding, normalized."""

    def __init__(self, shape: EncoderShape) -> None:
        super().__init__()
        self.word_embeddings = nn.Embedding(shape.vocabulary, shape.width)
        self.position_embeddings = nn.Embedding(shape.positions, shape.width)
        self.token_type_embeddings = nn.Embedding(2, shape.width)
        self.LayerNorm = _layer_norm(shape)

    def forward(self, input_ids: Tensor) -> Tensor:
        """Return ``(N, L, width)`` of ids ``(N, L)``."""
        words = self.word_embeddings(input_ids)
        positions = self.position_embeddings.weight[: input_ids.shape[1]]
        segment = self.token_type_embeddings.weight[0]
        normalized: Tensor = self.LayerNorm(words + positions + segment)
        return normalized


class Encoder(nn.Module):
    """The layers, one after the other."""

    def __init__(self, shape: EncoderShape) -> None:
        super().__init__()
        self.layer = nn.ModuleList(Layer(shape) for _ in range(shape.layers))

    def forward(self, states: Tensor, is_token: Tensor) -> Tensor:
        """Return the last states, ``(N, L, width)``; attention sees where ``is_token``."""
        for layer in self.layer:
            states = layer(states, is_token)
        return states


class Layer(nn.Module):
    """Attention, then a two-layer perceptron with GELU; each adds and normalizes."""

    def __init__(self, shape: EncoderShape) -> None:
        super().__init__()
        self.attention = Attention(shape)
        self.intermediate = Dense(shape.width, shape.intermediate)
        self.output = Residual(shape.intermediate, shape)

    def forward(self, states: Tensor, is_token: Tensor) -> Tensor:
        """Return the layer's states, ``(N, L, width)``."""
        attended = self.attention(states, is_token)
        result: Tensor = self.output(F.gelu(self.intermediate(attended)), attended)
        return result


class Attention(nn.Module):
    """Self-attention with its output projection."""

    def __init__(self, shape: EncoderShape) -> None:
        super().__init__()
        self.add_module("self", SelfAttention(shape))
        self.output = Residual(shape.width, shape)

    def forward(self, states: Tensor, is_token: Tensor) -> Tensor:
        """Return ``(N, L, width)``."""
        attend = self.get_submodule("self")
        result: Tensor = self.output(attend(states, is_token), states)
        return result


class SelfAttention(nn.Module):
    """Scaled dot-product attention over all heads."""

    def __init__(self, shape: EncoderShape) -> None:
        super().__init__()
        self.heads = shape.heads
        self.query = nn.Linear(shape.width, shape.width)
        self.key = nn.Linear(shape.width, shape.width)
        self.value = nn.Linear(shape.width, shape.width)

    def forward(self, states: Tensor, is_token: Tensor) -> Tensor:
        """Return ``(N, L, width)``; ``is_token`` is bool ``(N, 1, 1, L)``."""
        query, key, value = (
            projection(states).unflatten(2, (self.heads, -1)).transpose(1, 2)
            for projection in (self.query, self.key, self.value)
        )
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=is_token)
        return mixed.transpose(1, 2).flatten(2)


class Dense(nn.Module):
    """A linear layer under the name ``dense``."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.dense = nn.Linear(inputs, outputs)

    def forward(self, states: Tensor) -> Tensor:
        """Return ``(N, L, outputs)``."""
        result: Tensor = self.dense(states)
        return result


class Residual(nn.Module):
    """Project, add the residual, normalize."""

    def __init__(self, inputs: int, shape: EncoderShape) -> None:
        super().__init__()
        self.dense = nn.Linear(inputs, shape.width)
        self.LayerNorm = _layer_norm(shape)

    def forward(self, states: Tensor, residual: Tensor) -> Tensor:
        """Return ``(N, L, width)``."""
        normalized: Tensor = self.LayerNorm(self.dense(states) + residual)
        return normalized


def mini_lm(
    classes: int, *, pretrained: bool = False, shape: EncoderShape = MINI_LM_SHAPE
) -> MiniLM:
    """Return MiniLM-L6 with a fresh classification head, in training mode.

    Args:
        classes: outputs.
        pretrained: load all-MiniLM-L6-v2's weights; encode texts with ``bert_vocabulary()``.
        shape: other sizes, for models without pretrained weights.

    Raises:
        InputError: pretrained weights of another shape, or no classes.
        PayloadError: the weights cannot be had.
    """
    check_positive("mini_lm(classes)", classes)
    model = MiniLM(classes, shape)
    if not pretrained:
        return model
    if shape != MINI_LM_SHAPE:
        raise InputError(
            where="mini_lm(pretrained=True)",
            found=str(shape),
            needed=f"pretrained weights exist for {MINI_LM_SHAPE}",
            remedy="Leave shape out or use pretrained=False",
        )
    weights = load_file(fetch(sources.MINI_LM) / "model.safetensors")
    head = {k: v for k, v in model.state_dict().items() if k.startswith("classifier.")}
    unused = ("embeddings.position_ids", "pooler.dense.weight", "pooler.dense.bias")
    model.load_state_dict({k: v for k, v in weights.items() if k not in unused} | head)
    return model


def _layer_norm(shape: EncoderShape) -> nn.LayerNorm:
    return nn.LayerNorm(shape.width, eps=_LAYER_NORM_EPSILON)


def _initialize(module: nn.Module) -> None:
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.normal_(module.weight, std=0.02)
    if isinstance(module, nn.Linear):
        nn.init.zeros_(module.bias)
