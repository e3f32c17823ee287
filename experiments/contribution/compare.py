"""Whole schemes on real tasks: `python -m experiments.contribution.compare PAIR`.

Four arms are fine-tuned by the compiled trainer: all parameters; the chosen scheme, for 1/1.6 of
their time and a quarter of the transient memory of full training in PyTorch, in two micro-batches;
and of the same working memory the most biases, and the most whole layers, counted from the output,
in as many. Each arm is tuned alike: every learning rate of the pair with seeds 0 and 1, then the
best one with seeds 2 to 4; for texts it rises over the first tenth of the steps.

The chosen scheme is the best of ``report.finalists`` when these are tuned so: what the search
finds, what it finds again once it has learned what that gains as a whole, and the most biases and
whole layers within the same limits.

Besides, random schemes spread over the memory range are trained, for what the profile predicts of
them. Schemes and learning rates are chosen by the part that the profile measured on; what is told
was measured on a third one.

Both accuracies are kept in runs/PAIR.json as they come; what is there is not run again.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, as_completed
from dataclasses import dataclass, replace
from functools import cached_property
from statistics import fmean, median
from time import perf_counter
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import pockengine as pe
from experiments.beside import saved_bytes
from experiments.contribution.pairs import PAIRS, Pair, Part, load
from experiments.contribution.random_schemes import predicted
from experiments.contribution.run import BATCH, CACHE, HERE, LOSS, settings
from pockengine.compile import Prepared, link, prepare_captured, with_part
from pockengine.contribution.begin import begin
from pockengine.contribution.candidates import candidate_of, plain_choices
from pockengine.contribution.choice import Choice
from pockengine.contribution.pool import local_pool
from pockengine.contribution.report import Report
from pockengine.contribution.search import Found, Limits
from pockengine.contribution.study import arrays_of, digest
from pockengine.contribution.trial import Candidate, Course, Outcome, run_trials
from pockengine.frontend.capture import Captured
from pockengine.modes import Modes
from pockengine.plan.amounts import step_ms_of
from pockengine.plan.fit import working_bytes
from pockengine.scheme import Scheme
from pockengine.targets import get_target
from pockengine.trainer import Trainer

TUNING, SEEDS = (0, 1), (0, 1, 2, 3, 4)
TEST, HELD = 0, 1  # parts of a row
TRANSIENT, SPEED = 0.25, 1.6  # of full training's
PARTS = 2  # of a batch, but where everything is trained
MARGIN, LEAST_MARGIN = 1.04, 1.02  # for what was measured of the time
ROUNDS = 4  # of a choice and its time
HALVINGS = 8  # of the memory between the head alone and everything
SEARCHES = 3  # of which each but the first has learned what was chosen before
STEPS = 31

Rate: TypeAlias = tuple[float, int]
"""A learning rate, and the steps over which it rises."""


@dataclass
class Comparison:
    """A pair, its studies by learning rate, and what was run.

    Args:
        name: of the pair.
        pair: itself.
        jobs: processes.
    """

    name: str
    pair: Pair
    jobs: int | None

    def __post_init__(self) -> None:
        self.model, task, held = load(self.pair)
        folder = CACHE / self.name
        folder.mkdir(parents=True, exist_ok=True)
        self.file = HERE / "runs" / f"{self.name}.json"
        self.rows: dict[str, list[float]] = (  # on the test part, on what is held
            json.loads(self.file.read_text()) if self.file.exists() else {}
        )
        whole_task = task[0], _joined(task[1], held)
        self.studies = {
            (lr, warmup): begin(
                self.model, whole_task, settings(lr, self.pair.epochs, warmup), folder
            )
            for warmup in {0, self.pair.warmup}
            for lr in self.pair.lrs
        }
        self.begun = self.studies[self.pair.lr, 0]
        inputs, targets = task[0]
        self.torch_saved_bytes = _torch_saved_bytes(self.model, inputs, targets)
        self.report: Report = pe.profile(
            self.model,
            task,
            lr=self.pair.lr,
            epochs=self.pair.epochs,
            batch=BATCH,
            seeds=len(TUNING),
            fast=not (HERE / f"{self.name}.json").exists(),
            folder=folder,
            jobs=self.jobs,
        )

    def candidate(self, choice: Choice) -> Candidate:
        """What a choice trains."""
        begun = self.begun
        return candidate_of(choice, begun.layers, begun.head, self.model, begun.cuts)

    @cached_property
    def everything(self) -> Choice:
        """All biases and weights."""
        count = len(self.begun.layers)
        return Choice(count, dict.fromkeys(range(count), 1.0))

    @cached_property
    def full(self) -> Candidate:
        """All parameters, BatchNorm's scales too."""
        every = {name: 1.0 for name, _ in self.model.named_parameters()}
        return Candidate(
            fractions=tuple(sorted(Scheme(every).resolve(self.model).items())), channels=()
        )

    def prepared(self, candidate: Candidate) -> Prepared:
        """A candidate planned as ``compile`` would, without a frozen front."""
        whole, study = candidate == self.full, self.begun.study
        captured, part = (study.captured, None) if whole else self._parted
        prepared = prepare_captured(
            [captured],
            trains=[True],
            scheme=Scheme(dict(candidate.fractions)),
            channels=dict(candidate.channels),
            optimizer=study.optimizer,
            modes=Modes() if whole else self._modes,
            part=part,
        )
        dtypes = {name: tensor.dtype for name, tensor in captured.tensors.items()}
        return replace(prepared, dtypes=dtypes)

    _modes = Modes(micro_batches=PARTS)

    @cached_property
    def _parted(self) -> tuple[Captured, Captured | None]:
        """The model at the shapes of a batch and of a micro-batch."""
        captured, batch = self.begun.study.captured, self.begun.example
        return with_part(captured, self.model, batch, LOSS, self._modes)

    def arms(self) -> dict[str, Candidate]:
        """The arms, those of the search and of the same memory."""
        limits = self._limits()
        finalists = [
            self.candidate(found.choice)
            for found in self.report.finalists(
                memory_bytes=limits.memory_bytes,
                step_ms=limits.step_ms,
                micro_batches=PARTS,
                rounds=SEARCHES,
            )
        ]
        quick = [each for each in finalists if self._speed(each) >= SPEED * LEAST_MARGIN]
        found = self.tuned(quick)
        for each, (accuracy, (lr, _)) in zip(quick, found, strict=True):
            print(f"{len(each.fractions)} parameters: {accuracy:.1%} at {lr:g}", flush=True)
        chosen = max(zip(quick, found, strict=True), key=lambda each: each[1][0])[0]
        most = working_bytes(self.prepared(chosen).plan, get_target("host"))
        tails, wholes = plain_choices(
            self.report.sensitivity, lambda choice: self._bytes(choice) <= most
        )
        return {
            "all": self.full,
            "chosen": chosen,
            "biases": self.candidate(tails),
            "last layers": self.candidate(wholes),
            "head": self.candidate(Choice(0)),
        }

    def key(self, candidate: Candidate, rate: Rate, seed: int) -> str:
        """Of a row."""
        lr, warmup = rate
        told = f"{lr:g} after {warmup}" if warmup else f"{lr:g}"
        return f"{digest(candidate.fractions)[:8]} | {told} | {seed}"

    def _limits(self) -> Limits:
        """Of memory and of time as the model of it tells, for what is found to be as fast."""
        low, high = (self._bytes(each) for each in (Choice(0), self.everything))
        target = get_target("host")
        whole_ms = self.report.costs().amount(self.everything, step_ms_of(target))
        aim = SPEED * MARGIN  # of what the model of time says
        tried: list[tuple[bool, float, Limits]] = []
        for _ in range(ROUNDS):
            found, limits = self._within(low, high, whole_ms / aim)
            speed = self._speed(self.candidate(found.choice))
            aim *= SPEED * MARGIN / speed
            tried.append((speed >= SPEED * LEAST_MARGIN, found.gain, limits))
            told = f"{found.choice.biases} biases, {len(found.choice.weights)} weights"
            print(f"{told}: {speed:.2f}x, {100 * found.gain:+.1f}", flush=True)
        return max(tried, key=lambda each: each[:2])[-1]

    def _within(self, low: int, high: int, most_ms: float) -> tuple[Found, Limits]:
        """What the search finds within the time, with as much memory as the arena leaves."""
        limit, best = high, None
        for _ in range(HALVINGS):
            limits = Limits(memory_bytes=limit, step_ms=most_ms)
            found = self.report.best(memory_bytes=limit, step_ms=most_ms, micro_batches=PARTS)
            plan = self.prepared(self.candidate(found.choice)).plan
            if plan.arena_bytes <= TRANSIENT * self.torch_saved_bytes:
                best, low = (found, limits), limit
            else:
                high = min(limit, working_bytes(plan, get_target("host")))
            if low == high:
                break
            limit = (low + high) // 2
        assert best is not None
        return best

    def _bytes(self, choice: Choice) -> int:
        """Working memory of a choice as it is planned."""
        return working_bytes(self.prepared(self.candidate(choice)).plan, get_target("host"))

    def _speed(self, candidate: Candidate) -> float:
        """Of training everything."""
        taken = self.speeds({"all": self.full, "other": candidate})
        return taken["all"] / taken["other"]

    def train(self, wanted: Sequence[tuple[Candidate, Rate, Sequence[int]]]) -> None:
        """Run what is missing of (candidate, rate, seeds), and keep it."""
        with local_pool(self.jobs) as pool:
            waiting: dict[Future[list[Outcome]], str] = {}
            for candidate, rate, seeds in wanted:
                begun = self.studies[rate]
                course = Course(stops=(begun.study.steps,))
                for seed in seeds:
                    key = self.key(candidate, rate, seed)
                    if key not in {*self.rows, *waiting.values()}:
                        job = pool.submit(run_trials, str(begun.folder), candidate, [seed], course)
                        waiting[job] = key
            for job in as_completed(waiting):
                (outcome,) = job.result()
                parts = np.split(outcome.correct, [self.pair.test])
                self.rows[waiting[job]] = [round(float(part.mean()), 6) for part in parts]
                self.file.parent.mkdir(exist_ok=True)
                self.file.write_text(json.dumps(self.rows, indent=1) + "\n")

    def accuracies(
        self, candidate: Candidate, rate: Rate, seeds: Sequence[int], part: int = HELD
    ) -> list[float]:
        """Of a scheme, by seed."""
        return [self.rows[self.key(candidate, rate, seed)][part] for seed in seeds]

    def tuned(self, schemes: Sequence[Candidate]) -> list[tuple[float, Rate]]:
        """Of each the accuracy on the test part at its best learning rate, and that rate."""
        rates = [(lr, self.pair.warmup) for lr in self.pair.lrs]
        self.train([(each, rate, TUNING) for each in schemes for rate in rates])
        found = []
        for each in schemes:
            by_rate = {rate: fmean(self.accuracies(each, rate, TUNING, TEST)) for rate in rates}
            best = max(rates, key=by_rate.__getitem__)
            found.append((by_rate[best], best))
        return found

    def speeds(self, arms: Mapping[str, Candidate]) -> dict[str, float]:
        """Milliseconds of a step, in turns, one thread: medians."""
        study = self.begun.study
        place = study.data_beside(self.begun.folder)
        inputs = arrays_of(place, "train", "cut-1", len(study.captured.inputs))
        targets = arrays_of(place, "train", "targets", len(study.captured.targets))
        batch = [x[: study.batch] for x in (*inputs, *targets)]
        trainers = {}
        for name, arm in arms.items():
            prepared = self.prepared(arm)
            trainers[name] = Trainer(link(prepared), prepared.captured.tensors, threads=1)
        taken: dict[str, list[float]] = {name: [] for name in arms}
        for _ in range(STEPS + 2):
            for name, trainer in trainers.items():
                began = perf_counter()
                trainer.engine.run("step", [*batch, np.array([0.0], np.float32)])
                taken[name].append((perf_counter() - began) * 1e3)
        return {name: median(values[2:]) for name, values in taken.items()}


