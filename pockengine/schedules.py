"""Learning-rate schedules: plain functions from a step, counted from 0, to a learning rate.

schedule = pe.schedules.warmup(100, pe.schedules.cosine(1e-3, 2000))
for step, (x, y) in enumerate(batches):
    trainer.step(x, y, lr=schedule(step))
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from math import cos, pi
from typing import TypeAlias

from pockengine.checks import is_number, is_whole
from pockengine.errors import InputError

Schedule: TypeAlias = Callable[[int], float]


def constant(lr: float) -> Schedule:
    """The same at every step."""
    _check_rate("constant(lr)", lr)
    return lambda step: lr  # noqa: ARG005 - the step is what every schedule is called with


def linear(start: float, end: float, steps: int) -> Schedule:
    """From one rate at step 0 to another at ``steps``, and that from then on."""
    _check_rate("linear(start)", start)
    _check_rate("linear(end)", end)
    _check_steps("linear(steps)", steps)
    return lambda step: start + (end - start) * min(step / steps, 1.0)


def cosine(lr: float, steps: int, end: float = 0.0) -> Schedule:
    """Half a cosine from ``lr`` at step 0 to ``end`` at ``steps``, and that from then on.

    ``torch.optim.lr_scheduler.CosineAnnealingLR(T_max=steps, eta_min=end)`` up to ``steps``.
    """
    _check_rate("cosine(lr)", lr)
    _check_rate("cosine(end)", end)
    _check_steps("cosine(steps)", steps)
    return lambda step: end + (lr - end) * (1 + cos(pi * min(step / steps, 1.0))) / 2


def step(lr: float, every: int, factor: float = 0.1) -> Schedule:
    """Multiplied by a factor after every so many steps: ``StepLR(step_size=every)``."""
    _check_rate("step(lr)", lr)
    _check_rate("step(factor)", factor)
    _check_steps("step(every)", every)
    return lambda now: float(lr * factor ** (now // every))


def warmup(steps: int, then: Schedule) -> Schedule:
    """A linear rise to the first rate of another schedule, which follows.

    Step 0 has the rate ``then(0) / (steps + 1)``, step ``steps`` has ``then(0)``.
    """
    _check_steps("warmup(steps)", steps)
    _check_schedule("warmup(then)", then)
    top = then(0)
    return lambda now: top * (now + 1) / (steps + 1) if now < steps else then(now - steps)


def chain(*parts: tuple[int, Schedule], then: Schedule) -> Schedule:
    """Schedules one after the other, each for so many steps and counted from its own 0.

    Args:
        parts: (steps, schedule) of each but the last.
        then: the last.
    """
    for part in parts:
        if not isinstance(part, tuple) or len(part) != 2:
            raise _bad("chain(parts)", part, "pairs (steps, schedule)", "Say how long each holds")
        _check_steps("chain(steps)", part[0])
        _check_schedule("chain(schedule)", part[1])
    _check_schedule("chain(then)", then)
    ends = [0]
    for count, _ in parts:
        ends.append(ends[-1] + count)

    def rate(now: int) -> float:
        for (begin, end), (_, schedule) in zip(pairwise(ends), parts, strict=True):
            if now < end:
                return schedule(now - begin)
        return then(now - ends[-1])

    return rate


def _check_rate(where: str, value: float) -> None:
    if not is_number(value) or value < 0:
        raise _bad(where, value, "a number of at least 0", "Give such a number: 1e-3, for example")


def _check_steps(where: str, value: int) -> None:
    if not is_whole(value) or value < 1:
        raise _bad(where, value, "a whole number of at least 1", "Count steps, not epochs")


def _check_schedule(where: str, value: object) -> None:
    if not callable(value):
        raise _bad(where, value, "a schedule", "Give schedules.constant(1e-3), for example")


def _bad(where: str, found: object, needed: str, remedy: str) -> InputError:
    shown = getattr(found, "__name__", None) or repr(found)
    return InputError(where=f"schedules.{where}", found=shown, needed=needed, remedy=remedy)
