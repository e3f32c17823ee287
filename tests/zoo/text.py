"""Text models: encoders, an encoder-decoder, a decoder."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F  # noqa: N812 - the name everybody knows
from torch import Tensor, nn


def _split(x: Tensor, heads: int) -> Tensor:
    """(N, L, D) -> (N, heads, L, D / heads)."""
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


def _join(x: Tensor) -> Tensor:
    """(N, heads, L, D) -> (N, L, heads D)."""
    return x.transpose(1, 2).flatten(2)


class _PostNormLayer(nn.Module):
    def __init__(self, width: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))
        self.up, self.down = nn.Linear(width, hidden), nn.Linear(hidden, width)
        self.first, self.second = (nn.LayerNorm(width, eps=1e-12) for _ in range(2))

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        """(N, L, width) with an additive (N, 1, 1, L)."""
        q, k, v = (_split(part(x), self.heads) for part in (self.query, self.key, self.value))
        scores = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1]) + bias
        x = self.first(x + self.out(_join(scores.softmax(-1) @ v)))
        return self.second(x + self.down(F.gelu(self.up(x))))  # type: ignore[no-any-return]


class Bert(nn.Module):
    """A post-norm encoder; with ``segments`` BERT (segments, pooler), without DistilBERT.

    Source: Devlin et al., BERT (2018); Sanh et al., DistilBERT (2019).
    """

    def __init__(
        self,
        vocabulary: int,
        places: int,
        width: int,
        layers: int,
        heads: int,
        classes: int,
        *,
        segments: bool,
    ) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(vocabulary, width), nn.Embedding(places, width)
        self.segments = nn.Embedding(2, width) if segments else None
        self.norm = nn.LayerNorm(width, eps=1e-12)
        self.layers = nn.ModuleList(_PostNormLayer(width, heads, 4 * width) for _ in range(layers))
        self.pooler, self.classifier = nn.Linear(width, width), nn.Linear(width, classes)

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None
    ) -> Tensor:
        """Ids, a 0/1 mask and segments, each (N, L) -> (N, classes)."""
        x = self.words(input_ids) + self.places(torch.arange(input_ids.shape[1]))
        if self.segments is not None and token_type_ids is not None:
            x = x + self.segments(token_type_ids)
        x = self.norm(x)
        bias = (1.0 - attention_mask[:, None, None, :].float()) * torch.finfo(torch.float32).min
        for layer in self.layers:
            x = layer(x, bias)
        first = self.pooler(x[:, 0])
        first = torch.tanh(first) if self.segments is not None else F.relu(first)
        return self.classifier(first)  # type: ignore[no-any-return]


class RmsNorm(nn.Module):
    """Scale by the root of the mean square of the last axis. Source: Zhang & Sennrich (2019)."""

    def __init__(self, width: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.ones(width)), eps

    def forward(self, x: Tensor) -> Tensor:
        """(..., width) -> the same."""
        return self.weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.eps))


class _T5Attention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads, self.norm = heads, RmsNorm(width)
        self.q, self.k, self.v, self.o = (nn.Linear(width, width, bias=False) for _ in range(4))

    def forward(self, x: Tensor, memory: Tensor | None, bias: Tensor | None) -> Tensor:
        """(N, L, width), optionally a memory to attend to, and a bias (1, heads, L, L)."""
        y = self.norm(x)
        source = y if memory is None else memory
        q, k, v = (
            _split(part(of), self.heads)
            for part, of in ((self.q, y), (self.k, source), (self.v, source))
        )
        scores = q @ k.transpose(-2, -1)  # T5 does not scale
        weights = (scores if bias is None else scores + bias).softmax(-1)
        return x + self.o(_join(weights @ v))  # type: ignore[no-any-return]


class _T5Stack(nn.Module):
    def __init__(self, width: int, heads: int, layers: int, buckets: int, *, causal: bool) -> None:
        super().__init__()
        self.causal, self.buckets = causal, buckets
        self.relative = nn.Embedding(buckets, heads)
        self.own = nn.ModuleList(_T5Attention(width, heads) for _ in range(layers))
        self.cross = nn.ModuleList(_T5Attention(width, heads) for _ in range(layers * causal))
        self.norms = nn.ModuleList(RmsNorm(width) for _ in range(layers))
        self.up = nn.ModuleList(nn.Linear(width, 4 * width, bias=False) for _ in range(layers))
        self.down = nn.ModuleList(nn.Linear(4 * width, width, bias=False) for _ in range(layers))
        self.norm = RmsNorm(width)

    def _bucket(self, distance: Tensor) -> Tensor:
        """Exact for near places, logarithmic for far ones; half of them ahead if not causal."""
        count, first = self.buckets, torch.zeros_like(distance)
        if self.causal:
            distance = -torch.clamp(distance, max=0)
        else:
            count //= 2
            first = (distance > 0).long() * count
            distance = distance.abs()
        exact = count // 2
        far = torch.log(distance.clamp(min=1).float() / exact) / math.log(128 / exact)
        large = torch.clamp(exact + (far * (count - exact)).long(), max=count - 1)
        return first + torch.where(distance < exact, distance, large)

    def forward(self, x: Tensor, memory: Tensor | None = None) -> Tensor:
        """(N, L, width), with the encoder's result for the decoder."""
        places = torch.arange(x.shape[1])
        distance = places[None, :] - places[:, None]
        bias = self.relative(self._bucket(distance)).permute(2, 0, 1)[None]
        if self.causal:
            bias = bias.masked_fill(distance > 0, float("-inf"))
        for layer, own in enumerate(self.own):
            x = own(x, None, bias)
            if memory is not None:
                x = self.cross[layer](x, memory, None)
            x = x + self.down[layer](F.relu(self.up[layer](self.norms[layer](x))))
        return self.norm(x)  # type: ignore[no-any-return]


