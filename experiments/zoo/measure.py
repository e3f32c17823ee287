"""One architecture of the zoo at its natural size, in this process, as JSON.

python -m experiments.zoo.measure resnet18
"""

from __future__ import annotations

import argparse
import json
import os

import torch
from torch import nn

import pockengine as pe
from experiments.beside import in_turns, saved_bytes
from pockengine.frontend.capture import canonical_batch
from pockengine.frontend.losses import loss_function
from tests.eager import call
from tests.zoo import ZOO

LR = 1e-3
MOMENTUM = 0.9
DROPOUT = 0.1


def measured(name: str) -> dict[str, object]:
    """Medians in milliseconds, and transient bytes of either side."""
    torch.manual_seed(0)
    exhibit = ZOO[name]
    model = exhibit.build(exhibit.natural)
    dropouts = [module for module in model.modules() if isinstance(module, nn.Dropout)]
    for dropout in dropouts if exhibit.train else ():
        dropout.p = DROPOUT  # as people train it; the losses of two random sequences differ
    inputs, targets = canonical_batch(exhibit.natural.batch())
    criterion = loss_function(exhibit.loss)
    trainer = pe.compile(
        model,
        (inputs, targets),
        loss=exhibit.loss,
        optimizer=pe.SGD(momentum=MOMENTUM),
        threads=1,
    )
    saved = saved_bytes(model, lambda: criterion(call(model, inputs), targets))
    if exhibit.train:  # that was a forward pass too: back to the statistics that were compiled
        model.load_state_dict(trainer.state_dict())
    optimizer = torch.optim.SGD(model.parameters(), lr=LR, momentum=MOMENTUM)

    def eager() -> float:
        loss = criterion(call(model, inputs), targets)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        return float(loss.detach())

    tolerance = 1e6 if exhibit.train and dropouts else 1e-2
    times = in_turns(eager, lambda: trainer.step(inputs, targets, lr=LR), tolerance=tolerance)
    return {
        **times,
        "torch_saved_bytes": saved,
        "arena_bytes": trainer.plan.arena_bytes,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
    }


def main() -> None:
    """Measure what the command line names, on one core."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("name", choices=sorted(ZOO))
    options = parser.parse_args()
    torch.set_num_threads(1)
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-1:])
    print(json.dumps(measured(options.name)))


if __name__ == "__main__":
    main()
