"""One trial: fine-tune a candidate by the compiled trainer and measure it on held-out data."""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pockengine.contribution.build import build
from pockengine.contribution.study import (
    Array,
    Arrays,
    Study,
    arrays_of,
    batches,
    digest,
    load_study,
    of_graph,
)
from pockengine.errors import TrainError
from pockengine.passes.split_frozen import split_frozen
from pockengine.schedules import linear, warmup
from pockengine.scheme import Channels, Scheme
from pockengine.trainer import Trainer

_STATES = "states"


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """What is trained in a trial.

    Args:
        fractions: of each parameter, by canonical name; as ``Scheme``.
        channels: the part of each parameter that is updated in part.
        before: parameters that count as updated where the frozen front ends: with them, candidates
            that begin at one layer read the same front.
        cut: the front's number in the study; -1 for the model's own inputs.
    """

    fractions: tuple[tuple[str, float], ...]
    channels: tuple[tuple[str, Channels], ...]
    before: tuple[str, ...] = ()
    cut: int = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a trial found.

    Args:
        seed: of the head's first values and of the order of the batches.
        curve: (step, accuracy on the test part) wherever it was measured.
        correct: how right each test sample was at the end, (N,) float32.
        seconds: that the steps and the measuring took.
        diverged: whether the loss stopped being finite; the accuracy is 0 from there on.
    """

    seed: int
    curve: tuple[tuple[int, float], ...]
    correct: npt.NDArray[np.float32]
    seconds: float
    diverged: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Course:
    """How far trials go.

    Args:
        stops: after how many steps to measure, rising; a run ends at the last.
        start: where an earlier trial of the same candidate and seed ended; this one goes on from
            what that left in the study's folder, or where it left nothing begins anew.
    """

    stops: tuple[int, ...]
    start: int = 0


def run_trials(
    folder: str, candidate: Candidate, seeds: Sequence[int], course: Course
) -> list[Outcome]:
    """Fine-tune a candidate once for each seed.

    Args:
        folder: of the study.
        candidate: what is updated.
        seeds: one run each.
        course: from where, and how far.
    """
    study = load_study(Path(folder))
    pristine = _trainer(folder, candidate)
    data = {part: _data(Path(folder), study, part, candidate.cut) for part in study.rows}
    (Path(folder) / _STATES).mkdir(exist_ok=True)
    stem = f"{folder}/{_STATES}/{digest(candidate.fractions)}"
    return [_run(study, pristine, data, course, _State(stem, seed)) for seed in seeds]


@dataclass(frozen=True, slots=True)
class _State:
    """Where trainers of a candidate and seed are kept between trials."""

    stem: str
    seed: int

    def at(self, step: int) -> Path:
        """The trainer after so many steps."""
        return Path(f"{self.stem}.{self.seed}.{step}")


@lru_cache(maxsize=2)
def _trainer(folder: str, candidate: Candidate) -> Trainer:
    """A trainer that no step was taken with, for the graph behind the candidate's cut."""
    study = load_study(Path(folder))
    captured = study.captured
    if candidate.cut >= 0:
        updated = {name for name, _ in candidate.fractions}
        split = split_frozen(captured.graph, {*updated, *candidate.before})
        captured = of_graph(captured, split.after, split.inputs)
    return build(
        captured,
        study.optimizer,
        scheme=Scheme(dict(candidate.fractions)),
        channels=dict(candidate.channels),
        named=study.head,
        threads=1,
    )


def _data(folder: Path, study: Study, part: str, cut: int) -> tuple[Arrays, Arrays]:
    place = study.data_beside(folder)
    inputs = arrays_of(place, part, f"cut{cut}", len(study.inputs(cut)))
    return inputs, arrays_of(place, part, "targets", len(study.captured.targets))


def trained_head(folder: str, candidate: Candidate, seed: int) -> dict[str, Tensor]:
    """The head's values after a whole run of a candidate."""
    study = load_study(Path(folder))
    with copy.copy(_trainer(folder, candidate)) as trainer:
        _begin(study, trainer, seed)
        data = _data(Path(folder), study, "train", candidate.cut)
        for _ in _steps(study, trainer, data, seed, 0):
            pass
        found = trainer.state_dict()
    return {name: found[name] for name in study.head}


