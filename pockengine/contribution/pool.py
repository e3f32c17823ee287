"""Run trials on any executor, keep each as soon as it is done, and tell how far it is."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from typing import TypeAlias

from pockengine.contribution.begin import Begun
from pockengine.contribution.choice import Choice
from pockengine.contribution.store import Store
from pockengine.contribution.study import digest
from pockengine.contribution.trial import Candidate, Course, Outcome, run_trials
from pockengine.errors import TrainError

Progress: TypeAlias = Callable[[int, int], None]
"""Called with how many trials are done, and how many there are to be; first with what is kept."""

Outcomes: TypeAlias = Mapping[Choice, Mapping[int, Outcome]]
"""By choice and seed."""


@contextmanager
def local_pool(jobs: int | None) -> Iterator[Executor]:
    """Processes of this machine, one for each core by default; what waits is dropped at the end."""
    pool = ProcessPoolExecutor(
        jobs or _cores(),
        mp_context=get_context("spawn"),
        initializer=_one_thread,
    )
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def _cores() -> int:
    """Of this process, where the system tells, else of the machine."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _one_thread() -> None:
    """Every process has a core: what PyTorch does beside the trials takes no more."""
    import torch  # noqa: PLC0415 - in the process that is begun

    torch.set_num_threads(1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool:
    """Where the trials of a study are run and kept.

    Args:
        begun: the study.
        store: where outcomes are kept.
        executor: runs them; its processes see the study's folder.
        seeds: of every candidate.
        progress: is told how many are done; None for nothing.
    """

    begun: Begun
    store: Store
    executor: Executor
    seeds: Sequence[int]
    progress: Progress | None = None

    def run(
        self,
        candidates: Mapping[Choice, Candidate],
        course: Course,
        seeds: Sequence[int] | None = None,
    ) -> Outcomes:
        """The outcomes of some candidates, those that are kept already and those that are new.

        Choices that update the same have one trial.

        Args:
            candidates: what each choice trains.
            course: from where, and how far.
            seeds: of these trials; None for the pool's.

        Raises:
            TrainError: a process died.
        """
        seeds = self.seeds if seeds is None else seeds
        kept = self.store.outcomes(self.begun.name)
        end = course.stops[-1]
        names = {choice: digest(each.fractions) for choice, each in candidates.items()}
        wanted = {names[choice]: choice for choice in candidates}
        missing = {
            name: [seed for seed in seeds if (name, seed, end) not in kept] for name in wanted
        }
        waiting: dict[Future[list[Outcome]], str] = {
            self.executor.submit(
                run_trials, str(self.begun.folder), candidates[wanted[name]], absent, course
            ): name
            for name, absent in missing.items()
            if absent
        }
        self._collect(waiting, wanted)
        kept = self.store.outcomes(self.begun.name)
        return {
            choice: {seed: kept[names[choice], seed, end] for seed in seeds}
            for choice in candidates
        }

    def _collect(
        self, waiting: Mapping[Future[list[Outcome]], str], wanted: Mapping[str, Choice]
    ) -> None:
        study = self.begun.study
        told = {"lr": study.lr, "warmup": study.warmup, "steps": study.steps, "batch": study.batch}
        settings = json.dumps({**told, "optimizer": repr(study.optimizer)})
        total, done = len(wanted), len(wanted) - len(waiting)
        if self.progress is not None:
            self.progress(done, total)
        kept: set[Future[list[Outcome]]] = set()

        def keep(future: Future[list[Outcome]]) -> None:
            name = waiting[future]
            for outcome in future.result():
                self.store.add(self.begun.name, name, wanted[name], settings, outcome)
            kept.add(future)

        try:
            for future in as_completed(waiting):
                keep(future)
                if self.progress is not None:
                    self.progress(done + len(kept), total)
        except BrokenProcessPool as error:
            raise TrainError(
                where="profile",
                found="a process that ran trials died",
                needed="memory for as many trials as there are processes",
                remedy="Run it again: what was done is kept; with jobs=1 one runs at a time",
            ) from error
        finally:
            for future in waiting.keys() - kept:
                if not future.cancel() and future.done() and future.exception() is None:
                    keep(future)
