"""Indexing, joining, cutting and rearranging: one row a case."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812 - the name everybody knows
from torch import Tensor, nn

from tests.vocabulary.harness import Case, case

_SHAPE = (5, 4, 7)
_ROWS = torch.tensor([4, 0, 0, 2])
_GRID = torch.tensor([[4, 0, 1], [0, 2, 4]])
_COLUMNS = torch.tensor([3, 1, 1, 0])
_GATHER = torch.tensor([[0, 1, 2, 2, 0, 3], [3, 3, 0, 1, 1, 1], [2, 0, 0, 0, 1, 0]])
_IDS = torch.tensor([[1, 0, 3, 0], [6, 5, 0, 1]])


def _set(x: Tensor, place: object, value: object) -> Tensor:
    y = x.clone()
    y[place] = value  # type: ignore[index, assignment]
    return y


INDEXING: dict[str, Case] = {
    "embedding": case(lambda a, m: m(a), _IDS, modules=[nn.Embedding(7, 5)]),
    "embedding padding": case(lambda a, m: m(a), _IDS, modules=[nn.Embedding(7, 5, padding_idx=0)]),
    "embedding of one": case(lambda a, m: m(a), torch.tensor(3), modules=[nn.Embedding(7, 5)]),
    "one hot product": case(lambda a, w: F.one_hot(a, 7).to(w.dtype) @ w, _IDS, (7, 5)),
    "one_hot": case(lambda a: F.one_hot(a, 8), _IDS),
    "gather rows": case(lambda x, a: x.gather(0, a), (5, 6), _GATHER),
    "gather columns": case(lambda x, a: x.gather(1, a), (4, 5), _GATHER),
    "gather one": case(lambda x, a: x.gather(1, a[:, None]), (4, 6), _COLUMNS),
    "gather of three": case(
        lambda x, a: x.gather(1, a), (2, 4, 3), torch.tensor([[[0, 3, 3]], [[1, 2, 0]]])
    ),
    "gather of vector": case(lambda x, a: x.gather(0, a), (5,), _ROWS),
    "gather over sequence": case(
        lambda x, a: x.gather(1, a[:, None, None].expand(-1, 1, 7)), (4, 5, 7), _COLUMNS
    ),
    "take_along_dim": case(lambda x, a: torch.take_along_dim(x, a, 1), (3, 5), _GATHER),
    "scatter": case(lambda x, s, a: x.scatter(1, a, s), (4, 6), (4, 1), _COLUMNS[:, None]),
    "scatter wide": case(
        lambda x, s, a: x.scatter(1, a, s), (2, 6), (2, 3), torch.tensor([[0, 5, 2], [3, 1, 4]])
    ),
    "scatter value": case(lambda x, a: x.scatter(1, a, 2.0), (3, 5), _GATHER),
    "scatter_add": case(lambda x, s, a: x.scatter_add(1, a, s), (3, 5), (3, 6), _GATHER),
    "scatter_add rows": case(lambda x, s, a: x.scatter_add(0, a, s), (5, 6), (3, 6), _GATHER),
    "scatter_add smaller": case(
        lambda x, s, a: x.scatter_add(0, a, s.detach()), (5, 8), (4, 9), _GATHER
    ),
    "scatter reduce sum": case(
        lambda x, s, a: torch.scatter_reduce(x, 1, a, s, "sum"), (3, 5), (3, 6), _GATHER
    ),
    "scatter reduce mean": case(
        lambda x, s, a: torch.scatter_reduce(x, 1, a, s, "mean"), (3, 5), (3, 6), _GATHER
    ),
    "scatter reduce amax": case(
        lambda x, s, a: torch.scatter_reduce(x, 1, a, s, "amax"), (3, 5), (3, 6), _GATHER
    ),
    "scatter reduce amin apart": case(
        lambda x, s, a: torch.scatter_reduce(x, 1, a, s, "amin", include_self=False),
        (3, 5),
        (3, 6),
        _GATHER,
    ),
    "scatter reduce amin of integers": case(
        lambda s, a: torch.full((3, 5), 7).scatter_reduce(1, a, s, "amin"),
        torch.arange(18).reshape(3, 6) - 4,
        _GATHER,
    ),
    "index_select": case(
        lambda x, a: (x.index_select(0, a), x.index_select(1, a % 4)), _SHAPE, _ROWS
    ),
    "index_add": case(lambda x, s, a: x.index_add(0, a, s, alpha=2), (5, 3), (4, 3), _ROWS),
    "index_add columns": case(lambda x, s, a: x.index_add(1, a, s), (3, 5), (3, 4), _ROWS),
    "index_copy": case(
        lambda x, s, a: x.index_copy(0, a, s), (5, 3), (4, 3), torch.tensor([4, 0, 1, 2])
    ),
    "index_fill": case(lambda x, a: x.index_fill(1, a, 0.5), (3, 5), _ROWS),
    "index_fill transposed": case(lambda x, a: x.mT.index_fill(1, a, 0.5), (5, 3), _ROWS),
    "take": case(lambda x, a: x.take(a), (5, 6), _IDS),
    "index": case(lambda x, a: x[a], _SHAPE, _ROWS),
    "index negative": case(lambda x, a: x[a - 5], _SHAPE, _ROWS),
    "index grid": case(lambda x, a: x[a], _SHAPE, _GRID),
    "index second axis": case(lambda x, a: x[:, a], _SHAPE, _COLUMNS),
    "index last axis": case(lambda x, a: x[..., a], _SHAPE, _GRID),
    "index pairs": case(lambda x, a, b: x[a, b], _SHAPE, _ROWS, _COLUMNS),
    "index broadcast": case(lambda x, a, b: x[a[:, None], b], _SHAPE, _ROWS, _COLUMNS),
    "index apart": case(lambda x, a, b: x[a, :, b], _SHAPE, _ROWS, _COLUMNS),
    "index apart, behind": case(lambda x, a, b: x[:, a % 4, :, b], (2, 4, 3, 5), _ROWS, _ROWS),
    "index with a number": case(lambda x, a: x[2, a % 4], _SHAPE, _ROWS),
    "index by range": case(lambda x, a: x[torch.arange(4), a], (4, 6), _COLUMNS),
    "index masked sum": case(lambda x, a: torch.where(a > 0, x[a], 0.0), (7,), _IDS),
    "index_put add": case(
        lambda x, v, a: x.index_put((a,), v, accumulate=True), (5, 3), (4, 3), _ROWS
    ),
    "index_put add pairs": case(
        lambda x, v, a, b: x.index_put((a, b), v, accumulate=True), (5, 4), (4,), _ROWS, _COLUMNS
    ),
    "index_put add number": case(
        lambda x, v, a, b: x.index_put((a, b), v, accumulate=True), (5, 4), (), _ROWS, _COLUMNS
    ),
    "index_put": case(
        lambda x, v, a: x.index_put((a,), v), (5, 3), (3, 3), torch.tensor([4, 0, 2])
    ),
    "index_put pairs": case(
        lambda x, v, a, b: x.index_put((a, b), v),
        (5, 4),
        (4,),
        torch.tensor([4, 0, 1, 2]),
        _COLUMNS,
    ),
    "assign rows": case(lambda x, a: _set(x, a, 0.5), (5, 3), _ROWS),
    "assign columns": case(lambda x, v, a: _set(x, (slice(None), a), v), (3, 5), (3, 1), _ROWS),
    "assign apart": case(
        lambda x, v, a, b: _set(x, (a, slice(None), b), v), _SHAPE, (4, 4), _ROWS, _COLUMNS
    ),
    "assign by mask": case(lambda x, m: _set(x, m, 0.5), (2, 4), _IDS > 2),
    "assign at numbers": case(
        lambda x: _set(x, (1, 2), 0.5) + _set(x, (slice(1, 3), 0), 2.0), (5, 4)
    ),
    "token shift": case(lambda x: F.pad(x, (0, 0, 1, 0))[:, :-1] + x, (2, 5, 3)),
    "bincount-like": case(lambda a: (F.one_hot(a, 7).sum((0, 1)), (a == 0).sum()), _IDS),
    "bucketize": case(
        lambda a: (
            torch.bucketize(a, torch.tensor([1, 3, 5])),
            torch.searchsorted(torch.tensor([1.0, 3.0, 5.0]), a.float()),
        ),
        _IDS,
    ),
    "relative bias": case(
        lambda a, m: m((a[:, None] - a[None]).clamp(-3, 3) + 3), _ROWS, modules=[nn.Embedding(7, 2)]
    ),
    "cross_entropy images": case(F.cross_entropy, (2, 7, 4), _IDS),
}


SHAPES: dict[str, Case] = {
    "select": case(lambda x: (x[1], x[:, -1], x.select(2, 3), x[..., 0]), _SHAPE),
    "slice": case(lambda x: (x[1:3], x[:, 1:-1], x[..., -3:], x[4:2], x[:99]), _SHAPE),
    "slice steps": case(lambda x: (x[::2], x[:, 1::3], x[..., ::4], x[1:5:3]), _SHAPE),
    "slice of slices": case(lambda x: x[1:, :3][:, ::2][..., 2:5], _SHAPE),
    "narrow": case(lambda x: x.narrow(1, 1, 2), _SHAPE),
    "cat": case(lambda x, y: (torch.cat([x, y], 1), torch.cat([x, x * 2], -2)), (2, 3), (2, 4)),
    "cat of types": case(lambda x, a: torch.cat([x, a], 1), (2, 3), _IDS),
    "cat with empty": case(lambda x, y: torch.cat([x, y], 0), (2, 3), (0, 3)),
    "stack": case(lambda x, y: (torch.stack([x, y]), torch.stack([x, y], -1)), (2, 3), (2, 3)),
    "hstack": case(lambda x, y: (torch.hstack([x, y]), torch.vstack([x, y])), (2, 3), (2, 3)),
    "split": case(lambda x: (*x.split(3, 2), *x.split([1, 4], 0), *x.split(2, 1)), _SHAPE),
    "chunk": case(lambda x: (*x.chunk(2, 2), *x.chunk(3), *x.tensor_split(3, 1)), _SHAPE),
    "unbind": case(lambda x: (*x.unbind(1), *x.unbind(0)), (3, 2, 4)),
    "permute": case(
        lambda x: (x.permute(2, 0, 1), x.transpose(0, 2), x.mT, x.movedim(0, 1)), _SHAPE
    ),
    "reshape": case(
        lambda x: (x.reshape(10, 14), x.flatten(1), x.unflatten(0, (5, 1)), x.view(-1)), _SHAPE
    ),
    "permute and reshape": case(lambda x: x.permute(2, 0, 1).reshape(7, 20) * 2, _SHAPE),
    "squeeze": case(lambda x: (x.squeeze(), x.squeeze(1), x.unsqueeze(-1), x[None]), (3, 1, 4)),
    "expand": case(lambda x: (x.expand(4, 3, 5), x.expand(-1, 5).exp()), (3, 1)),
    "repeat": case(lambda x: (x.repeat(2, 3), x.repeat(2, 1, 1), x.tile(2)), (3, 4)),
    "repeat_interleave": case(
        lambda x: (x.repeat_interleave(2, 1), x.repeat_interleave(3, 0), x.repeat_interleave(2)),
        (3, 4),
    ),
    "pad": case(
        lambda x: (F.pad(x, (1, 2)), F.pad(x, (0, 0, 2, 1), value=1.5), F.pad(x, (-1, 2))), (3, 4)
    ),
    "pad reflect": case(
        lambda x: (F.pad(x, (2, 1), "reflect"), F.pad(x[:, None], (1, 2, 0, 1), "reflect")),
        (2, 3, 4),
    ),
    "pad replicate": case(
        lambda x: (F.pad(x, (2, 1), "replicate"), F.pad(x[:, None], (1, 5, 0, 1), "replicate")),
        (2, 3, 4),
    ),
    "pad volumes": case(lambda x: F.pad(x, (1, 2, 0, 1, 1, 1), "replicate"), (1, 2, 2, 3, 4)),
    "pad circular": case(lambda x: F.pad(x, (2, 1), "circular"), (2, 3, 4)),
    "flip": case(lambda x: (x.flip(0), x.flip(1, 2), x.fliplr()), _SHAPE),
    "rot90": case(lambda x: x.rot90(1, (1, 2)), _SHAPE),
    "roll": case(lambda x: (x.roll(2, 1), x.roll((1, -2), (0, 2)), x.roll(3)), _SHAPE),
    "tril": case(lambda x: (x.tril(), x.triu(1), x.tril(-1), x.triu(-2)), _SHAPE),
    "tril of ones": case(
        lambda x: x.masked_fill(torch.ones(4, 7, dtype=torch.bool).tril(), -1.0), (4, 7)
    ),
    "diagonal": case(
        lambda x: (x.diagonal(), x.diagonal(1), x.diagonal(0, 1, 2), x.diagonal(-2)), _SHAPE
    ),
    "diag": case(
        lambda x, y: (torch.diag(x), torch.diag_embed(y), torch.diag(y[0])), (4, 4), (2, 3)
    ),
    "meshgrid": case(lambda x, y: torch.meshgrid(x, y, indexing="ij"), (3,), (4,)),
    "broadcast_to": case(lambda x: torch.broadcast_to(x, (3, 4)) * 2, (4,)),
    "swapaxes": case(lambda x: x.swapaxes(0, 1).contiguous().view(4, -1), _SHAPE),
    "as_strided": case(
        lambda x: (
            x.as_strided((2, 3), (3, 1)),
            x.flatten()[1:].as_strided((2, 2), (2, 1), 2),
            torch.as_strided_scatter(x, x[:, 0], (2,), (2,), 1),
        ),
        (2, 3),
    ),
    "unfold": case(lambda x: x.unfold(1, 3, 2), (2, 9)),
    "pixel_shuffle": case(lambda x: (F.pixel_shuffle(x, 2), F.pixel_unshuffle(x, 2)), (1, 4, 2, 4)),
    "channel_shuffle": case(lambda x: F.channel_shuffle(x, 2), (1, 4, 2, 3)),
    "in place": case(lambda x: x.clone().add_(1).mul_(2), (4, 4)),
    "write slices": case(
        lambda x: _set(_set(x, slice(1, 4, 2), 0.5), (slice(None), -1), 0.0), _SHAPE
    ),
    "write a slice with steps": case(
        lambda x, y: _set(x, (slice(None), slice(0, 4, 2)), y), (5, 4), (5, 2)
    ),
    "creations": case(
        lambda x: (
            x + torch.zeros(4) + torch.ones_like(x) + torch.full((3, 1), 2.0) + torch.arange(4),
            x.new_zeros(2) + torch.empty_like(x[0, :2]).fill_(3.0),
            torch.arange(1.0, 3.0, 0.5) * x[0],
            torch.linspace(0, 1, 4) + x[1],
            torch.eye(3, dtype=x.dtype) @ x,
            torch.full_like(x, 7) * x,
            torch.logspace(0, 1, 4) + x[1],
            torch.tensor([1.0, 2.0, 3.0, 4.0]) * x,
            x.new_full((4,), 1.5) * x,
            x.new_tensor([1.0, 0.0, 2.0, 1.0]) * x,
        ),
        (3, 4),
    ),
    "positions": case(
        lambda x: torch.stack(
            [(x * torch.arange(4)).sin(), (x * torch.arange(4)).cos()], -1
        ).flatten(-2),
        (3, 4),
    ),
    "causal mask": case(
        lambda x: x.masked_fill(
            torch.arange(4)[None] > torch.arange(4)[:, None], -torch.inf
        ).softmax(-1),
        (4, 4),
    ),
    "size one axes": case(
        lambda x: (x.flip(0).roll(1, 1).repeat(1, 2), x[:, ::2], x.tril()), (1, 1)
    ),
    "no elements": case(
        lambda x: (torch.cat([x, x]).sum(0), x.flip(0).sum(), F.pad(x, (1, 1)).sum()), (0, 3)
    ),
}
