"""Fine-tune pretrained models on real data by compiled trainers, beside PyTorch. `make demo`.

    python experiments/demo/run.py                     both models, sparse and full
    python experiments/demo/run.py --quick             a few steps of each sparse scheme
    python experiments/demo/run.py --task openclipart  one of them

The first steps are taken by PyTorch too, on the same batches and in turns with the compiled
trainer: that is where the times and the difference of the losses come from.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from baseline import BATCH
from data import Data
from eager import Eager
from jobs import JOBS, Job, Run
from tabulate import tabulate
from torch import Tensor

import pockengine as pe
from pockengine.errors import PayloadError
from pockengine.plan.memory import Plan

COMPARED = 12  # steps that PyTorch takes too
UNTIMED = 2  # of them, at the start
QUICK_EXAMPLES = 160
SEED = 0
MIB = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What one run showed; times are medians in milliseconds, memory is in bytes."""

    run: str
    before: float
    after: float
    torch_ms: float
    ms: float
    loss_error: float
    torch_transient: int
    torch_kept: int
    plan: Plan


@dataclass(frozen=True, slots=True)
class Step:
    """The inputs, labels and learning rate of a step."""

    inputs: tuple[Tensor, ...]
    labels: Tensor
    lr: float


def batches(data: Data, run: Run) -> Iterator[Step]:
    """Shuffled batches of all epochs, at a rate that falls to 0; an epoch's remainder is left."""
    random = np.random.default_rng(SEED)
    each = len(data.train_labels) // BATCH
    for epoch in range(run.epochs):
        order = torch.from_numpy(random.permutation(len(data.train_labels)))
        for step in range(each):
            at = order[step * BATCH : (step + 1) * BATCH]
            share = (epoch * each + step) / (run.epochs * each)
            yield Step(
                tuple(part[at] for part in data.train_inputs),
                data.train_labels[at],
                run.lr * (1 - share),
            )


def accuracy(trainer: pe.Trainer, data: Data) -> float:
    """The share of test examples that are classified rightly; the last batch is filled up."""
    count, right = len(data.test_labels), 0
    for start in range(0, count, BATCH):
        at = torch.arange(start, start + BATCH).clamp(max=count - 1)
        labels = trainer.predict(tuple(part[at] for part in data.test_inputs)).argmax(dim=1)
        used = min(BATCH, count - start)
        right += int((labels == data.test_labels[at])[:used].sum())
    return right / count


def compare(trainer: pe.Trainer, eager: Eager, steps: Sequence[Step]) -> tuple[float, float, float]:
    """Take steps in turns; return PyTorch's ms, ours, and the largest relative error of a loss."""
    torch_ms, ours_ms, errors = [], [], [0.0]
    for step in steps:
        started = time.perf_counter()
        wanted = eager.step(step.inputs, step.labels, lr=step.lr)
        between = time.perf_counter()
        found = trainer.step(step.inputs, step.labels, lr=step.lr)
        torch_ms.append((between - started) * 1e3)
        ours_ms.append((time.perf_counter() - between) * 1e3)
        errors.append(abs(found - wanted) / abs(wanted))
    return float(np.median(torch_ms[UNTIMED:])), float(np.median(ours_ms[UNTIMED:])), max(errors)


def fine_tune(job: Job, run: Run, data: Data) -> Result:
    """Compile, compare with PyTorch for some steps, and train to the end."""
    torch.manual_seed(SEED)
    model = job.model(data.classes).eval()
    steps = list(batches(data, run))
    example = (steps[0].inputs, steps[0].labels)
    say(f"{run.name}: compiling (kernels are built once, which can take a minute)")
    started = time.perf_counter()
    trainer = pe.compile(
        model, example, loss="cross_entropy", optimizer=job.optimizer, scheme=run.scheme
    )
    say(f"{run.name}: ready in {time.perf_counter() - started:.1f} s")
    torch.set_num_threads(trainer.threads)
    before = accuracy(trainer, data)
    eager = Eager(model, run.scheme.resolve(model), job.optimizer)
    saved = eager.saved_bytes(*example)
    torch_ms, ms, error = compare(trainer, eager, steps[:COMPARED])
    train(trainer, run, steps[COMPARED:])
    return Result(
        run=run.name,
        before=before,
        after=accuracy(trainer, data),
        torch_ms=torch_ms,
        ms=ms,
        loss_error=error,
        torch_transient=saved + eager.gradient_bytes,
        torch_kept=eager.weight_bytes + eager.state_bytes,
        plan=trainer.plan,
    )


