"""The answer of a profile: what to update under limits, what that costs, and whether it holds."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Self

from torch import nn

from pockengine.checks import is_whole
from pockengine.compile import prepare_captured, with_part
from pockengine.contribution.candidates import plain_choices
from pockengine.contribution.choice import RATIOS, Choice
from pockengine.contribution.cost_table import ChoiceCosts
from pockengine.contribution.costs import CostTable
from pockengine.contribution.html.page import page
from pockengine.contribution.layer_costs import layer_costs
from pockengine.contribution.measured import Sensitivity
from pockengine.contribution.search import Axis, Found, Limits, best, front, priced
from pockengine.contribution.shown import Checked, FrontPoint
from pockengine.contribution.surrogate import refined
from pockengine.contribution.table import table, to_csv
from pockengine.disk import replace_file
from pockengine.errors import InputError, unwritable
from pockengine.frontend.capture import Batch, Captured
from pockengine.frontend.losses import Loss
from pockengine.modes import Modes
from pockengine.optimizer import Optimizer
from pockengine.plan.fit import working_bytes
from pockengine.scheme import Scheme
from pockengine.targets import Target, get_target

_FORMAT, _VERSION = "pockengine.report", 1

Measure = Callable[[Sequence[Choice]], Sequence[Checked]]
"""Fine-tunes choices as a whole, with the seeds of the profile."""


@dataclass(frozen=True, slots=True)
class Profiled:
    """What a report knows while the model is at hand.

    Args:
        model: that was profiled.
        captured: the same as a graph.
        optimizer: of the trials.
        batch: an example of what a step takes.
        loss: of the trials.
        measure: fine-tunes choices as a whole.
    """

    model: nn.Module
    captured: Captured
    optimizer: Optimizer
    batch: Batch
    loss: Loss
    measure: Measure


class Report:
    """What each layer is worth and costs; ``profile`` makes it, ``load`` reads one.

    Args:
        sensitivity: what each layer is worth.
        profiled: the model; None for a report that was read from a file.
        tables: costs by kind of target, as far as they are known.
    """

    def __init__(
        self,
        sensitivity: Sensitivity,
        profiled: Profiled | None = None,
        tables: Mapping[str, CostTable] | None = None,
    ) -> None:
        self.sensitivity = sensitivity
        self.checked: tuple[Checked, ...] = ()
        self._profiled = profiled
        self._tables = dict(tables or {})

    def best(
        self,
        *,
        target: str = "host",
        memory_bytes: int | None = None,
        step_ms: float | None = None,
        energy_joules: float | None = None,
        micro_batches: int = 1,
    ) -> Found:
        """The choice that gains most within limits, and its bound; ``scheme`` makes it a scheme.

        Memory is what a step really takes: while the model is at hand, every answer is planned as
        ``compile`` would, and the search goes on where the plan is above the limit.

        Args:
            target: the machine, by its name in ``pockengine.targets``.
            memory_bytes: of working memory: the arena, what is updated, and state; None for all
                that the target has.
            step_ms: of a step on the target.
            energy_joules: likewise.
            micro_batches: parts of a batch that a step runs in turn, as ``compile``. The table of
                costs does not know them, so the model has to be at hand; times stay those of whole
                batches.

        Raises:
            InputError: no choice is within the limits, the target lacks a number, or the report was
                read from a file that has no costs for such a target.
        """
        machine = get_target(target)
        limits = _limits(machine, memory_bytes, step_ms, energy_joules)
        modes = Modes(micro_batches=micro_batches)
        if micro_batches > 1:
            self._at_hand("best(micro_batches=...)")
        check = None if self._profiled is None else self._planner(machine, modes)
        costs = self.costs(target)
        return best(self.sensitivity, costs, limits, target=machine, check=check)

    def finalists(
        self,
        *,
        target: str = "host",
        memory_bytes: int | None = None,
        step_ms: float | None = None,
        energy_joules: float | None = None,
        micro_batches: int = 1,
        rounds: int = 2,
    ) -> tuple[Found, ...]:
        """Choices within limits, each fine-tuned as a whole; the one to take comes first.

        The first round measures what ``best`` finds and, where more rounds follow, the most biases
        and the most whole layers within the limits. Each further one searches again with gains
        that agree with all that was measured (``refined``), until that finds nothing new. They are
        ordered by these gains, and told with them; what was measured is in ``checked``.

        Args:
            target: as ``best``, and so are the limits.
            memory_bytes: likewise.
            step_ms: likewise.
            energy_joules: likewise.
            micro_batches: likewise; accuracies are those of whole batches, which are the same.
            rounds: at least 1.

        Raises:
            InputError: as ``best`` and ``check``.
        """
        machine, modes = get_target(target), Modes(micro_batches=micro_batches)
        self._at_hand("finalists")
        if not is_whole(rounds) or rounds < 1:
            raise InputError(
                where="report.finalists(rounds=...)",
                found=repr(rounds),
                needed="a whole number of at least 1",
                remedy="Give rounds=2, for example; best measures nothing",
            )
        limits = _limits(machine, memory_bytes, step_ms, energy_joules)
        costs, planned = self.costs(target), self._planner(machine, modes)

        def told(choice: Choice) -> Found:
            return priced(gains, costs, choice, target=machine, check=planned)

        gains = self.refined().sensitivity
        choices: list[Choice] = []
        bound = 0.0
        for _ in range(rounds):
            found = best(gains, costs, limits, target=machine, check=planned)
            bound = found.bound
            if found.choice in choices:
                break
            new = [found.choice]
            if rounds > 1 and not choices:
                new += plain_choices(self.sensitivity, lambda choice: limits.allow(told(choice)))
            known = {each.choice for each in self.checked}
            self.check(dict.fromkeys(choice for choice in new if choice not in known))
            gains = self.refined().sensitivity
            choices += new
        tried = [told(choice) for choice in dict.fromkeys(choices)]
        tried = [replace(found, bound=max(bound, found.gain)) for found in tried]
        return tuple(sorted(tried, key=lambda found: -found.gain))

    def front(
        self, *, target: str = "host", axis: Axis = "memory", most: int = 32
    ) -> tuple[Found, ...]:
        """Choices of which none gains more at no more cost, from the least cost on.

        Args:
            target: as ``best``.
            axis: "memory", "time" or "energy".
            most: how many points.
        """
        return front(
            self.sensitivity, self.costs(target), axis=axis, target=get_target(target), most=most
        )

    def scheme(self, choice: Choice | Found) -> Scheme:
        """A choice as ``compile`` takes it."""
        chosen = choice.choice if isinstance(choice, Found) else choice
        return chosen.scheme(self.sensitivity.layers, self.sensitivity.head)

    def check(self, choices: Iterable[Choice | Found]) -> tuple[Checked, ...]:
        """Fine-tune choices as a whole and tell their gains beside what was predicted.

        They are kept in ``checked``, as the page shows them.

        Raises:
            InputError: the report was read from a file.
        """
        chosen = [x.choice if isinstance(x, Found) else x for x in choices]
        measure = self._at_hand("check").measure
        found = tuple(measure(chosen)) if chosen else ()
        self.checked = (*self.checked, *found)
        return found

    def refined(self) -> Report:
        """A report whose gains agree with what was measured of ``checked`` choices."""
        made = Report(refined(self.sensitivity, self.checked), self._profiled, self._tables)
        made.checked = self.checked
        return made

    def costs(self, target: str = "host") -> CostTable:
        """What every choice costs on a target.

        Raises:
            InputError: as ``best``.
        """
        machine = get_target(target)
        key = _kind(machine)
        if key not in self._tables:
            known = self._at_hand("best", machine)
            ratios = sorted({ratio for _, ratio in self.sensitivity.weights} or set(RATIOS))
            costs = ChoiceCosts(
                known.captured.graph,
                known.model,
                layers=self.sensitivity.layers,
                head=self.sensitivity.head,
                optimizer=known.optimizer,
                target=machine,
            )
            self._tables[key] = costs.table(ratios)
        return self._tables[key]

    def table(self) -> str:
        """The sensitivity as a table for the terminal."""
        return table(self.sensitivity)

    def to_csv(self) -> str:
        """The sensitivity as CSV, a row for each candidate."""
        return to_csv(self.sensitivity)

    def page(
        self,
        chosen: Found | None = None,
        *,
        target: str = "host",
        command: str = "",
        title: str = "What each layer is worth",
    ) -> str:
        """One HTML page that works offline.

        Args:
            chosen: what to explain.
            target: whose costs are shown.
            command: that compiles what was chosen.
            title: of the page.
        """
        return page(
            self.sensitivity,
            costs=layer_costs(self.sensitivity, self.costs(target), get_target(target)),
            front=[_point(found) for found in self.front(target=target)],
            chosen=None if chosen is None else _point(chosen),
            checked=self.checked,
            command=command,
            title=title,
        )

    def save(self, path: str | Path) -> None:
        """Write the sensitivity and all costs that were asked for as JSON."""
        document = {
            "format": _FORMAT,
            "version": _VERSION,
            "sensitivity": json.loads(self.sensitivity.to_json()),
            "costs": {key: json.loads(costs.to_json()) for key, costs in self._tables.items()},
        }
        try:
            replace_file(Path(path), [memoryview((json.dumps(document) + "\n").encode())])
        except OSError as error:
            raise unwritable(InputError, path, error) from error

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read what ``save`` wrote.

        Raises:
            InputError: it cannot be read, or is something else.
        """
        try:
            document = json.loads(Path(path).read_text(encoding="utf-8"))
            if document["format"] != _FORMAT or document["version"] != _VERSION:
                raise _no_report(path, f"{document['format']} of version {document['version']}")
            costs = {k: CostTable.from_json(json.dumps(v)) for k, v in document["costs"].items()}
            return cls(Sensitivity.from_json(json.dumps(document["sensitivity"])), None, costs)
        except InputError:
            raise
        except OSError as error:
            raise _no_report(path, f"it cannot be read ({error.strerror})") from error
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise _no_report(path, f"something else ({type(error).__name__})") from error

    def _at_hand(self, what: str, target: Target | None = None) -> Profiled:
        if self._profiled is None:
            beside = "" if target is None else f" for a target such as {target.name}"
            raise InputError(
                where=f"report.{what}",
                found=f"a report that was read from a file without what this needs{beside}",
                needed="the model that was profiled",
                remedy="Call profile again with the same folder: its trials are not repeated",
            )
        return self._profiled

    def _planner(self, target: Target, modes: Modes) -> Callable[[Choice], int]:
        """The memory that ``compile`` would plan for a choice."""
        known = self._at_hand("best")
        captured, part = with_part(known.captured, known.model, known.batch, known.loss, modes)

        @lru_cache
        def planned(choice: Choice) -> int:
            scheme = self.scheme(choice).resolve(known.model)
            prepared = prepare_captured(
                [captured],
                trains=[True],
                scheme=scheme,
                channels=scheme.channels(known.model),
                optimizer=known.optimizer,
                modes=modes,
                part=part,
                target=target,
            )
            return working_bytes(prepared.plan, target)

        return planned


def _limits(
    machine: Target, memory_bytes: int | None, step_ms: float | None, energy_joules: float | None
) -> Limits:
    """With all the memory that the target has where none is given."""
    room = machine.working_bytes if memory_bytes is None else memory_bytes
    return Limits(memory_bytes=room, step_ms=step_ms, energy_joules=energy_joules)


def _point(found: Found) -> FrontPoint:
    return FrontPoint(
        choice=found.choice,
        gain=found.gain,
        memory_bytes=found.memory_bytes,
        step_ms=found.step_ms,
        joules=found.energy_joules,
    )


def _kind(target: Target) -> str:
    """What of a target decides memory."""
    return f"alignment {target.alignment_bytes}, flash {target.flash_bytes is not None}"


def _no_report(path: str | Path, found: str) -> InputError:
    return InputError(
        where=str(path),
        found=found,
        needed="a report of this version",
        remedy="Write one: pockengine profile writes report.json, and so does report.save",
    )
