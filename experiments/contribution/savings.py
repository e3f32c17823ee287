"""What fronts, shared kernels and halving save: `python -m experiments.contribution.savings PAIR`.

The plain way trains every candidate of a full profile for the whole run, from the model's own
inputs, with kernels built for it alone. Some candidates, spread evenly over all, are trained so,
in as many processes as the profile had; the profile's own seconds are those that `run` wrote.
Writes PAIR.savings.json.
"""

from __future__ import annotations

import argparse
import json
import os
from concurrent.futures import Executor
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter

from experiments.contribution.pairs import PAIRS, load
from experiments.contribution.run import CACHE, HERE, SEEDS, settings
from pockengine.contribution.begin import begin
from pockengine.contribution.candidates import bias_choices, candidate_of, weight_choices
from pockengine.contribution.choice import RATIOS
from pockengine.contribution.pool import local_pool
from pockengine.contribution.trial import Candidate, Course, run_trials
from pockengine.lower import program
from pockengine.lower.cache import KernelCache

SAMPLED = 12


def _plain(folder: str, candidate: Candidate, steps: int) -> float:
    """Seconds of one seed, kernels built anew."""
    with TemporaryDirectory() as empty:
        program.host_cache = lambda: KernelCache(Path(empty))
        began = perf_counter()
        run_trials(folder, candidate, [0], Course(stops=(steps,)))
        return perf_counter() - began


def _seconds(pool: Executor, folder: Path, candidates: list[Candidate], steps: int) -> list[float]:
    jobs = [pool.submit(_plain, str(folder), each, steps) for each in candidates]
    return [job.result() for job in jobs]


def measured(name: str, jobs: int) -> None:
    """Time the plain way of a pair's profile on a sample, and write how much longer it takes."""
    pair = PAIRS[name]
    model, task, _ = load(pair)
    begun = begin(model, task, settings(pair.lr, pair.epochs), CACHE / name)
    choices = [*bias_choices(begun.layers), *weight_choices(begun.layers, RATIOS, model)]
    sampled = choices[SAMPLED // 2 :: len(choices) // SAMPLED]
    uncut = [-1] * (len(begun.layers) + 1)
    candidates = [candidate_of(c, begun.layers, begun.head, model, uncut) for c in sampled]
    with local_pool(jobs) as pool:
        seconds = _seconds(pool, begun.folder, candidates, begun.study.steps)
    plain = sum(seconds) / len(seconds) * len(choices) * SEEDS / jobs
    took = sum(json.loads((HERE / f"{name}.seconds.json").read_text()))
    found = {
        "candidates": len(choices),
        "sampled_seconds": [round(x, 1) for x in seconds],
        "plain_seconds": round(plain),
        "profile_seconds": took,
        "times": round(plain / took, 2),
    }
    (HERE / f"{name}.savings.json").write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps(found, indent=1))


def main() -> None:
    """Measure the pair that the command line names."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("pair", choices=sorted(PAIRS))
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes")
    options = parser.parse_args()
    measured(options.pair, options.jobs)


if __name__ == "__main__":
    main()
