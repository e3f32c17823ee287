"""Functions that are said by others ahead of autograd, so that their gradients are known too.

PyTorch has kernels of its own for both passes of these, or looks at values on the way.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from math import log, pi
from typing import Any
from unittest import mock

import torch
import torch.nn.functional as F  # noqa: N812 - the name everybody knows
from torch import Tensor
from torch._decomp.decompositions import grid_sampler_2d
from torch.distributions import Distribution
from torch.nn.modules import transformer
from torch.overrides import TorchFunctionMode

from pockengine.frontend.packed import refuse_packing

_NEVER = -1e30  # the logarithm of what cannot be: minus infinity would make its gradients NaN
_FEW_ROWS = 25  # up to which PyTorch takes differences, and a product of matrices for more
_MODES = {"bilinear": 0, "nearest": 1, "bicubic": 2}
_PADDINGS = {"zeros": 0, "border": 1, "reflection": 2}


class Composed(TorchFunctionMode):
    """Calls the functions of this file in place of PyTorch's."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Call a function of torch or what is said for it."""
        del types
        return _COMPOSED.get(func, func)(*args, **(kwargs or {}))


@contextlib.contextmanager
def values_unread() -> Iterator[None]:
    """Inside, PyTorch does not look at the values of masks and of distributions' parameters.

    A mask given to a transformer's layer is a mask then, causal or not, which changes the kernel
    PyTorch takes and no number.
    """

    def told(mask: Tensor | None, is_causal: bool | None = None, size: int | None = None) -> bool:
        del mask, size
        return is_causal is True

    with (
        mock.patch.object(transformer, "_detect_is_causal_mask", told),
        mock.patch.object(Distribution, "_validate_args", new=False),
    ):
        yield


def _embedding_bag(  # noqa: PLR0913, PLR0917
    input: Tensor,  # noqa: A002 - PyTorch's names of the arguments of all of these
    weight: Tensor,
    offsets: Tensor | None = None,
    max_norm: float | None = None,
    norm_type: float = 2,
    scale_grad_by_freq: bool = False,
    mode: str = "mean",
    sparse: bool = False,
    per_sample_weights: Tensor | None = None,
    include_last_offset: bool = False,
    padding_idx: int | None = None,
) -> Tensor:
    """Rows of a table reduced by bag: ``torch.nn.functional.embedding_bag``."""
    rows = F.embedding(input, weight, padding_idx, max_norm, norm_type, scale_grad_by_freq, sparse)
    if padding_idx is None:
        counted = torch.ones_like(input, dtype=weight.dtype)
    else:
        counted = (input != padding_idx % weight.shape[0]).to(weight.dtype)
    if offsets is None:
        bags, shape = torch.arange(input.shape[0])[:, None].expand(input.shape), input.shape
        count = shape[0]
    else:
        count = offsets.shape[0] - include_last_offset
        places = torch.arange(input.shape[0])
        bags = (places[:, None] >= offsets[None, :count]).sum(1) - 1
    width = weight.shape[1]
    if mode == "max":
        table = weight.new_full((count, width), -torch.inf)
        seen = torch.where(counted[..., None] > 0, rows, -torch.inf).reshape(-1, width)
        found = table.scatter_reduce(0, bags.reshape(-1, 1).expand(-1, width), seen, "amax")
        return torch.where(found.isneginf(), 0.0, found)
    share = counted if per_sample_weights is None else counted * per_sample_weights
    if offsets is None:
        total, number = (rows * share[..., None]).sum(1), counted.sum(1)
    else:
        total = weight.new_zeros(count, width).index_add(0, bags, rows * share[..., None])
        number = weight.new_zeros(count).index_add(0, bags, counted)
    return total if mode == "sum" else total / number.clamp(min=1)[:, None]


def _grid_sample(
    input: Tensor,  # noqa: A002
    grid: Tensor,
    mode: str = "bilinear",
    padding_mode: str = "zeros",
    align_corners: bool | None = None,
) -> Tensor:
    """Pictures read at places of a grid: ``torch.nn.functional.grid_sample``."""
    if input.dim() != 4 or mode not in _MODES or padding_mode not in _PADDINGS:
        return F.grid_sample(input, grid, mode, padding_mode, align_corners)
    how, border = _MODES[mode], _PADDINGS[padding_mode]
    found: Tensor = grid_sampler_2d(input, grid, how, border, bool(align_corners))
    return found