def _run(
    study: Study,
    pristine: Trainer,
    data: Mapping[str, tuple[Arrays, Arrays]],
    course: Course,
    state: _State,
) -> Outcome:
    began = time.perf_counter()
    curve: list[tuple[int, float]] = []
    correct = np.zeros(study.rows["test"], np.float32)
    diverged = False
    with copy.copy(pristine) as trainer:
        start = course.start if course.start and state.at(course.start).exists() else 0
        if start:
            trainer.load(state.at(start))
        else:
            _begin(study, trainer, state.seed)
        try:
            for step in _steps(study, trainer, data["train"], state.seed, start):
                if step in course.stops:
                    correct = _measured(study, trainer, *data["test"])
                    curve.append((step, float(correct.mean())))
                if step == course.stops[-1]:
                    break
            if course.stops[-1] < study.steps:
                trainer.save(state.at(course.stops[-1]))
        except TrainError:  # the loss is not finite
            diverged, correct = True, np.zeros_like(correct)
            curve += [(stop, 0.0) for stop in course.stops[len(curve) :]]
    return Outcome(
        seed=state.seed,
        curve=tuple(curve),
        correct=correct,
        seconds=time.perf_counter() - began,
        diverged=diverged,
    )


def _begin(study: Study, trainer: Trainer, seed: int) -> None:
    """The values ahead of the first step: the model's own, and a head of its own for each seed."""
    own = {name: study.captured.tensors[name] for name in trainer.program.names}
    trainer.load_state_dict({**own, **first_head(study, seed)})


def _steps(
    study: Study, trainer: Trainer, data: tuple[Arrays, Arrays], seed: int, start: int
) -> Iterator[int]:
    """Take the steps of a run from the start on; yields how many were taken in all.

    Raises:
        TrainError: the loss is not finite.
    """
    falling = linear(study.lr, 0.0, study.steps - study.warmup)
    rate = warmup(study.warmup, falling) if study.warmup else falling
    order = _order(study, seed)
    arrays = (*data[0], *data[1])
    for step in range(study.steps):
        at = np.sort(next(order))
        if step < start:
            continue
        rates = np.array([rate(step)], np.float32)
        trainer.engine.run("step", [*(x[at] for x in arrays), rates])
        yield step + 1


def first_head(study: Study, seed: int) -> dict[str, Tensor]:
    """The head's values ahead of the first step: as ``nn.Linear`` draws them, from a seed."""
    generator = torch.Generator().manual_seed(seed)
    tensors = {name: study.captured.tensors[name] for name in study.head}
    inside = max(t[0].numel() for t in tensors.values() if t.dim() > 1)
    bound = inside**-0.5
    return {
        name: torch.empty(t.shape, dtype=t.dtype).uniform_(-bound, bound, generator=generator)
        for name, t in tensors.items()
    }


def _order(study: Study, seed: int) -> Iterator[Array]:
    """Indices of the batches, epoch after epoch; what does not fill a batch is left out."""
    random = np.random.default_rng(seed)
    while True:
        shuffled = random.permutation(study.rows["train"])
        for start in range(0, len(shuffled) - study.batch + 1, study.batch):
            yield shuffled[start : start + study.batch]


def _measured(
    study: Study, trainer: Trainer, inputs: Arrays, targets: Arrays
) -> npt.NDArray[np.float32]:
    """How right each sample is."""
    found = np.zeros(study.rows["test"], np.float32)
    score = study.score or largest_is_label
    shapes = [kind.shape for kind in trainer.program.signature.outputs]
    entry = "predict" if "predict" in trainer.plan.entries else "evaluate"
    for at in batches(study.rows["test"], study.batch):
        known = tuple(x[at] for x in targets)
        arrays = [x[at] for x in inputs]
        if entry == "evaluate":
            _, *flat = trainer.engine.run(entry, [*arrays, *known])
        else:
            flat = trainer.engine.run(entry, arrays)
        outputs = [x.reshape(shape) for x, shape in zip(flat, shapes, strict=True)]
        found[at] = np.asarray(score(outputs, known), np.float32)
    return found


def largest_is_label(outputs: Sequence[Array], targets: Arrays) -> npt.NDArray[np.float32]:
    """Whether the largest class score, along the last axis, is the label's: (N,).

    Of several labels a sample, such as one a token, the part that is right; labels below 0, which
    losses leave out, do not count.
    """
    chosen, labels = outputs[0].argmax(-1), targets[0]
    counted = labels >= 0
    right = ((chosen == labels) & counted).reshape(len(labels), -1).sum(1)
    number = counted.reshape(len(labels), -1).sum(1)
    return np.asarray(right / np.maximum(number, 1), np.float32)
