"""Reductions, scans, sorting and normalizing functions: one row a case."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812 - the name everybody knows

from tests.vocabulary.harness import Case, case

_SHAPE = (3, 4, 7)
_INTS = torch.tensor([[3, -4, 0, 7, -1, 2, 5], [1, 2, -2, 9, 4, -9, 0], [1, 1, 1, 3, 3, 1, 2]])
_BOOLS = _INTS > 0
_TIED = torch.tensor(
    [[1.0, 3.0, 3.0, -2.0, 1.0], [0.5, 0.5, 0.5, 0.5, 0.5], [2.0, 1.0, 0, 2.0, 2.0]]
)

REDUCTIONS: dict[str, Case] = {
    "sum": case(lambda x: (x.sum(), x.sum(0), x.sum((0, 2)), x.sum(-1, keepdim=True)), _SHAPE),
    "mean": case(lambda x: (x.mean(), x.mean(1), x.mean((1, 2), keepdim=True)), _SHAPE),
    "sum of integers": case(lambda a: (a.sum(), a.sum(0), a.sum(-1), a.float().mean()), _INTS),
    "sum of bools": case(lambda a: (a.sum(), a.sum(0), a.sum(-1), a.count_nonzero()), _BOOLS),
    "var": case(lambda x: (x.var(), x.var(1), x.var((0, 2), correction=0, keepdim=True)), _SHAPE),
    "std": case(lambda x: (x.std(), x.std(-1), x.std(1, correction=2)), _SHAPE),
    "var_mean": case(lambda x: torch.var_mean(x, 1), _SHAPE),
    "std_mean": case(lambda x: torch.std_mean(x, 1), _SHAPE),
    "var of one": case(lambda x: torch.var(x, -1, correction=0), (3, 1)),
    "prod": case(lambda x: (x.prod(), x.prod(-1), x.prod(0, keepdim=True)), (3, 5)),
    "amax": case(lambda x: (x.amax(), x.amax(1), x.amax((0, 2))), _SHAPE),
    "amin": case(lambda x: (x.amin(), x.amin(1), x.amin((0, 2))), _SHAPE),
    "amax of ties": case(lambda x: (x.amax(1), x.amin(0), x.max(), x.min()), _TIED),
    "aminmax": case(lambda x: torch.aminmax(x, dim=1), _SHAPE),
    "max": case(lambda x: (x.max(), x.min()), _SHAPE),
    "max of an axis": case(lambda x: (*x.max(1), *x.max(-1, keepdim=True)), _SHAPE),
    "min of an axis": case(lambda x: (*x.min(0), *x.min(-1, keepdim=True)), _SHAPE),
    "max of ties": case(lambda x: (*x.max(1), *x.min(1)), _TIED),
    "max of integers": case(lambda a: (*a.max(1), a.amax(0), a.max(), a.min()), _INTS),
    "max of bools": case(lambda a: (a.amax(0), a.any(1), a.all(1)), _BOOLS),
    "argmax": case(lambda x: (x.argmax(), x.argmax(1), x.argmin(-1, keepdim=True)), _SHAPE),
    "argmin of ties": case(lambda x: (x.argmin(1), x.argmax(1), x.argmax(0)), _TIED),
    "median": case(lambda x: (*x.median(1), x.median()), (3, 5)),
    "median of nothing": case(lambda x: torch.nan_to_num(x.median(), 0.5), (0, 3)),
    "any": case(lambda x: ((x > 1).any(), (x > 0).any(1), (x > 2).any(-1, keepdim=True)), _SHAPE),
    "all": case(lambda x: ((x > -9).all(), (x > -1).all(1), (x > -2).all(-1)), _SHAPE),
    "any of numbers": case(lambda a: (a.any(), a.any(0), a.all(1), a.all()), _INTS),
    "cumsum": case(lambda x: (x.cumsum(0), x.cumsum(1), x.cumsum(-1)), _SHAPE),
    "cumsum of integers": case(
        lambda a: (a.cumsum(1), a.bool().cumsum(-1), a.ne(1).int().cumsum(1)), _INTS
    ),
    "cumprod": case(lambda x: x.cumprod(-1), (3, 5)),
    "logsumexp": case(lambda x: (x.logsumexp(1), x.logsumexp((0, 2), keepdim=True)), _SHAPE),
    "norm": case(lambda x: (x.norm(), x.norm(dim=1), x.norm(1, -1), x.norm(torch.inf, -1)), _SHAPE),
    "vector_norm": case(
        lambda x: tuple(
            torch.linalg.vector_norm(x, p, -1) for p in (1, 2, 3, 0, torch.inf, -torch.inf)
        ),
        _SHAPE,
    ),
    "matrix norm": case(torch.linalg.norm, (3, 5)),
    "norm of zeros": case(lambda x: (x * 0).norm(dim=-1), (3, 5)),
    "normalize": case(lambda x: (F.normalize(x, dim=1), F.normalize(x, 1.0, -1)), _SHAPE),
    "renorm by hand": case(lambda x: x / x.norm(dim=-1, keepdim=True).clamp(min=1.0), _SHAPE),
    "norm of gated parts": case(
        lambda x, y: F.rms_norm((y.flatten(-2) * F.silu(x[..., :12])).reshape(2, 5, 1, 12), (12,)),
        (2, 5, 20),
        (2, 5, 3, 4),
    ),
    "softmax": case(lambda x: (x.softmax(0), x.softmax(1), x.softmax(2)), _SHAPE),
    "log_softmax": case(lambda x: (x.log_softmax(0), x.log_softmax(1), x.log_softmax(2)), _SHAPE),
    "softmax with -inf": case(
        lambda x: x.masked_fill(
            torch.tensor([True, False, False, True, False]), -torch.inf
        ).softmax(-1),
        (3, 5),
    ),
    "softmax of a scalar": case(lambda x: x.softmax(0), ()),
    "reductions of a scalar": case(lambda x: (x.sum(), x.mean(), x.max(), x.argmax()), ()),
    "reductions of one": case(lambda x: (x.sum(1), x.amax(1), x.argmax(1), x.logsumexp(1)), (3, 1)),
    "sum of nothing": case(
        lambda x: (x.sum(), x.sum(1), x.sum(0), (x > 0).all(), (x > 0).any()), (0, 3)
    ),
    "sort": case(lambda x: (*x.sort(-1), *x.sort(0, descending=True)), (5, 9)),
    "sort of ties": case(lambda x: torch.sort(x, dim=1, stable=True), _TIED),
    "sort of integers": case(lambda a: torch.sort(a, dim=1, stable=True), _INTS),
    "argsort": case(lambda x: (x.argsort(-1), x.argsort(0, descending=True)), (5, 9)),
    "topk": case(lambda x: (*x.topk(3), *x.topk(2, 0), *x.topk(2, largest=False)), (5, 9)),
    "topk of one": case(lambda x: x.topk(1, -1), (5, 9)),
    "smallest one": case(lambda x: x.topk(1, -1, largest=False)[0], (5, 9)),
    "kthvalue": case(lambda x: x.kthvalue(2, -1), (5, 9)),
    "diff": case(lambda x: x.diff(dim=1), _SHAPE),
    "trace": case(lambda x: x.trace(), (4, 4)),
    "einsum": case(lambda x, y: torch.einsum("bij,jk->bki", x, y), _SHAPE, (7, 5)),
    "tensordot": case(lambda x, y: torch.tensordot(x, y, ([1, 2], [0, 1])), _SHAPE, (4, 7, 2)),
    "outer": case(lambda x, y: (torch.outer(x, y), torch.dot(x, x)), (4,), (5,)),
    "mv": case(lambda x, y: (x @ y, y @ x.t()), (4, 3), (3,)),
    "bmm of bigger": case(lambda x, y: (x @ y, y.transpose(-1, -2) @ y), (4, 3), (2, 3, 5)),
    "layer_norm": case(lambda x, w, b: F.layer_norm(x, (4, 7), w, b), _SHAPE, (4, 7), (4, 7)),
    "group_norm": case(lambda x, w: F.group_norm(x, 2, w), (3, 4, 7), (4,)),
    "group_norm of nothing": case(lambda x, w: F.group_norm(x, 2, w) + w.sum(), (0, 4, 7), (4,)),
    "rms_norm": case(lambda x, w: F.rms_norm(x, (7,), w), _SHAPE, (7,)),
    "cross_entropy": case(
        lambda x, a: (
            F.cross_entropy(x, a),
            F.cross_entropy(x, a, reduction="none", label_smoothing=0.1),
            F.nll_loss(x.log_softmax(-1), a, ignore_index=1),
        ),
        (3, 4),
        torch.tensor([1, 0, 3]),
    ),
}
