"""SmolLM2 (Allal et al. 2025), a LLaMA decoder, in plain PyTorch with Hugging Face's names."""

from __future__ import annotations

import functools
import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F  # noqa: N812 - the name everybody knows
from torch import Tensor, nn

from pockengine.errors import InputError
from pockengine.tasks import sources
from pockengine.tasks.payload import fetch

if TYPE_CHECKING:
    from tokenizers import Tokenizer


@dataclass(frozen=True, slots=True, kw_only=True)
class DecoderShape:
    """Sizes of a LLaMA decoder; the defaults are SmolLM2-135M's."""

    layers: int = 30
    width: int = 576
    heads: int = 9
    key_heads: int = 3
    intermediate: int = 1536
    vocabulary: int = 49152
    rope_theta: float = 100000.0
    epsilon: float = 1e-5

    @property
    def head_width(self) -> int:
        """Features of one head."""
        return self.width // self.heads


SMOL_LM_SHAPE = DecoderShape()


class SmolLM(nn.Module):
    """Token ids, int64 ``(N, L)``, to the next token's logits ``(N, L, vocabulary)``.

    Without dropout; the output projection is the embedding's table.
    """

    def __init__(self, shape: DecoderShape = SMOL_LM_SHAPE) -> None:
        super().__init__()
        self.shape = shape
        self.model = Decoder(shape)
        self.lm_head = nn.Linear(shape.width, shape.vocabulary, bias=False)
        self.apply(_initialize)
        self.lm_head.weight = self.model.embed_tokens.weight

    def forward(self, input_ids: Tensor) -> Tensor:
        """Return the logits."""
        logits: Tensor = self.lm_head(self.model(input_ids))
        return logits


class Decoder(nn.Module):
    """Embedding, layers, final normalization."""

    def __init__(self, shape: DecoderShape) -> None:
        super().__init__()
        self.shape = shape
        self.embed_tokens = nn.Embedding(shape.vocabulary, shape.width)
        self.layers = nn.ModuleList(Layer(shape) for _ in range(shape.layers))
        self.norm = nn.RMSNorm(shape.width, eps=shape.epsilon)

    def forward(self, input_ids: Tensor) -> Tensor:
        """Return the last states, ``(N, L, width)``."""
        rotation = _rotation(self.shape, input_ids.shape[1])
        states = self.embed_tokens(input_ids)
        for layer in self.layers:
            states = layer(states, rotation)
        normalized: Tensor = self.norm(states)
        return normalized


class Layer(nn.Module):
    """Normalized attention and a normalized gated perceptron, each added to its input."""

    def __init__(self, shape: DecoderShape) -> None:
        super().__init__()
        self.input_layernorm = nn.RMSNorm(shape.width, eps=shape.epsilon)
        self.self_attn = Attention(shape)
        self.post_attention_layernorm = nn.RMSNorm(shape.width, eps=shape.epsilon)
        self.mlp = Perceptron(shape)

    def forward(self, states: Tensor, rotation: tuple[Tensor, Tensor]) -> Tensor:
        """Return the layer's states, ``(N, L, width)``."""
        states = states + self.self_attn(self.input_layernorm(states), rotation)
        result: Tensor = states + self.mlp(self.post_attention_layernorm(states))
        return result


class Attention(nn.Module):
    """Causal attention with rotary positions; groups of query heads share a key head."""

    def __init__(self, shape: DecoderShape) -> None:
        super().__init__()
        self.head_width = shape.head_width
        self.q_proj = nn.Linear(shape.width, shape.heads * shape.head_width, bias=False)
        self.k_proj = nn.Linear(shape.width, shape.key_heads * shape.head_width, bias=False)
        self.v_proj = nn.Linear(shape.width, shape.key_heads * shape.head_width, bias=False)
        self.o_proj = nn.Linear(shape.heads * shape.head_width, shape.width, bias=False)

    def forward(self, states: Tensor, rotation: tuple[Tensor, Tensor]) -> Tensor:
        """Return ``(N, L, width)``."""
        query, key, value = (
            projection(states).unflatten(2, (-1, self.head_width)).transpose(1, 2)
            for projection in (self.q_proj, self.k_proj, self.v_proj)
        )
        mixed = F.scaled_dot_product_attention(
            _rotated(query, rotation), _rotated(key, rotation), value,
            is_causal=True, enable_gqa=True,
        )  # fmt: skip
        result: Tensor = self.o_proj(mixed.transpose(1, 2).flatten(2))
        return result