def train(trainer: pe.Trainer, run: Run, steps: Sequence[Step]) -> None:
    """Train, saying some ten times how far it is."""
    losses: list[float] = []
    for number, step in enumerate(steps, start=1):
        losses.append(trainer.step(step.inputs, step.labels, lr=step.lr))
        if number % max(1, len(steps) // 10) == 0:
            say(f"{run.name}: step {COMPARED + number}, loss {np.mean(losses):.3f}")
            losses.clear()


def shorter(job: Job, data: Data) -> tuple[Job, Data]:
    """The sparse scheme for one epoch of few examples."""
    cut = slice(QUICK_EXAMPLES)
    small = replace(
        data,
        train_inputs=tuple(part[cut] for part in data.train_inputs),
        train_labels=data.train_labels[cut],
        test_inputs=tuple(part[cut] for part in data.test_inputs),
        test_labels=data.test_labels[cut],
    )
    return replace(job, runs=(replace(job.runs[0], epochs=1),)), small


def load(name: str) -> tuple[Job, Data]:
    """A job whose data and weights are here: the named one, or the built-in one instead."""
    job = JOBS[name]
    try:
        data = job.data()
        job.model(data.classes)  # fetches the weights
    except PayloadError as error:
        say(f"{error}\nUsing the built-in task {job.instead!r} and random weights instead.")
        return load(job.instead)
    return job, data


def report(title: str, results: Sequence[Result]) -> str:
    """The tables of a job: accuracy and time, then memory by region."""
    rows = [
        (r.run, r.before, r.after, r.torch_ms, r.ms, f"{r.torch_ms / r.ms:.2f}x", r.loss_error)
        for r in results
    ]
    heads = ("scheme", "before", "after", "PyTorch ms", "PockEngine ms", "speed", "loss error")
    memory = [(r.run, *(n / MIB for n in sizes(r))) for r in results]
    columns = ("scheme", "PyTorch transient", "arena", "PyTorch kept", "const", "param", "state")
    formats = ("", ".3f", ".3f", ".1f", ".1f", "", ".0e")
    first = tabulate(rows, heads, tablefmt="github", floatfmt=formats)
    second = tabulate(memory, columns, tablefmt="github", floatfmt=".2f")
    return f"\n{title}\n{first}\n\nMemory, MiB\n{second}\n"


def sizes(result: Result) -> tuple[int, ...]:
    """Bytes by column of the table of memory."""
    plan = result.plan
    kept = (plan.const_bytes, plan.param_bytes, plan.state_bytes)
    return (result.torch_transient, plan.arena_bytes, result.torch_kept, *kept)


def say(text: str) -> None:
    """Print at once, also into a pipe."""
    print(text, flush=True)


CLOSING = """\
before, after: accuracy on the test set. ms: median of a training step, in turns with PyTorch on as
many threads. Loss error: largest relative difference from PyTorch over the first {compared} steps.
PyTorch transient: activations saved for the backward pass, and gradients; the arena holds all that
is transient here, inputs too. PyTorch kept: weights and optimizer state = const + param + state.
Took {seconds:.0f} s. Next: the example of README.md with your own model and data."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="a few steps of each sparse scheme")
    parser.add_argument("--task", choices=sorted(JOBS), help="only this one")
    options = parser.parse_args(arguments)
    started = time.perf_counter()
    for name in [options.task] if options.task else ["openclipart", "sentiment-movie"]:
        say(f"\n{name}: loading")
        job, data = load(name)
        if options.quick:
            job, data = shorter(job, data)
        say(report(job.title, [fine_tune(job, run, data) for run in job.runs]))
    say(CLOSING.format(compared=COMPARED, seconds=time.perf_counter() - started))


if __name__ == "__main__":
    main()
