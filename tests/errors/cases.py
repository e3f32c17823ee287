"""The catalogue: all mistakes, in the order of docs/errors.md."""

from __future__ import annotations

from typing import Final

from tests.errors import (
    argument_mistakes,
    batch_mistakes,
    data_mistakes,
    fit_mistakes,
    model_mistakes,
    profile_mistakes,
    trainer_mistakes,
)
from tests.errors.mistake import Mistake

CASES: Final[tuple[Mistake, ...]] = (
    *model_mistakes.mistakes,
    *batch_mistakes.mistakes,
    *argument_mistakes.mistakes,
    *trainer_mistakes.mistakes,
    *fit_mistakes.mistakes,
    *data_mistakes.mistakes,
    *profile_mistakes.mistakes,
)