def _gaussian_nll_loss(
    input: Tensor,  # noqa: A002
    target: Tensor,
    var: Tensor | float,
    full: bool = False,
    eps: float = 1e-6,
    reduction: str = "mean",
) -> Tensor:
    """``torch.nn.functional.gaussian_nll_loss`` without its look for negative variances."""
    if not isinstance(var, Tensor):
        var = torch.full_like(input, var)
    if var.shape != input.shape and input.shape[:-1] == var.shape:
        var = var.unsqueeze(-1)
    clamped = var + (var.clamp(min=eps) - var).detach()
    loss = 0.5 * (clamped.log() + (input - target) ** 2 / clamped)
    if full:
        loss = loss + 0.5 * log(2 * pi)
    return _reduced(loss, reduction)


def _ctc_loss(
    log_probs: Tensor,
    targets: Tensor,
    input_lengths: Tensor | Sequence[int],
    target_lengths: Tensor | Sequence[int],
    blank: int = 0,
    reduction: str = "mean",
    zero_infinity: bool = False,
) -> Tensor:
    """``torch.nn.functional.ctc_loss`` of padded targets (N, S), by its forward variables.

    Source: Graves et al., "Connectionist Temporal Classification" (ICML 2006), section 4.1.
    """
    alone = log_probs.dim() == 2
    if alone:
        log_probs, targets = log_probs[:, None], targets.reshape(1, -1)
    inputs, labels = (torch.as_tensor(n).reshape(-1) for n in (input_lengths, target_lengths))
    samples = log_probs.shape[1]
    if targets.dim() == 1:
        targets = _padded(targets, labels)
    blanks = torch.full((samples, targets.shape[1] + 1), blank)
    states = torch.stack((blanks[:, :-1], targets.to(torch.int64)), 2).flatten(1)
    states = torch.cat((states, blanks[:, -1:]), 1)
    count = states.shape[1]
    emitted = log_probs.gather(2, states[None].expand(log_probs.shape[0], -1, -1))
    skips = F.pad((states[:, 2:] != states[:, :-2]) & (states[:, 2:] != blank), (2, 0))
    alpha = torch.where(torch.arange(count) < 2, emitted[0], _NEVER)
    for time in range(1, log_probs.shape[0]):
        one = F.pad(alpha, (1, 0), value=_NEVER)[:, :count]
        two = torch.where(skips, F.pad(alpha, (2, 0), value=_NEVER)[:, :count], _NEVER)
        now = torch.logsumexp(torch.stack((alpha, one, two)), 0) + emitted[time]
        alpha = torch.where((time < inputs)[:, None], now, alpha)
    ends = torch.stack((2 * labels, (2 * labels - 1).clamp(min=0)), 1)
    last, before = alpha.gather(1, ends).unbind(1)
    loss = -torch.logaddexp(last, torch.where(labels > 0, before, _NEVER))
    impossible = loss > -_NEVER / 2
    loss = torch.where(impossible, 0.0 if zero_infinity else torch.inf, loss)
    if reduction == "mean":
        loss = loss / labels.clamp(min=1)
    return loss[0] if alone and reduction == "none" else _reduced(loss, reduction)


def _cdist(
    x1: Tensor,
    x2: Tensor,
    p: float = 2.0,
    compute_mode: str = "use_mm_for_euclid_dist_if_necessary",
) -> Tensor:
    """Distances between all rows of two matrices: ``torch.cdist``, gradient 0 where they are 0."""
    many = max(x1.shape[-2], x2.shape[-2]) > _FEW_ROWS and not compute_mode.startswith("donot")
    if p != 2 or not (many or compute_mode == "use_mm_for_euclid_dist"):
        found: Tensor = torch.linalg.vector_norm(x1.unsqueeze(-2) - x2.unsqueeze(-3), p, dim=-1)
        return found
    squares = x1.square().sum(-1)[..., :, None] + x2.square().sum(-1)[..., None, :]
    squares = squares - 2 * (x1 @ x2.mT)
    apart = ~(squares <= 0)  # NaN is no distance of 0
    return torch.where(apart, torch.where(apart, squares, 1.0).sqrt(), 0.0)


