"""The runs of `pockengine demo`; experiments/demo found the settings of the pretrained models."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from pockengine import schedules
from pockengine.cli.data import Wanted
from pockengine.cli.session import open_session
from pockengine.errors import PayloadError

_BATCH = 8
_FEW = 20  # examples of a class
_MIB = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A model, a task and how it is learnt; ``instead`` is the built-in job without a network."""

    model: str
    scheme: str
    lr: float
    epochs: int
    optimizer: str = "momentum"
    length: int | None = None
    instead: str = ""


JOBS: Mapping[str, Job] = MappingProxyType(
    {
        "openclipart": Job(
            model="mobilenet_v2", scheme="last_blocks:3", lr=1e-3, epochs=4, instead="shapes"
        ),
        "sentiment-movie": Job(
            model="mini_lm", scheme="last_blocks:2", lr=1e-2, epochs=3, instead="phrases"
        ),
        "shapes": Job(
            model="small_cnn", scheme="last_blocks:2", lr=3e-3, epochs=4, optimizer="adamw"
        ),
        "phrases": Job(
            model="small_encoder",
            scheme="last_blocks:1",
            lr=3e-3,
            epochs=3,
            optimizer="adamw",
            length=16,
        ),
    }
)
"""By the name of their task."""


def run_demo(
    task: str | None, *, quick: bool, threads: int | None, say: Callable[[str], None]
) -> list[dict[str, Any]]:
    """A row for each run: accuracy before and after, and memory.

    Args:
        task: only this one; None for the two with pretrained models.
        quick: few examples, one epoch.
        threads: as ``compile``.
        say: tells what goes on.
    """
    rows = []
    for name in [task] if task else ["openclipart", "sentiment-movie"]:
        try:
            rows.append(_run(name, quick, threads, say))
        except PayloadError as error:
            instead = JOBS[name].instead
            say(f"{error}\nUsing the built-in task {instead!r} and random weights instead.")
            rows.append(_run(instead, quick, threads, say))
    return rows


def _run(task: str, quick: bool, threads: int | None, say: Callable[[str], None]) -> dict[str, Any]:
    job = JOBS[task]
    say(f"{task}: loading")
    wanted = Wanted(limit=_FEW if quick else None, length=job.length, bert=job.model == "mini_lm")
    session = open_session(job.model, task, wanted, batch=_BATCH, optimizer=job.optimizer)
    epochs = 1 if quick else job.epochs
    say(f"{task}: compiling {job.model}, {job.scheme} (kernels are built once)")
    with session.compile(job.scheme, threads) as trainer:
        before = trainer.metrics(session.test, metrics=("accuracy",))["accuracy"]
        steps = -(-len(session.train[1]) // _BATCH) * epochs
        history = trainer.fit(
            session.train,
            validation=session.test,
            epochs=epochs,
            lr=schedules.linear(job.lr, 0.0, steps),
        )
        last = history.rows[-1]
        return {
            "task": task,
            "model": job.model,
            "scheme": job.scheme,
            "accuracy before": before,
            "after": last["val_accuracy"],
            "samples/s": last["samples_per_s"],
            "arena MiB": trainer.plan.arena_bytes / _MIB,
        }
