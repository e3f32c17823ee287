"""Profiles of pretrained models on real tasks: `python -m experiments.contribution.run PAIR`.

    python -m experiments.contribution.run mobilenet_v2-fashion-mnist          the full profile
    python -m experiments.contribution.run mobilenet_v2-fashion-mnist --fast   from estimates

Writes PAIR.json (or PAIR-fast.json), PAIR.csv and PAIR.txt here, and the seconds it took. Trials
are kept under the user's cache folder: a run goes on where the last one stopped, and its seconds
then add up.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path

import pockengine as pe
from experiments.contribution.pairs import PAIRS, load
from pockengine.contribution.begin import Settings

HERE = Path(__file__).parent
CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "pockengine-profiles"
SEEDS, BATCH, LOSS = 2, 8, "cross_entropy"


def settings(lr: float, epochs: int, warmup: int = 0) -> Settings:
    """How trials are run at a learning rate: as ``profile`` runs those of ``profiled``."""
    return Settings(
        loss=LOSS,
        optimizer=pe.SGD(momentum=0.9),
        lr=lr,
        warmup=warmup,
        epochs=epochs,
        batch=BATCH,
        score=None,
        cache_bytes=2 << 30,
    )


def profiled(name: str, *, fast: bool, jobs: int | None) -> None:
    """Profile a pair and write what came of it."""
    pair = PAIRS[name]
    model, task, _ = load(pair)
    stem = f"{name}-fast" if fast else name
    timing = HERE / f"{stem}.seconds.json"
    before = json.loads(timing.read_text()) if timing.exists() else []
    began = time.time()
    try:
        found = pe.profile(
            model,
            task,
            lr=pair.lr,
            epochs=pair.epochs,
            batch=BATCH,
            seeds=SEEDS,
            fast=fast,
            folder=CACHE / name,
            jobs=jobs,
            progress=lambda done, total: print(
                f"{time.time() - began:6.0f} s: {done} of {total}", flush=True
            ),
        )
    finally:
        timing.write_text(json.dumps([*before, round(time.time() - began, 1)]) + "\n")
    found.save(HERE / f"{stem}.json")
    (HERE / f"{stem}.csv").write_text(found.to_csv(), encoding="utf-8")
    (HERE / f"{stem}.txt").write_text(found.table() + "\n", encoding="utf-8")
    print(found.table())


def main() -> None:
    """Profile what the command line names."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("pair", choices=sorted(PAIRS))
    parser.add_argument("--fast", action="store_true", help="from estimates")
    parser.add_argument("--jobs", type=int, help="processes; default: one a core")
    options = parser.parse_args()
    profiled(options.pair, fast=options.fast, jobs=options.jobs)


if __name__ == "__main__":
    main()
