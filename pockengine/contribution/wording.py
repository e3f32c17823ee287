"""Figures and names of a report in words: rounded as far as they mean something."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from math import isfinite

from pockengine.contribution.choice import Choice
from pockengine.contribution.layers import Layer
from pockengine.contribution.measured import ALL_WEIGHTS, Gain, Sensitivity
from pockengine.contribution.saturation import ADDITIVE

NOTHING = "\N{EN DASH}"
"""Stands for what was not measured."""

MINUS = "\N{MINUS SIGN}"
_SPACE = "\N{NO-BREAK SPACE}"
_TIMES = " \N{MULTIPLICATION SIGN} "


def points(fraction: float) -> str:
    """A gain in percentage points with its sign: ``+2.3``; 0.023 is given."""
    if not isfinite(fraction):
        return NOTHING
    text = f"{100 * fraction:+.1f}"
    return "0.0" if text in ("+0.0", "-0.0") else text.replace("-", MINUS)


def with_interval(gain: Gain) -> str:
    """A gain and its 95 % interval: ``+2.3 (+1.1 to +3.5)``."""
    if not has_interval(gain):
        return points(gain.mean)
    return f"{points(gain.mean)} ({points(gain.low)} to {points(gain.high)})"


def has_interval(gain: Gain) -> bool:
    """Whether there is an interval: where no candidate had several seeds there is none."""
    return gain.seeds > 0 and isfinite(gain.low) and isfinite(gain.high) and gain.low < gain.high


def is_clear(gain: Gain) -> bool:
    """Whether the whole interval is above zero."""
    return has_interval(gain) and gain.low > 0


def of_many(sensitivity: Sensitivity) -> str | None:
    """What is said of weights whose gains do not add up; None where they do."""
    if sensitivity.saturation == ADDITIVE:
        return None
    gained = sensitivity.settings[ALL_WEIGHTS]
    together = points(gained)
    if gained < 0:
        lr = sensitivity.settings["lr"]
        return (
            f"All weights together gained {together} points beside all biases: a learning rate of "
            f"{lr:g} is too high for what trains much. Gains are told better by a profile at the "
            f"best rate of training everything, such as {lr / 4:g}."
        )
    return (
        f"All weights together gained {together} points beside all biases, less than their sum: "
        "predictions count each further one for less."
    )


def percent(fraction: float) -> str:
    """An accuracy: ``61.2 %``."""
    return f"{100 * fraction:.1f}{_SPACE}%" if isfinite(fraction) else NOTHING


def correlation(value: float) -> str:
    """A coefficient of correlation: ``0.68``."""
    return f"{value:.2f}".replace("-", MINUS) if isfinite(value) else NOTHING


def part(ratio: float) -> str:
    """A part of a weight: ``1/8``, ``whole``, or ``30 %``."""
    simple = Fraction(ratio).limit_denominator(64)
    if simple == 1:
        return "whole"
    if simple and abs(simple - Fraction(ratio)) < 1e-6:
        return str(simple)
    return f"{100 * ratio:.3g}{_SPACE}%"


def of_weight(ratio: float) -> str:
    """A part of a weight within a sentence: ``1/8 of the weight``."""
    return "the whole weight" if part(ratio) == "whole" else f"{part(ratio)} of the weight"


def bytes_text(count: float) -> str:
    """A size with three digits: ``1.25 MiB``."""
    size, unit = byte_unit(count)
    text = f"{count:.0f}" if size == 1 else _three(count / size)
    return f"{text}{_SPACE}{unit}"


def byte_unit(most: float) -> tuple[int, str]:
    """The largest unit that is no larger than a size: its bytes and its name."""
    units = ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB"))
    return next((unit for unit in units if abs(most) >= unit[0]), (1, "B"))


def ms_text(milliseconds: float | None) -> str:
    """A time: ``12.3 ms``."""
    return NOTHING if milliseconds is None else f"{_three(milliseconds)}{_SPACE}ms"


def joules_text(joules: float | None) -> str:
    """An energy: ``4.5 mJ``."""
    if joules is None:
        return NOTHING
    size, unit = joule_unit(joules)
    return f"{_three(joules / size)}{_SPACE}{unit}"


def joule_unit(most: float) -> tuple[float, str]:
    """The largest unit that is no larger than an energy: its joules and its name."""
    units = ((1.0, "J"), (1e-3, "mJ"))
    return next((unit for unit in units if abs(most) >= unit[0]), (1e-6, "µJ"))


def shape_text(shape: Sequence[int]) -> str:
    """The extents of a weight with signs of multiplication between them."""
    return _TIMES.join(map(str, shape))


def shortened(text: str, width: int) -> str:
    """A text without its middle, where it is longer than so many characters."""
    if len(text) <= width:
        return text
    front = (width - 1) // 2
    return f"{text[:front]}…{text[len(text) - (width - 1 - front) :]}"


def counted(count: int, noun: str) -> str:
    """``1 layer``, ``2 layers``, ``2 biases``."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def choice_text(choice: Choice, layers: Sequence[Layer], *, most: int = 4) -> str:
    """What a choice updates, with at most so many weights by name."""
    biases = f"biases of the last {counted(choice.biases, 'layer')}" if choice.biases else ""
    named = [f"{part(ratio)} of {layers[index].name}" for index, ratio in choice.weights.items()]
    more = f"{len(named) - most} more" if len(named) > most else ""
    return ", ".join(filter(None, ["head", biases, *named[:most], more]))


def ratios_of(sensitivity: Sensitivity) -> list[float]:
    """The parts that any weight was tried with."""
    return sorted({ratio for _, ratio in sensitivity.weights})


def all_gains(sensitivity: Sensitivity) -> list[Gain]:
    """All that was compared with something: biases, then weights."""
    return [*sensitivity.biases, *sensitivity.weights.values()]


def most_steps(sensitivity: Sensitivity) -> int:
    """How long candidates were trained that were not stopped early."""
    return max(gain.steps for gain in [sensitivity.baseline, *all_gains(sensitivity)])


def _three(value: float) -> str:
    """Three significant digits, without an exponent where that is short."""
    if value == 0 or 999.5 <= abs(value) < 1e7:
        return f"{value:.0f}"
    return f"{value:#.3g}".removesuffix(".")
