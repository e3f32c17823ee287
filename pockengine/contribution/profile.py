"""The contribution profiler: which layers of a model are worth updating on a task.

Source: Lin et al., "On-device training under 256 KB of memory" (NeurIPS 2022), section 3.2, and
Zhu et al., "PockEngine" (MICRO 2023), section 3: contribution analysis. Halving is synchronous
(Jamieson and Talwalkar, "Non-stochastic best arm identification", AISTATS 2016).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import ExitStack, contextmanager
from itertools import pairwise
from math import ceil
from pathlib import Path
from statistics import fmean
from typing import Any

from torch import nn

from pockengine.checks import is_number, is_whole
from pockengine.contribution.begin import Settings, bad_option, begin
from pockengine.contribution.candidates import bias_choices, candidate_of, weight_choices
from pockengine.contribution.choice import RATIOS, Choice
from pockengine.contribution.estimate import estimate
from pockengine.contribution.fast import spread
from pockengine.contribution.intervals import pooled
from pockengine.contribution.measured import Sensitivity
from pockengine.contribution.pool import Outcomes, Pool, Progress, local_pool
from pockengine.contribution.report import Profiled, Report
from pockengine.contribution.shown import Checked
from pockengine.contribution.store import Store
from pockengine.contribution.study import Score
from pockengine.contribution.summary import Measured, differences_of, longer, summarize
from pockengine.contribution.trial import Candidate, Course, Outcome
from pockengine.frontend.losses import Loss
from pockengine.model_tree import channel_axes
from pockengine.optimizer import SGD, Optimizer
from pockengine.watched import is_watched

RUNGS = (0.25, 1.0)
_BATCHES = 32  # that estimates are made from
_TRIALS = "trials.sqlite"


def profile(  # noqa: PLR0913 - each a decision of its own
    model: nn.Module,
    task: Any,
    *,
    loss: Loss = "cross_entropy",
    optimizer: Optimizer | None = None,
    lr: float = 1e-3,
    warmup: int = 0,
    epochs: float = 1,
    batch: int = 8,
    seeds: int = 3,
    ratios: Sequence[float] = RATIOS,
    rungs: Sequence[float] = RUNGS,
    keep: float = 0.25,
    fast: bool = False,
    score: Score | None = None,
    folder: str | Path = "profile",
    executor: Executor | None = None,
    jobs: int | None = None,
    cache_bytes: int = 2 << 30,
    progress: Progress | None = None,
) -> Report:
    """Measure what each layer is worth on a task, by fine-tuning it with the compiled trainer.

    Tried are: the head alone; the biases of the last k layers, for each k; each weight at each
    ratio, beside the biases from its layer on. Every trial is kept in ``folder/trials.sqlite``: a
    profile that was stopped goes on where it was, and the same one again runs nothing.

    Weights that promise little are given up: all are trained for the first of ``rungs``, the best
    for the second, and so on, with as large a part of the seeds as of the run (one at least).
    Trials are compared with others of the same seeds after as many steps.

    Args:
        model: as ``compile``; it is not changed.
        task: ``((inputs, targets), (test_inputs, test_targets))``: arrays or tensors of whole data
            sets, which nest like a batch of ``compile``.
        loss: as ``compile``.
        optimizer: of every trial; SGD with momentum 0.9 by default.
        lr: the learning rate at the first step; it falls linearly to 0. Profiles in one folder that
            differ in it share what is computed of the data, so ``fast`` ones soon tell a good one.
        warmup: steps ahead of that over which it rises.
        epochs: of a whole run, at least one step.
        batch: samples of a step.
        seeds: runs of each candidate: the head's first values and the order of the batches.
        ratios: parts of a weight's input channels.
        rungs: parts of a run after which candidates are compared, rising to 1.
        keep: the part of the weights that goes on at each rung.
        fast: estimate the weights by their gradients, and measure only the head, all biases, and
            all weights together, which tells how much an estimate is worth.
        score: (outputs, targets) of a batch -> how right each sample is, 0 to 1; a function that
            can be imported. None for whether the largest class score is the label's.
        folder: for trials and what they share.
        executor: runs the trials: any of ``concurrent.futures``, Dask's too; its processes have to
            see the folder. None for processes of this machine.
        jobs: how many of these; None for one a core.
        cache_bytes: that what frozen layers yield may take in the folder.
        progress: called with how many trials of a round are done, and of how many; None for a bar
            on standard error where that is a terminal or a notebook.

    Returns:
        What each layer is worth; ``best`` of it says what to update under limits.

    Raises:
        InputError: an argument is not what it should be.
        CaptureError: the model or the loss cannot be captured.
        TrainError: a process that ran trials died; what was done is kept.
    """
    _check(seeds, ratios, rungs, keep)
    settings = Settings(
        loss=loss,
        optimizer=SGD(momentum=0.9) if optimizer is None else optimizer,
        lr=lr,
        warmup=warmup,
        epochs=epochs,
        batch=batch,
        score=score,
        cache_bytes=cache_bytes,
    )
    place = Path(folder)
    place.mkdir(parents=True, exist_ok=True)
    begun = begin(model, task, settings, place)
    told = {"lr": lr, "epochs": epochs, "batch": batch, "seeds": seeds, "fast": fast}
    told |= {**begun.study.rows, "steps": begun.study.steps}

    @contextmanager
    def opened() -> Iterator[_Profile]:
        with ExitStack() as stack:
            pool = Pool(
                begun=begun,
                store=stack.enter_context(Store(place / _TRIALS)),
                executor=executor or stack.enter_context(local_pool(jobs)),
                seeds=range(seeds),
                progress=stack.enter_context(_bar()) if progress is None else progress,
            )
            yield _Profile(pool, model, sorted(ratios))

    def measure(choices: Sequence[Choice]) -> Sequence[Checked]:
        with opened() as work:
            return work.checked(choices, sensitivity)

    with opened() as work:
        if fast:
            sensitivity = spread(begun, work.ends(), work.estimates(), told)
        else:
            sensitivity = summarize(begun, work.measured(sorted(rungs), keep), told)
    known = Profiled(
        model, begun.study.captured, begun.study.optimizer, begun.example, settings.loss, measure
    )
    return Report(sensitivity, known)


class _Profile:
    """The rounds of a profile.

    Args:
        pool: runs trials.
        model: that is profiled.
        ratios: parts of weights.
    """

    def __init__(self, pool: Pool, model: nn.Module, ratios: Sequence[float]) -> None:
        self._pool, self._model = pool, model
        self._layers, self._head = pool.begun.layers, pool.begun.head
        self._weights = weight_choices(self._layers, ratios, model)

    def measured(self, rungs: Sequence[float], keep: float) -> Measured:
        """Estimate all weights, then train everything as far as it promises something."""
        steps, seeds = self._pool.begun.study.steps, self._pool.seeds
        stops = sorted({max(1, round(part * steps)) for part in rungs})
        estimates = self.estimates()
        weights: dict[Choice, Mapping[int, Outcome]] = {}
        biases: dict[Choice, Mapping[int, Outcome]] = {}
        alive, behind = list(self._weights), bias_choices(self._layers)
        for start, stop in pairwise([0, *stops]):
            course = Course(stops=(stop,), start=start)
            some = seeds[: ceil(stop / steps * len(seeds))]
            for found, choices, taken in ((biases, behind, seeds), (weights, alive, some)):
                for choice, outcomes in self._run(choices, course, taken).items():
                    found[choice] = longer(found.get(choice, {}), outcomes)
            gains = {choice: self._gain(choice, weights, biases) for choice in alive}
            ranked = sorted(alive, key=lambda choice: gains[choice], reverse=True)
            alive = ranked[: ceil(keep * len(ranked))]
        ordered = {choice: weights[choice] for choice in self._weights}
        largest = dict(part for choice in self._weights for part in choice.weights.items())
        whole = Choice(len(self._layers), largest)  # of each weight the largest part
        together = self._run([whole], self._whole)
        return Measured(biases=biases, weights=ordered, estimates=estimates, together=together)

    def ends(self) -> Outcomes:
        """Train the head alone, then all biases too, then everything."""
        count = len(self._layers)
        whole = Choice(count, dict.fromkeys(range(count), 1.0))
        return self._run([Choice(0), Choice(count), whole], self._whole)

    def checked(self, choices: Sequence[Choice], found: Sensitivity) -> list[Checked]:
        """Fine-tune choices as a whole; their gains over the head alone, beside predictions."""
        outcomes = self._run([Choice(0), *choices], self._whole)
        gains = {c: differences_of(outcomes[c], outcomes[Choice(0)]) for c in choices}
        half = pooled(list(gains.values()), self._pool.begun.study.rows["test"]).half_width
        means = {choice: fmean(values) for choice, values in gains.items()}
        return [
            Checked(
                choice=choice,
                predicted=found.predicted(choice),
                measured=means[choice],
                low=means[choice] - half(len(values)),
                high=means[choice] + half(len(values)),
            )
            for choice, values in gains.items()
        ]

    def estimates(self) -> dict[Choice, float]:
        """What gradients say of each weight at each ratio, and of the biases of each count."""
        begun, store = self._pool.begun, self._pool.store
        found = store.note(begun.name, "estimate")
        if found is None:
            found = self._pool.executor.submit(
                estimate, str(begun.folder), self._candidate(Choice(0)), 0, self._axes(), _BATCHES
            ).result()
            store.add_note(begun.name, "estimate", found)
        return {
            choice: self._estimate(choice, found)
            for choice in (*bias_choices(self._layers), *self._weights)
        }

    def _axes(self) -> dict[str, int]:
        """By parameter, the axis that parts are taken of."""
        axes = channel_axes(self._model)
        owned = dict(self._model.named_parameters())
        weights = {
            layer.weight: axes.get(id(owned[layer.weight]), (0, 1))[0] for layer in self._layers
        }
        return weights | {name: 0 for layer in self._layers for name in layer.biases}

    def _estimate(self, choice: Choice, found: Mapping[str, Sequence[float]]) -> float:
        """Of a weight its part alone, as its gain is; of biases all."""
        if choice.weights:
            ((index, _),) = choice.weights.items()
            name = self._layers[index].weight
            part = dict(self._candidate(choice).channels).get(name)
            return sum(found.get(name, ())[: None if part is None else part.count])
        chosen = self._layers[len(self._layers) - choice.biases :]
        return sum(sum(found.get(name, ())) for layer in chosen for name in layer.biases)

    @property
    def _whole(self) -> Course:
        """A run from its start to its end."""
        return Course(stops=(self._pool.begun.study.steps,))

    def _run(
        self, choices: Sequence[Choice], course: Course, seeds: Sequence[int] | None = None
    ) -> Outcomes:
        candidates = {choice: self._candidate(choice) for choice in choices}
        return self._pool.run(candidates, course, seeds)

    def _candidate(self, choice: Choice) -> Candidate:
        begun = self._pool.begun
        return candidate_of(choice, self._layers, self._head, self._model, begun.cuts)

    def _gain(self, choice: Choice, found: Outcomes, biases: Outcomes) -> float:
        return fmean(differences_of(found[choice], biases[Choice(choice.biases)]))


def _check(seeds: object, ratios: Sequence[float], rungs: Sequence[float], keep: float) -> None:
    """The options that say how many trials there are."""
    if not is_whole(seeds) or seeds < 1:
        raise bad_option("seeds", seeds, "a whole number of at least 1", "3")
    for option, values in (("ratios", ratios), ("rungs", rungs)):
        if not values or not all(is_number(x) and 0 < x <= 1 for x in values):
            raise bad_option(option, values, "numbers greater than 0 and at most 1", "(0.25, 1)")
    if max(rungs) != 1:
        raise bad_option("rungs", rungs, "1 as the last, for a whole run", "(0.25, 0.5, 1)")
    if not is_number(keep) or not 0 < keep <= 1:
        raise bad_option("keep", keep, "a number greater than 0 and at most 1", "0.5")


@contextmanager
def _bar() -> Iterator[Progress]:
    """One line for each round, with the time that is left; nothing where nobody watches."""
    if not is_watched():
        yield lambda _done, _total: None
        return
    from tqdm import tqdm  # noqa: PLC0415 - only where it is seen

    bars: list[Any] = []

    def tell(done: int, total: int) -> None:
        if not bars or bars[-1].total != total or done < bars[-1].n:
            bars.append(tqdm(total=total, initial=done, desc="trials", unit=""))
        bars[-1].update(done - bars[-1].n)
        if done == total:
            bars[-1].close()

    yield tell
