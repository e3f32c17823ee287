"""From outcomes of trials to gains."""

from __future__ import annotations

import numpy as np
import pytest

from pockengine.contribution.summary import luck
from pockengine.contribution.trial import Outcome


def outcome(seed: int, *curve: tuple[int, float]) -> Outcome:
    """A trial by the accuracies that were measured on its way."""
    return Outcome(seed=seed, curve=curve, correct=np.zeros(1, np.float32), seconds=0.0)


BASE = {seed: outcome(seed, (2, 0.5), (8, 0.5)) for seed in range(2)}


def test_seeds_that_chose_tell_too_much() -> None:
    """Gains are 0.2 and 0.1 by the seed that was measured early, 0.05 and 0.01 by the other."""
    ours = [
        {0: outcome(0, (2, 0.6), (8, 0.7)), 1: outcome(1, (8, 0.55))},
        {0: outcome(0, (2, 0.6), (8, 0.6)), 1: outcome(1, (8, 0.51))},
    ]
    assert luck([(each, BASE) for each in ours]) == pytest.approx(0.09 - 0.03)


def test_nothing_is_known_of_luck_without_other_seeds() -> None:
    """Where all seeds were measured early, or none was."""
    early = {seed: outcome(seed, (2, 0.6), (8, 0.9)) for seed in range(2)}
    late = {seed: outcome(seed, (8, 0.9)) for seed in range(2)}
    assert luck([(early, BASE)]) == luck([(late, BASE)]) == luck([]) == 0.0
