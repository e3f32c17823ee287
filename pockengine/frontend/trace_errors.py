"""Why a model cannot be traced, as one error that a user can act on."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator

from torch import nn
from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException
from torch.fx.experimental.symbolic_shapes import GuardOnDataDependentSymNode

from pockengine.errors import CaptureError
from pockengine.frontend.places import line_of_error


def trace_error(model: nn.Module, error: Exception) -> CaptureError:
    """The error of tracing a model, said with the user's line.

    Args:
        model: what was traced.
        error: what PyTorch raised.
    """
    line = line_of_error(error.__traceback__)
    where = f"capture of {type(model).__name__}" + (f" ({line})" if line else "")
    chain = _chain(error)
    if any(
        isinstance(e, (DataDependentOutputException, GuardOnDataDependentSymNode)) for e in chain
    ):
        return CaptureError(
            where=where,
            found="control flow that depends on values: a number is taken out of a tensor",
            needed="a program that is the same for all values",
            remedy="Choose with torch.where instead of `if`, and leave `.item()` out",
        )
    if any(isinstance(e, DynamicOutputShapeException) for e in chain):
        return CaptureError(
            where=where,
            found="a result whose shape depends on values (a mask as index, nonzero, unique)",
            needed="shapes that are the same for all values",
            remedy="Keep all elements and choose with torch.where or a multiplication by the mask",
        )
    if any("must implement either the backward" in str(e) for e in chain):
        return CaptureError(
            where=where,
            found="an autograd.Function without a backward",
            needed="a formula for its gradient",
            remedy="Give it a static `backward` that is written in PyTorch's ops",
        )
    if any("numpy" in str(e) or "data pointer" in str(e) or "_numpy" in str(e) for e in chain):
        return CaptureError(
            where=where,
            found="code outside of PyTorch reads a tensor's values",
            needed="PyTorch's ops only, in the forward and in each autograd.Function's backward",
            remedy="Write that line with PyTorch's ops",
        )
    first = next(iter(str(error).strip().splitlines()), "")
    return CaptureError(
        where=where,
        found=f"{type(error).__name__}: {first}",
        needed="a model and a loss that run on the example batch, and that torch.export can trace",
        remedy="Run loss(model(x), y).backward() in PyTorch with the example batch first",
    )


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """PyTorch logs no traceback of an op that fails inside: the error that is raised says it."""
    logger = logging.getLogger("torch._subclasses.fake_tensor")
    disabled, logger.disabled = logger.disabled, True
    try:
        yield
    finally:
        logger.disabled = disabled


def _chain(error: BaseException | None) -> list[BaseException]:
    """An error and what it comes from."""
    found: list[BaseException] = []
    while error is not None and error not in found:
        found.append(error)
        error = error.__cause__ or error.__context__
    return found
