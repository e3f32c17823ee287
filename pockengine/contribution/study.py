"""What all trials of a profile share, in a folder: any process that sees it can run any trial."""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.fx import Graph

from pockengine.disk import replace_file
from pockengine.frontend.capture import Captured
from pockengine.ir.text import parse, text
from pockengine.optimizer import Optimizer

Array: TypeAlias = npt.NDArray[Any]
Arrays: TypeAlias = tuple[Array, ...]
Score: TypeAlias = Callable[[Sequence[Array], Arrays], Array]
"""(outputs, targets) of a batch -> (N,): how right each sample is, from 0 to 1."""

_STUDY, _TENSORS = "study.pickle", "tensors.pt"
PARTS = ("train", "test")


@dataclass(frozen=True, slots=True, kw_only=True)
class Study:
    """A model, a task and how candidates are trained on it.

    Args:
        captured: the model with its loss, at the batch that is trained.
        head: canonical names of the head's parameters.
        optimizer: of every trial.
        lr: the learning rate, which falls linearly to 0 over the run.
        warmup: steps at the start over which it rises.
        steps: of a whole run.
        batch: samples of a step.
        rows: samples of the parts "train" and "test".
        score: how right an output is; None for whether the largest class score is the label's.
        cuts: inputs behind each cut, by the number of the folder that holds them; the model's own
            inputs are cut -1.
        data: name of the folder with the arrays, which is beside the study's own: studies that
            differ in how candidates are trained share it.
    """

    captured: Captured
    head: tuple[str, ...]
    optimizer: Optimizer
    lr: float
    steps: int
    batch: int
    rows: Mapping[str, int]
    score: Score | None = None
    cuts: Mapping[int, tuple[str, ...]]
    data: str
    warmup: int = 0

    def data_beside(self, folder: Path) -> Path:
        """The folder with the arrays, for the study's own."""
        return folder.parent / self.data

    def inputs(self, cut: int) -> tuple[str, ...]:
        """Names of the inputs behind a cut."""
        return self.captured.inputs if cut < 0 else self.cuts[cut]

    def save(self, folder: Path) -> None:
        """Write all but the data to a folder."""
        kept = {f.name: getattr(self.captured, f.name) for f in fields(Captured)}
        kept |= {"graph": text(self.captured.graph), "tensors": {}, "assumed": {}}
        alike = self.captured.evaluation is self.captured.graph
        kept["evaluation"] = None if alike else text(self.captured.evaluation)
        mine = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "captured"}
        torch.save(dict(self.captured.tensors), folder / _TENSORS)
        replace_file(folder / _STUDY, [memoryview(pickle.dumps((kept, mine)))])


@lru_cache(maxsize=1)
def load_study(folder: Path) -> Study:
    """What ``Study.save`` wrote; the last one is kept."""
    kept, mine = pickle.loads((folder / _STUDY).read_bytes())  # noqa: S301 - our own folder
    graph = parse(kept["graph"])
    evaluation = graph if kept["evaluation"] is None else parse(kept["evaluation"])
    tensors: dict[str, Tensor] = torch.load(folder / _TENSORS, mmap=True)
    more = {"graph": graph, "evaluation": evaluation, "tensors": tensors}
    return Study(captured=Captured(**{**kept, **more}), **mine)


def array_file(folder: Path, part: str, kind: str, index: int) -> Path:
    """Where an array of the data is.

    Args:
        folder: of the data.
        part: "train" or "test".
        kind: "targets", or the number of a cut: "cut3", for the model's own inputs "cut-1".
        index: which of them.
    """
    return folder / f"{part}.{kind}.{index}.npy"


def arrays_of(folder: Path, part: str, kind: str, count: int) -> Arrays:
    """Some arrays of the data in a folder, mapped into memory."""
    files = [array_file(folder, part, kind, index) for index in range(count)]
    return tuple(np.load(file, mmap_mode="r") for file in files)


def batches(rows: int, size: int) -> Iterator[Array]:
    """Indices of all rows in turn; the last batch is filled up with its own first ones."""
    for start in range(0, rows, size):
        yield np.resize(np.arange(start, min(start + size, rows)), size)


def of_graph(captured: Captured, graph: Graph, inputs: tuple[str, ...]) -> Captured:
    """A capture whose graph, and its inputs, are others: of a part of the same model."""
    return replace(captured, graph=graph, evaluation=graph, inputs=inputs)


def digest(*parts: object) -> str:
    """A name for what a trial depends on: equal for equal things in any process."""
    hashed = hashlib.sha256()
    for part in parts:
        whole = _bytes_of(part) if isinstance(part, np.ndarray) else memoryview(repr(part).encode())
        hashed.update(len(whole).to_bytes(8, "little"))
        hashed.update(whole)
    return hashed.hexdigest()[:24]


def _bytes_of(array: Array) -> memoryview:
    """An array's bytes in C order, copied only where they are not."""
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
