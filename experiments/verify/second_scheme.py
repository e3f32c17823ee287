"""How long a further scheme of MobileNetV2 takes with a warm kernel cache, and where the time goes.

    python -m experiments.verify.second_scheme

prints a line of JSON: for each scheme the seconds of passes and plan, of kernels and tables, and of
opening the trainer, in all, and of that the processor time (the rest was spent waiting for other
processes); and the events by which this process started others, of which there are to be
none. `make verify` runs it in a process of its own.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping

import torch
from torch import nn

import pockengine as pe
from pockengine.compile import link, prepare
from pockengine.frontend.recall import recall
from pockengine.scheme import Rule, Scheme
from pockengine.tasks import mobilenet_v2
from tests.spine import mixed_scheme

_EVENTS = ("subprocess.Popen", "os.fork", "os.posix_spawn", "os.system", "os.exec")

Batch = tuple[torch.Tensor, torch.Tensor]


def schemes(model: nn.Module) -> Mapping[str, Scheme | Rule]:
    """Full first, then those that are to be ready soon."""
    return {
        "full": Scheme.full(),
        "bias_only": Scheme.bias_only(),
        "last_blocks": Scheme.last_blocks(2),
        "mixed": mixed_scheme(model),
    }


def ready(model: nn.Module, batch: Batch, scheme: Scheme | Rule) -> dict[str, float]:
    """Make a trainer and take a step; seconds by stage."""
    clock = [time.perf_counter()]
    processor = time.process_time()

    def lap() -> float:
        clock.append(time.perf_counter())
        return clock[-1] - clock[-2]

    recall(model, batch, "cross_entropy")
    seconds = {"capture": lap()}
    prepared = prepare(
        model, batch, loss="cross_entropy", optimizer=pe.SGD(momentum=0.9), scheme=scheme
    )
    seconds["passes_and_plan"] = lap()
    program = link(prepared)
    seconds["kernels_and_tables"] = lap()
    trainer = pe.Trainer(program, prepared.captured.tensors, threads=1)
    seconds["open"] = lap()
    seconds["ready"] = sum(seconds.values())
    seconds["ready_processor"] = time.process_time() - processor
    lap()
    trainer.step(*batch, lr=1e-3)
    seconds["first_step"] = lap()
    trainer.close()
    return seconds


def measured(now: Callable[[], None]) -> dict[str, dict[str, float]]:
    """The seconds of all schemes; ``now`` is called once their kernels are in the cache."""
    torch.manual_seed(0)
    model = mobilenet_v2(classes=10).eval()
    batch = torch.randn(8, 3, 128, 128), torch.randint(0, 10, (8,))
    for scheme in schemes(model).values():
        ready(model, batch, scheme)
    now()
    fresh = mobilenet_v2(classes=10).eval()
    return {name: ready(fresh, batch, scheme) for name, scheme in schemes(fresh).items()}


def main() -> None:
    """Measure and print."""
    events: list[str] = []
    watching: list[bool] = []
    sys.addaudithook(
        lambda event, _: events.append(event) if watching and event in _EVENTS else None
    )
    seconds = measured(lambda: watching.append(True))
    sys.stdout.write(json.dumps({"seconds": seconds, "processes": events}) + "\n")


if __name__ == "__main__":
    main()