class Perceptron(nn.Module):
    """SwiGLU (Shazeer 2020)."""

    def __init__(self, shape: DecoderShape) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(shape.width, shape.intermediate, bias=False)
        self.up_proj = nn.Linear(shape.width, shape.intermediate, bias=False)
        self.down_proj = nn.Linear(shape.intermediate, shape.width, bias=False)

    def forward(self, states: Tensor) -> Tensor:
        """Return ``(N, L, width)``."""
        result: Tensor = self.down_proj(F.silu(self.gate_proj(states)) * self.up_proj(states))
        return result


def smol_lm(*, pretrained: bool = False, shape: DecoderShape = SMOL_LM_SHAPE) -> SmolLM:
    """Return SmolLM2-135M.

    Args:
        pretrained: load SmolLM2-135M-Instruct's weights, which were rounded to 4 bits; encode texts
            with ``smol_lm_tokenizer()``. Needs the package ``gguf``.
        shape: other sizes, for models without pretrained weights.

    Raises:
        InputError: pretrained weights of another shape, or ``gguf`` is not installed.
        PayloadError: the weights cannot be had.
    """
    model = SmolLM(shape)
    if not pretrained:
        return model
    if shape != SMOL_LM_SHAPE:
        raise InputError(
            where="smol_lm(pretrained=True)",
            found=str(shape),
            needed=f"pretrained weights exist for {SMOL_LM_SHAPE}",
            remedy="Leave shape out or use pretrained=False",
        )
    weights = _weights(fetch(sources.SMOL_LM), shape)
    model.load_state_dict(weights | {"lm_head.weight": weights["model.embed_tokens.weight"]})
    return model


def smol_lm_tokenizer() -> Tokenizer:
    """Return SmolLM2's byte-level BPE tokenizer (the package ``tokenizers``).

    Raises:
        InputError: ``tokenizers`` or ``gguf`` is not installed.
        PayloadError: the vocabulary cannot be had.
    """
    tokenizers = _needed("tokenizers")
    fields = _reader(fetch(sources.SMOL_LM)).fields
    pieces = fields["tokenizer.ggml.tokens"].contents()
    merges = [tuple(pair.split(" ")) for pair in fields["tokenizer.ggml.merges"].contents()]
    vocabulary = {piece: index for index, piece in enumerate(pieces)}
    tokenizer: Tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE(vocabulary, merges))
    split = tokenizers.pre_tokenizers
    tokenizer.pre_tokenizer = split.Sequence(
        [split.Digits(individual_digits=True), split.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    return tokenizer


_NAMES = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
    "token_embd": "embed_tokens",
    "output_norm": "norm",
}


def _weights(path: Path, shape: DecoderShape) -> dict[str, Tensor]:
    """The tensors of a GGUF file in float32, under Hugging Face's names."""
    reader = _reader(path)
    dequantize = _needed("gguf").dequantize
    found = {}
    for tensor in reader.tensors:
        *block, kind, _ = tensor.name.split(".")
        scope = f"layers.{block[1]}." if block else ""
        value = torch.from_numpy(dequantize(tensor.data, tensor.tensor_type).copy())
        if kind in ("attn_q", "attn_k"):
            value = _half_split(value, shape.head_width)
        found[f"model.{scope}{_NAMES[kind]}.weight"] = value
    return found


def _half_split(weight: Tensor, head_width: int) -> Tensor:
    """Rows that rotate as neighbours (GGUF) in Hugging Face's order: first halves, then second."""
    pairs = weight.view(-1, head_width // 2, 2, weight.shape[1])
    return pairs.transpose(1, 2).reshape(weight.shape)


def _rotation(shape: DecoderShape, length: int) -> tuple[Tensor, Tensor]:
    """Cosines and sines of rotary positions (Su et al. 2021), ``(L, head width)`` each."""
    exponents = torch.arange(0, shape.head_width, 2, dtype=torch.float32) / shape.head_width
    angles = torch.outer(torch.arange(length).float(), shape.rope_theta**-exponents)
    both = torch.cat((angles, angles), dim=1)
    return both.cos(), both.sin()


def _rotated(states: Tensor, rotation: tuple[Tensor, Tensor]) -> Tensor:
    """Heads ``(N, H, L, D)``, each pair (i, i + D/2) turned by its position's angle."""
    cosines, sines = rotation
    first, second = states.chunk(2, dim=3)
    return states * cosines + torch.cat((-second, first), dim=3) * sines


@functools.lru_cache(maxsize=1)
def _reader(path: Path) -> Any:
    return _needed("gguf").GGUFReader(path)


def _needed(package: str) -> Any:
    """An optional package."""
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise InputError(
            where="smol_lm",
            found=f"the package {package} is not installed",
            needed=f"needs {package} to read SmolLM2's file",
            remedy="Run pip install gguf tokenizers",
        ) from error


def _initialize(module: nn.Module) -> None:
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.normal_(module.weight, std=0.02)