def _joined(first: Part, then: Part) -> Part:
    """Two parts as one."""
    labels = torch.cat([first[1], then[1]])
    if isinstance(first[0], Mapping):
        return {name: torch.cat([x, then[0][name]]) for name, x in first[0].items()}, labels
    return torch.cat([first[0], then[0]]), labels


def _torch_saved_bytes(model: nn.Module, inputs: Any, targets: Tensor) -> int:
    """What PyTorch saves for the backward pass of a batch, parameters excluded."""
    if isinstance(inputs, Mapping):
        batch = {name: tensor[:BATCH].clone() for name, tensor in inputs.items()}
        return saved_bytes(model, lambda: cross_entropy(model(**batch), targets[:BATCH]))
    first = inputs[:BATCH].clone()  # what is saved counts with all of its storage
    return saved_bytes(model, lambda: cross_entropy(model(first), targets[:BATCH]))


def compared(comparison: Comparison) -> dict[str, Any]:
    """Train what is missing of the arms; their accuracies, memory and time."""
    arms = comparison.arms()
    tuned = comparison.tuned(list(arms.values()))
    rates = {arm: rate for arm, (_, rate) in zip(arms, tuned, strict=True)}
    comparison.train([(each, rates[arm], SEEDS) for arm, each in arms.items()])
    plans = {arm: comparison.prepared(candidate).plan for arm, candidate in arms.items()}
    target = get_target("host")
    return {
        "arms": {
            arm: {
                "lr": rates[arm][0],
                "warmup": rates[arm][1],
                "accuracies": comparison.accuracies(candidate, rates[arm], SEEDS),
                "arena_bytes": plans[arm].arena_bytes,
                "working_bytes": working_bytes(plans[arm], target),
                "updated": len(candidate.fractions),
            }
            for arm, candidate in arms.items()
        },
        "step_ms": comparison.speeds(arms),
        "torch_saved_bytes": comparison.torch_saved_bytes,
    }


TASKS = {"compared": compared, "predicted": predicted}


def main() -> None:
    """Compare on the pairs that the command line names."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("pairs", nargs="+", choices=sorted(PAIRS))
    parser.add_argument("--part", nargs="+", choices=TASKS, default=list(TASKS), help="only this")
    parser.add_argument("--jobs", type=int, help="processes; default: one a core")
    options = parser.parse_args()
    for name in options.pairs:
        comparison = Comparison(name, PAIRS[name], options.jobs)
        for part in options.part:
            path = HERE / part / f"{name}.json"
            path.parent.mkdir(exist_ok=True)
            path.write_text(json.dumps(TASKS[part](comparison), indent=1) + "\n")


if __name__ == "__main__":
    main()