class T5(nn.Module):
    """Encoder and decoder with relative position biases, RMSNorm and tied embeddings.

    Source: Raffel et al., T5 (2019).
    """

    def __init__(self, vocabulary: int, width: int, layers: int, heads: int, buckets: int) -> None:
        super().__init__()
        self.words = nn.Embedding(vocabulary, width)
        self.encoder = _T5Stack(width, heads, layers, buckets, causal=False)
        self.decoder = _T5Stack(width, heads, layers, buckets, causal=True)
        self.head = nn.Linear(width, vocabulary, bias=False)
        self.head.weight = self.words.weight

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        """Ids (N, L) and (N, M) -> (N, M, vocabulary)."""
        y = self.decoder(self.words(target), self.encoder(self.words(source)))
        return self.head(y * y.shape[-1] ** -0.5)  # type: ignore[no-any-return]


class _LlamaLayer(nn.Module):
    def __init__(self, width: int, heads: int, groups: int, hidden: int) -> None:
        super().__init__()
        size = width // heads
        self.heads, self.groups = heads, groups
        self.q, self.o = (nn.Linear(width, width, bias=False) for _ in range(2))
        self.k, self.v = (nn.Linear(width, groups * size, bias=False) for _ in range(2))
        self.gate, self.up = (nn.Linear(width, hidden, bias=False) for _ in range(2))
        self.down = nn.Linear(hidden, width, bias=False)
        self.first, self.second = RmsNorm(width), RmsNorm(width)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """(N, L, width) with rotations (L, width / heads)."""
        y = self.first(x)
        q, k = _split(self.q(y), self.heads), _split(self.k(y), self.groups)
        v = _split(self.v(y), self.groups)
        q, k = (part * cos + _half_turned(part) * sin for part in (q, k))
        k, v = (part.repeat_interleave(self.heads // self.groups, 1) for part in (k, v))
        x = x + self.o(_join(F.scaled_dot_product_attention(q, k, v, is_causal=True)))
        y = self.second(x)
        return x + self.down(F.silu(self.gate(y)) * self.up(y))  # type: ignore[no-any-return]


def _half_turned(x: Tensor) -> Tensor:
    first, second = x.chunk(2, -1)
    return torch.cat([-second, first], -1)


class Llama(nn.Module):
    """A decoder with RMSNorm, rotary places, SwiGLU, grouped queries and tied embeddings.

    Source: Touvron et al., LLaMA (2023); Ainslie et al., grouped queries (2023).
    """

    def __init__(
        self,
        vocabulary: int,
        places: int,
        width: int,
        layers: int,
        heads: int,
        groups: int,
        hidden: int,
    ) -> None:
        super().__init__()
        self.words = nn.Embedding(vocabulary, width)
        self.layers = nn.ModuleList(
            _LlamaLayer(width, heads, groups, hidden) for _ in range(layers)
        )
        self.norm = RmsNorm(width)
        self.head = nn.Linear(width, vocabulary, bias=False)
        self.head.weight = self.words.weight
        size = width // heads
        rates = 10000.0 ** (-torch.arange(0, size, 2).float() / size)
        angles = torch.arange(places).float()[:, None] * rates.repeat(2)
        self.register_buffer("cos", angles.cos(), persistent=False)
        self.register_buffer("sin", angles.sin(), persistent=False)

    def forward(self, ids: Tensor) -> Tensor:
        """Ids (N, L) -> (N, L, vocabulary)."""
        cos, sin = (self.get_buffer(name)[: ids.shape[1]] for name in ("cos", "sin"))
        x = self.words(ids)
        for layer in self.layers:
            x = layer(x, cos, sin)
        return self.head(self.norm(x))  # type: ignore[no-any-return]
