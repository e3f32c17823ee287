"""Attention: one row a case."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - the name everybody knows
from torch import Tensor, nn

from tests.vocabulary.harness import Case, case

_QKV = ((2, 2, 5, 4), (2, 2, 6, 4), (2, 2, 6, 3))
_SEEN = torch.tensor([[True, False, True, True, False, True]] * 4 + [[False] * 6])
_PADDING = torch.tensor([[False] * 5, [False, False, False, True, True]])
_CAUSAL = torch.ones(5, 5, dtype=torch.bool).triu(1)


def _attend(**how: Any) -> Any:
    def call(q: Tensor, k: Tensor, v: Tensor, *mask: Tensor) -> Tensor:
        more = {"attn_mask": mask[0]} if mask else {}
        return F.scaled_dot_product_attention(q, k, v, **more, **how)

    return call


def _multihead(**how: Any) -> nn.MultiheadAttention:
    return nn.MultiheadAttention(8, 2, batch_first=True, **how)


ATTENTION: dict[str, Case] = {
    "attention": case(_attend(), *_QKV),
    "attention of three axes": case(_attend(), (3, 5, 4), (3, 5, 4), (3, 5, 4)),
    "attention scale": case(_attend(scale=0.3), *_QKV),
    "attention causal": case(_attend(is_causal=True), *_QKV),
    "attention causal square": case(_attend(is_causal=True), *[(1, 2, 5, 8)] * 3),
    "attention boolean mask": case(_attend(), *_QKV, _SEEN),
    "attention mask of a batch": case(
        _attend(), *_QKV, _SEEN[None, None].expand(2, 1, 5, 6).clone()
    ),
    "attention mask of keys": case(_attend(), *_QKV, _SEEN[:1][None, None]),
    "attention float mask": case(_attend(), *_QKV, (5, 6)),
    "attention float mask of heads": case(_attend(), *_QKV, (2, 1, 6)),
    "attention float mask of -inf": case(
        lambda q, k, v, m: F.scaled_dot_product_attention(
            q, k, v, torch.zeros(5, 6).masked_fill(~m, -torch.inf)
        ),
        *_QKV,
        _SEEN[:1].expand(5, 6).clone(),
    ),
    "grouped queries": case(_attend(enable_gqa=True), (2, 4, 5, 4), *_QKV[1:]),
    "grouped queries causal": case(
        _attend(enable_gqa=True, is_causal=True), (1, 6, 5, 4), (1, 2, 5, 4), (1, 2, 5, 4)
    ),
    "one query": case(_attend(), (2, 2, 1, 4), *_QKV[1:]),
    "MultiheadAttention": case(lambda x, m: m(x, x, x), (2, 5, 8), modules=[_multihead()]),
    "MultiheadAttention, no weights": case(
        lambda x, m: m(x, x, x, need_weights=False)[0], (2, 5, 8), modules=[_multihead()]
    ),
    "MultiheadAttention, cross": case(
        lambda x, y, m: m(x, y, y)[0], (2, 5, 8), (2, 3, 6), modules=[_multihead(kdim=6, vdim=6)]
    ),
    "MultiheadAttention, masks": case(
        lambda x, p, m: m(x, x, x, key_padding_mask=p, attn_mask=_CAUSAL)[0],
        (2, 5, 8),
        _PADDING,
        modules=[_multihead(bias=False)],
    ),
    "MultiheadAttention, weights by head": case(
        lambda x, m: m(x, x, x, average_attn_weights=False), (2, 5, 8), modules=[_multihead()]
    ),
    "MultiheadAttention, bias and zero": case(
        lambda x, m: m(x, x, x)[0],
        (2, 5, 8),
        modules=[_multihead(add_bias_kv=True, add_zero_attn=True)],
    ),
    "MultiheadAttention, sequence first": case(
        lambda x, m: m(x, x, x, need_weights=False, is_causal=True, attn_mask=_CAUSAL)[0],
        (5, 2, 8),
        modules=[nn.MultiheadAttention(8, 2)],
    ),
    "TransformerEncoderLayer": case(
        lambda x, p, m: m(x, src_key_padding_mask=p),
        (2, 5, 8),
        _PADDING,
        modules=[nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, activation="gelu")],
    ),
    "TransformerDecoderLayer": case(
        lambda x, y, m: m(x, y, tgt_is_causal=True, tgt_mask=_CAUSAL),
        (2, 5, 8),
        (2, 3, 8),
        modules=[nn.TransformerDecoderLayer(8, 2, 16, batch_first=True, norm_first=True)],
    ),
}
