"""A trainer's metrics on a data set."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

from pockengine.errors import InputError, PockEngineError
from pockengine.fit.data import Batches, Pair, Source, source
from pockengine.fit.layout import Layout, samples
from pockengine.fit.metrics import Meter, Metric
from pockengine.fit.trainable import Trainable


class Stopped(Exception):  # noqa: N818 - no error
    """A measurement was asked to end."""


def metrics(
    trainer: Trainable,
    data: Any,
    *,
    metrics: Sequence[Metric] | None,
    batch_size: int | None,
    ema: bool,
) -> dict[str, Any]:
    """Metrics of a data set; ``Trainer.metrics`` says the rest."""
    layout = Layout.of(trainer.program)
    batches = source(data, layout, name="data", batch_size=batch_size, shuffle=False, seed=0)
    return measure(trainer, batches, layout, Meter(metrics, trainer.program.loss), ema=ema)


def measure(
    trainer: Trainable,
    data: Source,
    layout: Layout,
    meter: Meter,
    *,
    name: str = "data",
    ema: bool = False,
    stop: Callable[[], bool] = lambda: False,
) -> dict[str, Any]:
    """Evaluate every batch.

    Args:
        trainer: stays as it is.
        data: the batches.
        layout: of one.
        meter: takes them.
        name: of the data, for messages.
        ema: by the averaged parameters.
        stop: asked ahead of each batch.

    Raises:
        InputError: a batch does not fit, or there is none.
        Stopped: ``stop`` was true.
    """
    index = 0
    batches = data.epoch(0, 0)
    for inputs, targets in batches:
        if stop():
            raise Stopped
        try:
            loss, outputs = trainer.evaluate(inputs, targets, ema=ema)
        except PockEngineError as error:
            left_out(error, (inputs, targets), layout, batches, name, index)
            break
        meter.add(loss, outputs, targets, samples(inputs))
        index += 1
    if index == 0:
        raise no_batch(name)
    return meter.result()


def left_out(
    error: PockEngineError,
    batch: Pair,
    layout: Layout,
    rest: Batches,
    name: str,
    index: int,
    epoch: str = "",
) -> None:
    """Let a smaller last batch pass, with a warning; raise every other error with its place."""
    fewer = 0
    if index and isinstance(error, InputError) and not layout.compiled.partial:
        fewer = _fewer(layout, batch)
    if not fewer or next(rest, None) is not None:
        raise placed(error, f"{name}, batch {index} (counted from 0){epoch}") from error
    warnings.warn(
        f"{name}: the last batch has only {fewer} samples and is left out; "
        "compile(partial=True) takes it",
        stacklevel=2,
    )


def _fewer(layout: Layout, batch: Pair) -> int:
    try:
        return layout.fewer(*batch)
    except InputError:  # another structure
        return 0


def placed(error: PockEngineError, place: str) -> PockEngineError:
    """The same error, which says where it happened."""
    return type(error)(
        where=f"{place}: {error.where}",
        found=error.found,
        needed=error.needed,
        remedy=error.remedy,
    )


def no_batch(name: str) -> InputError:
    """The error for data without a single batch."""
    return InputError(
        where=name,
        found="it gave no whole batch",
        needed="at least one in each epoch",
        remedy="Pass more samples, compile with partial=True or for a smaller batch; what can be "
        "iterated only once serves for one epoch",
    )
