"""How gradients become steps, besides the optimizer: clipping, accumulation, averaged weights."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pockengine.checks import is_number, is_whole
from pockengine.errors import InputError

EMA = "ema"
ACCUMULATED = "accumulated"
COUNT = f"{ACCUMULATED}.count"
FIRST_ROUND, LAST_ROUND = "micro_batch.first", "micro_batch.last"
"""Constants, an element for each round of a step: 1 where it is the first, or the last."""
ROUNDS_LOSS = "micro_batch.loss"


@dataclass(frozen=True, slots=True)
class Clip:
    """A limit on the gradients of what is updated; give one of the three.

    Clipping by value or by each parameter's norm works as the gradient is made. The global norm
    needs all gradients before the first update, so they all stay in memory until then.

    Args:
        value: of each element, as ``torch.nn.utils.clip_grad_value_``.
        norm: of each parameter's 2-norm, as ``clip_grad_norm_`` of each alone.
        global_norm: of the 2-norm of all gradients together, as ``clip_grad_norm_`` of all.

    Raises:
        InputError: none or several of them, or a number that is not above 0 and finite.
    """

    value: float | None = None
    norm: float | None = None
    global_norm: float | None = None

    def __post_init__(self) -> None:
        limits = {"value": self.value, "norm": self.norm, "global_norm": self.global_norm}
        given = [name for name, limit in limits.items() if limit is not None]
        if len(given) != 1:
            raise _bad("Clip", ", ".join(given) or "no limit", "one limit", "Clip(global_norm=1.0)")
        _check_positive(f"Clip({given[0]})", limits[given[0]])


@dataclass(frozen=True, slots=True)
class Accumulate:
    """One update for several batches; every gradient has an accumulator in the state.

    Args:
        steps: batches for each update, at least 2.
        mean: update by the mean of their gradients, else by their sum.

    Raises:
        InputError: fewer than 2 steps, or no whole number.
    """

    steps: int
    mean: bool = True

    def __post_init__(self) -> None:
        if not is_whole(self.steps) or self.steps < 2:
            raise _bad(
                "Accumulate(steps)", repr(self.steps), "a whole number from 2 on", "Accumulate(4)"
            )


@dataclass(frozen=True, slots=True)
class Modes:
    """All that a training step does besides the optimizer.

    Args:
        clip: a limit on gradients.
        accumulate: one update for several batches.
        ema: decay of an exponential moving average of the parameters, beside them.
        micro_batches: equal parts of a batch that run one after the other.

    Raises:
        InputError: an average's decay outside (0, 1), no whole number of micro-batches, or several
            with ``accumulate``.
    """

    clip: Clip | None = None
    accumulate: Accumulate | None = None
    ema: float | None = None
    micro_batches: int = 1

    def __post_init__(self) -> None:
        if self.ema is not None:
            _check_positive("compile(ema)", self.ema, below=1.0)
        if not is_whole(self.micro_batches) or self.micro_batches < 1:
            found = repr(self.micro_batches)
            raise _bad("compile(micro_batches=...)", found, "a whole number from 1 on", "4")
        if self.micro_batches > 1 and self.accumulate is not None:
            raise InputError(
                where="compile(micro_batches=...)",
                found="accumulate as well",
                needed="one of the two: both add up gradients",
                remedy="Keep accumulate to update once in several batches, or micro_batches to "
                "take one batch apart",
            )

    def micro_batch_flags(self) -> dict[str, Tensor]:
        """Contents of the constants that say which round of a step this is."""
        first, last = torch.zeros(2, self.micro_batches)
        first[0] = last[-1] = 1
        return {FIRST_ROUND: first, LAST_ROUND: last}


def modes(
    clip: Clip | None, accumulate: int | Accumulate, ema: float | None, micro_batches: int = 1
) -> Modes:
    """The modes that the arguments of ``compile`` mean.

    Raises:
        InputError: an argument that means none.
    """
    if clip is not None and not isinstance(clip, Clip):
        raise _bad("compile(clip)", repr(clip), "a pe.Clip", "Clip(global_norm=1.0)")
    if isinstance(accumulate, Accumulate):
        return Modes(clip, accumulate, ema, micro_batches)
    once = accumulate == 1 and not isinstance(accumulate, bool)
    return Modes(clip, None if once else Accumulate(accumulate), ema, micro_batches)


def ema_name(parameter: str) -> str:
    """The canonical name of a parameter's average."""
    return f"{EMA}.{parameter}"


def accumulator_name(parameter: str) -> str:
    """The canonical name of what a parameter's gradients add up in."""
    return f"{ACCUMULATED}.grad.{parameter}"


def is_accumulator(name: str) -> bool:
    """Whether a state's canonical name is that of what gradients add up in."""
    return name.startswith(accumulator_name(""))


def _check_positive(where: str, value: object, below: float = float("inf")) -> None:
    if not is_number(value) or not 0 < value < below:
        limit = "" if below == float("inf") else f" and below {below:g}"
        raise _bad(where, repr(value), f"a number above 0{limit}", "0.5")


def _bad(where: str, found: str, needed: str, remedy: str) -> InputError:
    return InputError(where=where, found=found, needed=needed, remedy=f"Give {remedy}, for example")
