"""What gradients say of a layer's worth without fine-tuning it: an estimate in seconds.

With the head trained and the rest as it came, the loss falls by lr |g|^2 in a first small step,
where g is the gradient over the task. A mean over few batches has noise besides, whose part is the
Fisher information's share, and is taken off: sum over pairs of different batches of <g, g'>.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pockengine.contribution.study import Array, arrays_of, load_study
from pockengine.contribution.trial import Candidate, trained_head
from pockengine.ir.graph import Outputs, name_of, outputs_of, placeholders, subgraph
from pockengine.ir.interpret import interpret
from pockengine.ir.types import Role


def estimate(
    folder: str, head: Candidate, seed: int, axes: Mapping[str, int], count: int
) -> dict[str, list[float]]:
    """Squared gradients of some parameters, by index of an axis, noise taken off.

    Args:
        folder: of the study.
        head: the candidate that trains the head alone.
        seed: of the head and of the batches.
        axes: by name of the parameter, the axis by which to tell; the others are summed over.
        count: how many batches, at least 2.

    Returns:
        By name, for each index: the mean over pairs of batches of the product of their gradients.
    """
    study = load_study(Path(folder))
    captured = study.captured
    counters = {name_of(n): torch.tensor(0) for n in placeholders(captured.graph, Role.STATE)}
    values = {**counters, **captured.tensors, **trained_head(folder, head, seed)}
    found = outputs_of(captured.graph)
    wanted = {name: found.gradients[name] for name in axes if name in found.gradients}
    graph = subgraph(captured.graph, Outputs(loss=found.loss, gradients=wanted))
    data = study.data_beside(Path(folder))
    inputs = arrays_of(data, "train", "cut-1", len(captured.inputs))
    targets = arrays_of(data, "train", "targets", len(captured.targets))
    total: dict[str, Tensor] = {}
    square: dict[str, Tensor] = {}
    for at in _batches(study.rows["train"], study.batch, seed, count):
        arrays = [torch.from_numpy(x[at]) for x in (*inputs, *targets)]
        given = dict(zip((*captured.inputs, *captured.targets), arrays, strict=True))
        for name, gradient in interpret(graph, {**values, **given}).gradients.items():
            total[name] = total[name] + gradient if name in total else gradient.clone()
            alone = _by_index(gradient * gradient, axes[name])
            square[name] = square[name] + alone if name in square else alone
    pairs = count * (count - 1)
    return {
        name: ((_by_index(g * g, axes[name]) - square[name]) / pairs).tolist()
        for name, g in total.items()
    }


def _by_index(values: Tensor, axis: int) -> Tensor:
    """Summed over all axes but one: (extent,), float64."""
    rest = [index for index in range(values.dim()) if index != axis]
    return values.double().sum(rest) if rest else values.double()


def _batches(rows: int, size: int, seed: int, count: int) -> Sequence[Array]:
    """Random batches, different ones as far as there are."""
    random = np.random.default_rng(seed)
    order = np.concatenate([random.permutation(rows) for _ in range(-(-count * size // rows))])
    return [np.sort(order[k * size : (k + 1) * size]) for k in range(count)]