def _pdist(input: Tensor, p: float = 2.0) -> Tensor:  # noqa: A002
    """Distances between the rows of a matrix, each pair once: ``torch.pdist``."""
    first, second = torch.triu_indices(input.shape[0], input.shape[0], 1)
    found: Tensor = torch.linalg.vector_norm(input[first] - input[second], p, dim=-1)
    return found


def _covariance(
    input: Tensor,  # noqa: A002
    *,
    correction: int = 1,
    fweights: Tensor | None = None,
    aweights: Tensor | None = None,
) -> Tensor:
    """``torch.cov`` of rows that are variables, without its look at the weights' values."""
    if fweights is not None or aweights is not None:
        return torch.cov(input, correction=correction, fweights=fweights, aweights=aweights)
    rows = input.reshape(-1, input.shape[-1]) if input.dim() < 2 else input
    centred = rows - rows.mean(1, keepdim=True)
    found = centred @ centred.mT / max(rows.shape[1] - correction, 0)
    return found.squeeze() if input.dim() < 2 else found


def _correlation(input: Tensor) -> Tensor:  # noqa: A002
    """``torch.corrcoef`` of rows that are variables."""
    found = _covariance(input)
    if input.dim() < 2:
        return found / found
    spread = found.diagonal().sqrt()
    return (found / spread[:, None] / spread).clamp(-1, 1)


def _masked_scatter(input: Tensor, mask: Tensor, source: Tensor) -> Tensor:  # noqa: A002
    """Elements of a source, in their order, where a mask is true: ``torch.masked_scatter``."""
    shape = torch.broadcast_shapes(input.shape, mask.shape)  # type: ignore[no-untyped-call]
    whole, chosen = input.expand(shape), mask.expand(shape)
    number = (chosen.reshape(-1).cumsum(0) - 1).clamp(min=0, max=source.numel() - 1)
    return torch.where(chosen, source.reshape(-1)[number].reshape(chosen.shape), whole)


def _masked_scatter_(input: Tensor, mask: Tensor, source: Tensor) -> Tensor:  # noqa: A002
    return input.copy_(_masked_scatter(input, mask, source))


def _rrelu(
    input: Tensor,  # noqa: A002
    lower: float = 1 / 8,
    upper: float = 1 / 3,
    training: bool = False,
    inplace: bool = False,
) -> Tensor:
    """``torch.nn.functional.rrelu``: in train mode a random slope below 0."""
    if not training:
        return F.rrelu(input, lower, upper, training, inplace)
    slope = torch.rand_like(input) * (upper - lower) + lower
    found = torch.where(input > 0, input, input * slope)
    return input.copy_(found) if inplace else found


def _bilinear(input1: Tensor, input2: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``torch.nn.functional.bilinear`` as a matrix product and a product by sample."""
    outputs, first, second = weight.shape
    rows = input1 @ weight.permute(1, 0, 2).reshape(first, outputs * second)
    by_output = rows.reshape(*input1.shape[:-1], outputs, second)
    found: Tensor = (by_output @ input2[..., None]).squeeze(-1)
    return found if bias is None else found + bias


def _padded(targets: Tensor, lengths: Tensor) -> Tensor:
    """Targets one behind the other as rows; what lies behind the end of a row is not read."""
    ends = lengths.cumsum(0)
    places = (ends - lengths)[:, None] + torch.arange(targets.shape[0])
    return targets[places.clamp(max=targets.shape[0] - 1)]


def _reduced(loss: Tensor, reduction: str) -> Tensor:
    return loss.mean() if reduction == "mean" else loss.sum() if reduction == "sum" else loss


_COMPOSED: dict[Callable[..., Any], Callable[..., Any]] = {
    F.embedding_bag: _embedding_bag,
    F.grid_sample: _grid_sample,
    F.gaussian_nll_loss: _gaussian_nll_loss,
    F.ctc_loss: _ctc_loss,
    F.bilinear: _bilinear,
    F.rrelu: _rrelu,
    torch._VF._pack_padded_sequence: refuse_packing,  # noqa: SLF001
    torch.cdist: _cdist,
    torch.pdist: _pdist,
    torch.cov: _covariance,
    torch.corrcoef: _correlation,
    torch.masked_scatter: _masked_scatter,
    Tensor.masked_scatter: _masked_scatter,
    Tensor.masked_scatter_: _masked_scatter_,
}
