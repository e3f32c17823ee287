"""Searches how contractions are cut, by measurement in place, into a tuning file.

A round gives some contractions, those that take the most time ahead, one choice each that differs
from the best so far in one thing. The step runs with them and without them in turns over the same
memory, and each choice that makes its kernels faster by more than noise, twice, is kept. The file
is written after each round, so that an interrupted search has what it found, and goes on from it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pockengine.compile import kernel_target, link, prepare
from pockengine.contents import Contents
from pockengine.errors import InputError
from pockengine.lower.cache import KernelCache
from pockengine.lower.cache import load as load_kernel
from pockengine.lower.program import Built, build_kernels
from pockengine.lower.tile_parameters import Choice, tile_parameters
from pockengine.lower.tuning import Processor, Tuning, signatures
from pockengine.report.bench import pinned
from pockengine.report.cuts import Nest, nests
from pockengine.report.workloads import Workload
from pockengine.runtime.assemble import assemble
from pockengine.runtime.encoding import encode
from pockengine.runtime.engine import Engine
from pockengine.scheme import Rule, Scheme

_ROUND = 12  # contractions that are tried at once
_NOISE = 0.03  # of a time: what is faster by less is not kept
_MOST = 2 / 3  # of the turns that have to be faster
_QUARTER = 0.25
_ROUND_SECONDS = 4.0  # of measuring, about
_RUNS = (7, 41)  # of a step in each turn, at least and at most

Watcher = Callable[["Standing"], None]
"""Is told after each round how the search stands."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Gain:
    """A choice that was kept.

    Args:
        signature: of the contraction.
        choice: how it is cut now.
        before_ms: of its kernels in a step, as they were in that round: the lower quartile.
        after_ms: with the choice.
    """

    signature: str
    choice: Choice
    before_ms: float
    after_ms: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """How a search stands.

    Args:
        seconds: since it began.
        contractions: how many different ones there are.
        tried: choices that were measured.
        gains: those that were kept, in the order they were found.
    """

    seconds: float
    contractions: int
    tried: int
    gains: tuple[Gain, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tuned:
    """What a search found.

    Args:
        tuning: what the file holds.
        standing: at its end.
        before_ms: of a step without the tuning: the lower quartile.
        after_ms: with it, in turns.
    """

    tuning: Tuning
    standing: Standing
    before_ms: float
    after_ms: float

    def as_dict(self) -> dict[str, Any]:
        """All but what the file holds, fit for JSON."""
        return {
            **asdict(self.standing),
            "before_ms": self.before_ms,
            "after_ms": self.after_ms,
        }


def tune(
    workload: Workload,
    path: str | Path,
    *,
    scheme: Scheme | Rule | None = None,
    threads: int = 1,
    seconds: float = 300.0,
    watch: Watcher = lambda _: None,
) -> Tuned:
    """Search until the time is up or nothing is left to try.

    Args:
        workload: what to fine-tune.
        path: the tuning file; what it holds already is where the search begins.
        scheme: what to update; by default what the model's ``requires_grad`` says.
        threads: how many work at a step.
        seconds: after which no further round begins.
        watch: is told after each round.

    Raises:
        InputError: the file is no tuning of this processor, or cannot be written; the step has no
            contraction.
        PockEngineError: as ``compile``.
    """
    with TemporaryDirectory() as folder:
        search = _Search(workload, Path(path), scheme, threads, KernelCache(Path(folder)))
        while search.seconds < seconds and search.round():
            watch(search.standing)
        return search.end()


class _Search:
    def __init__(
        self,
        workload: Workload,
        path: Path,
        scheme: Scheme | Rule | None,
        threads: int,
        cache: KernelCache,
    ) -> None:
        self._began = perf_counter()
        self._path, self._threads, self._cache = path, threads, cache
        self._prepared = prepare(
            workload.model,
            workload.batch,
            loss=workload.loss,
            optimizer=workload.optimizer,
            scheme=scheme,
        )
        self._target = kernel_target(self._prepared.target)
        self._tiles = tile_parameters(self._target)
        self._tuning = _begun(path, self._target)
        entry = next(each for each in self._prepared.sources if each.name == "step")
        self._entry = entry
        order = self._prepared.plan.entries["step"].order
        self._texts = [entry.kernels[index].text for index in order]
        self._nests = _found(self._texts)
        self._calls = {
            name: [at for at, text in enumerate(self._texts) if text in nest.texts]
            for name, nest in self._nests.items()
        }
        program = link(self._prepared)
        self._regions = Contents.begun(program, self._prepared.captured.tensors, 0).regions.arrays
        self._inputs = _inputs(program.signature, workload)
        self._first = build_kernels(self._texts, self._target)
        self._built = build_kernels(self._texts, self._target, tuning=self._tuning)
        self._gains: list[Gain] = []
        self._tried = 0
        self._ms: dict[str, float] = {}

    @property
    def seconds(self) -> float:
        return perf_counter() - self._began

    @property
    def standing(self) -> Standing:
        return Standing(
            seconds=self.seconds,
            contractions=len(self._nests),
            tried=self._tried,
            gains=tuple(self._gains),
        )

    def round(self) -> bool:
        """Try a choice for some contractions; False where nothing is left to try."""
        if not self._ms:
            (times,) = self._measure([self._built])
            self._note(times)
        trials = self._trials()
        if not trials:
            return False
        kept = self._measured(trials)
        self._tried += len(trials)
        tried = {name: (*self._past(name), choice) for name, choice in trials.items()}
        tuning = self._tuning.having({name: trials[name] for name in kept})
        self._tuning = replace(tuning, tried={**tuning.tried, **tried})
        self._tuning.save(self._path)
        return True

    def _measured(self, trials: Mapping[str, Choice]) -> list[str]:
        """The contractions whose choices are faster, twice; their kernels are the best now."""
        changed = {text for name in trials for text in self._nests[name].texts}
        having = self._tuning.having(trials)
        built = build_kernels(changed, self._target, self._cache, tuning=having)
        kept = list(trials)
        for _ in range(2):
            mine = {text: built[text] for name in kept for text in self._nests[name].texts}
            before, after = self._measure([self._built, {**self._built, **mine}])
            self._note(before)
            times = {name: self._times(name, before, after) for name in kept}
            kept = [name for name in kept if faster(*times[name])]
            if not kept:
                return []
        for name in kept:
            self._keep(name, trials[name], *times[name])
            self._built |= {text: built[text] for text in self._nests[name].texts}
        return kept

    def end(self) -> Tuned:
        """The whole step with and without what was found."""
        self._tuning.save(self._path)
        before, after = self._measure([self._first, self._built], whole=True)
        return Tuned(
            tuning=self._tuning,
            standing=self.standing,
            before_ms=_quartile(before),
            after_ms=_quartile(after),
        )

    def _trials(self) -> dict[str, Choice]:
        """The next choices: where the most time is spent for each choice that was tried."""
        worth = {name: self._ms[name] / (1 + len(self._past(name))) for name in self._nests}
        found: dict[str, Choice] = {}
        busy: set[str] = set()
        for name in sorted(worth, key=lambda each: -worth[each]):
            nest = self._nests[name]
            if len(found) == _ROUND:
                break
            if busy & nest.texts:  # a kernel tells about one change at a time
                continue
            best = self._tuning.choices.get(name) or nest.nest.default(self._tiles)
            choice = nest.nest.next(self._tiles, best, self._past(name))
            if choice is not None:
                found[name] = choice
                busy |= nest.texts
        return found

    def _past(self, name: str) -> tuple[Choice, ...]:
        return self._tuning.tried.get(name, ())

    def _times(
        self, name: str, *found: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Milliseconds of a contraction's kernels in each run, before and after."""
        before, after = (times[:, self._calls[name]].sum(axis=1) for times in found)
        return before, after

    def _keep(
        self, name: str, choice: Choice, before: NDArray[np.float64], after: NDArray[np.float64]
    ) -> None:
        gain = Gain(
            signature=name,
            choice=choice,
            before_ms=_quartile(before),
            after_ms=_quartile(after),
        )
        self._gains.append(gain)
        self._ms[name] = gain.after_ms

    def _note(self, times: NDArray[np.float64]) -> None:
        each = np.quantile(times, _QUARTER, axis=0)
        self._ms |= {name: float(each[calls].sum()) for name, calls in self._calls.items()}

    def _measure(
        self, variants: Sequence[Mapping[str, Built]], *, whole: bool = False
    ) -> list[NDArray[np.float64]]:
        """Milliseconds of each variant of the step: (runs, kernel calls), or (runs,) of all."""
        with ExitStack() as stack:
            stack.enter_context(pinned(self._threads))
            engines = [stack.enter_context(self._engine(built)) for built in variants]
            began = perf_counter()
            engines[0].run("step", self._inputs)
            turn = 2 * len(engines) * max(perf_counter() - began, 1e-6)
            runs = round(min(max(_ROUND_SECONDS / turn, _RUNS[0]), _RUNS[1]))
            times: list[list[Any]] = [[] for _ in engines]
            turns = list(zip(engines, times, strict=True))
            for _ in range(runs):
                turns.reverse()  # none is always the one after the other
                for engine, found in turns:
                    engine.run("step", self._inputs)  # its own code is at hand then
                    found.append(self._timed(engine, whole=whole))
        return [np.array(found) for found in times]

    def _timed(self, engine: Engine, *, whole: bool) -> Any:
        if not whole:
            return engine.run_timed("step", self._inputs)[1]
        began = perf_counter()
        engine.run("step", self._inputs)
        return (perf_counter() - began) * 1e3

    def _engine(self, built: Mapping[str, Built]) -> Engine:
        descriptor, texts = assemble([self._entry], self._prepared.plan, built)
        const, param, state, arena = self._regions
        return Engine(
            encode(descriptor),
            [load_kernel(built[text].path) for text in texts],
            const=const,
            param=param,
            state=state,
            arena=arena,
            threads=self._threads,
        )


def faster(before: NDArray[np.float64], after: NDArray[np.float64]) -> bool:
    """Whether times are shorter than others by more than noise.

    In the median and in the lower quartile, which what else runs on the machine does not reach, and
    in most turns.

    Args:
        before: of turns.
        after: of the same turns.
    """
    middle = np.median(after) < (1 - _NOISE) * np.median(before)
    low = _quartile(after) < (1 - _NOISE) * _quartile(before)
    return bool(middle and low and np.mean(after < before) >= _MOST)


def _quartile(times: NDArray[np.float64]) -> float:
    return float(np.quantile(times, _QUARTER))


@dataclass(frozen=True, slots=True)
class _Found:
    """A contraction and the kernels (as text) that have it."""

    nest: Nest
    texts: set[str]


def _found(texts: Sequence[str]) -> dict[str, _Found]:
    """The contractions of kernels, by signature.

    Raises:
        InputError: there is none.
    """
    found: dict[str, _Found] = {}
    for text in dict.fromkeys(texts):
        for name, nest in nests(text).items() if signatures(text) else ():
            found.setdefault(name, _Found(nest, set())).texts.add(text)
    if not found:
        raise InputError(
            where="tune",
            found="a step without matrix products and convolutions",
            needed="at least one: they are what is tuned",
            remedy="Choose a scheme that updates a layer",
        )
    return found


def _begun(path: Path, target: Mapping[str, Any]) -> Tuning:
    """What the file holds; nothing yet where there is none."""
    if path.exists():
        return Tuning.load(path, target)
    return Tuning(processor=Processor.of(target))


def _inputs(signature: Any, workload: Workload) -> list[NDArray[Any]]:
    inputs, targets = workload.batch
    rate = np.zeros(1, np.float32)  # every run does the same
    return [*signature.bind_inputs(inputs), *signature.bind_targets(targets), rate]
