"""From a part of a captured model to a trainer of it, without the names of the user's model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from pockengine.compile import link, prepare_captured
from pockengine.frontend.capture import Captured
from pockengine.ir.graph import name_of, outputs_of, placeholders
from pockengine.optimizer import Optimizer
from pockengine.scheme import Channels, Scheme
from pockengine.trainer import Trainer


def build(
    captured: Captured,
    optimizer: Optimizer,
    *,
    scheme: Scheme | None = None,
    channels: Mapping[str, Channels] | None = None,
    named: Iterable[str] = (),
    brief: bool = True,
    threads: int | None = None,
) -> Trainer:
    """Compile a captured graph.

    Args:
        captured: what to compile; its tensors may be more than those that the graph reads.
        optimizer: how parameters are updated.
        scheme: which, resolved; none for a graph that is only to predict.
        channels: the part of each parameter that is updated in part.
        named: parameters that are asked for or set by name besides those that are updated.
        brief: as ``prepare_captured``; False for what ``compile`` makes.
        threads: of the trainer.
    """
    read = {name_of(node) for node in placeholders(captured.graph)}
    tensors = {name: t for name, t in captured.tensors.items() if name in read}
    chosen = Scheme({}) if scheme is None else scheme
    prepared = prepare_captured(
        [replace(captured, tensors=tensors)],
        trains=[bool(outputs_of(captured.graph).gradients)],
        scheme=chosen,
        channels=channels or {},
        optimizer=optimizer,
        brief=brief,
        recompute=0.0 if brief else None,
    )
    dtypes = {name: tensor.dtype for name, tensor in tensors.items()}
    names = {name: name for name in {*named, *chosen} if name in tensors}
    program = link(replace(prepared, names=names, dtypes=dtypes), progress=_silent)
    return Trainer(program, tensors, threads=threads)


def _silent(_done: int, _total: int) -> None:
    """A trial shows no bar of its own."""
