"""What a checkpoint holds of a run, and what of it a trainer can go on with."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from pockengine.checkpoint import fingerprint, read_checkpoint, unusable, write_checkpoint
from pockengine.checks import is_whole, some
from pockengine.disk import SYSTEM, Disk
from pockengine.errors import CheckpointError, InputError, SchemeError
from pockengine.modes import ACCUMULATED, EMA
from pockengine.optimizer import PREFIX
from pockengine.scheme import Channels, Scheme

STATE = "pockengine:"
"""What the names of a run's state begin with in the file."""
FULL, DELTA = "full", "delta"

_SENSELESS = (
    *(KeyError, ValueError, TypeError, AttributeError, OverflowError, RecursionError),
    SchemeError,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """What a file of ``Trainer.save`` holds.

    Args:
        kind: ``"full"``, or ``"delta"``: only what the scheme updates.
        model: the model's tensors by canonical name, in PyTorch's layouts.
        state: of the optimizer, averages, accumulators, counters and random numbers, by name.
        scheme: what was updated.
        optimizer: with its settings, as Python writes it.
        parts: the leading channels that a delta holds of a parameter, where those are not all.
        base: of a delta, the SHA-256 of all that it leaves out of the model.
        has_state: False where ``Trainer.save(state=False)`` left the state out.
        extra: the caller's own texts.
    """

    kind: str
    model: Mapping[str, Tensor]
    state: Mapping[str, Tensor]
    scheme: Scheme
    optimizer: str
    parts: Mapping[str, Channels] = field(default_factory=dict)
    base: str = ""
    has_state: bool = True
    extra: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls, path: str | Path) -> Self:
        """The contents of a file.

        Raises:
            CheckpointError: it cannot be read, is truncated or corrupt, or is something else.
        """
        tensors, metadata = read_checkpoint(path)
        try:
            return cls(**_fields(tensors, metadata))
        except _SENSELESS as error:
            raise unusable(path, f"what it says of itself makes no sense ({error})") from error

    def write(self, path: str | Path, disk: Disk = SYSTEM) -> None:
        """Write a file, whole or not at all.

        Raises:
            CheckpointError: it cannot be written.
            InputError: ``extra`` maps anything but texts to texts.
        """
        if not _are_texts(self.extra):
            raise InputError(
                where="save(extra=...)",
                found=repr(dict(self.extra)),
                needed="texts by text",
                remedy="Turn each value into a text, such as by json.dumps",
            )
        state = {f"{STATE}{name}": tensor for name, tensor in self.state.items()}
        write_checkpoint(path, {**self.model, **state}, self._metadata(), disk)

    def _metadata(self) -> dict[str, str]:
        parts = {name: [part.axis, part.count] for name, part in self.parts.items()}
        return {
            "kind": self.kind,
            "base": self.base,
            "scheme": json.dumps(dict(self.scheme)),
            "optimizer": self.optimizer,
            "parts": json.dumps(parts),
            "has_state": json.dumps(self.has_state),
            "extra": json.dumps(dict(self.extra), ensure_ascii=False),
        }


def _fields(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> dict[str, Any]:
    """The arguments of ``Checkpoint``, checked."""
    told = {key: json.loads(metadata[key]) for key in ("scheme", "parts", "has_state", "extra")}
    model = {name: tensor for name, tensor in tensors.items() if not name.startswith(STATE)}
    parts = {name: Channels(*part) for name, part in told["parts"].items()}
    if metadata["kind"] not in (FULL, DELTA) or (parts and metadata["kind"] == FULL):
        raise ValueError(f"kind {metadata['kind']!r}")
    if not _are_texts(told["extra"]):
        raise ValueError(f"extra {told['extra']!r}")
    for name, part in parts.items():
        if not _is_part(part, model[name].shape):
            raise ValueError(f"{name} is no {part}")
    return {
        "kind": metadata["kind"],
        "model": model,
        "state": {n.removeprefix(STATE): t for n, t in tensors.items() if n.startswith(STATE)},
        "scheme": Scheme(told["scheme"]),
        "optimizer": metadata["optimizer"],
        "parts": parts,
        "base": metadata["base"],
        "has_state": bool(told["has_state"]),
        "extra": told["extra"],
    }


def _are_texts(extra: Mapping[str, str]) -> bool:
    return all(isinstance(text, str) for pair in extra.items() for text in pair)


def _is_part(part: Channels, shape: torch.Size) -> bool:
    """Whether a shape is that of some channels."""
    known = is_whole(part.axis) and is_whole(part.count)
    return known and 0 <= part.axis < len(shape) and shape[part.axis] == part.count


@dataclass(frozen=True, slots=True)
class Model:
    """A trainer's model, as a checkpoint meets it.

    Args:
        names: canonical names of its tensors.
        tensor: gives one, whole; it is not to be written to.
    """

    names: Collection[str]
    tensor: Callable[[str], Tensor]

    def base(self, held: Collection[str], parts: Mapping[str, Channels]) -> str:
        """SHA-256 of the model but for what a delta holds: these tensors, or parts of them."""
        return fingerprint(self._rest(held, parts))

    def _rest(
        self, held: Collection[str], parts: Mapping[str, Channels]
    ) -> Iterator[tuple[str, Tensor]]:
        for name in self.names:
            if name not in held:
                yield name, self.tensor(name)
            elif name in parts:
                part, whole = parts[name], self.tensor(name)
                rest = whole.shape[part.axis] - part.count
                yield f"{name}, from {part}", whole.narrow(part.axis, part.count, rest)

    def updated_by(self, found: Checkpoint, path: str | Path) -> dict[str, Tensor]:
        """Whole tensors by name: those that a checkpoint holds, and the rest of their channels.

        Raises:
            CheckpointError: the checkpoint is of another model, or a delta to another base.
        """
        unknown = sorted(found.model.keys() - set(self.names))
        missing = sorted(set(self.names) - found.model.keys()) if found.kind == FULL else []
        if missing or unknown:
            raise _foreign(path, f"it lacks {some(missing)} and holds {some(unknown)} besides")
        tensors = {name: self._completed(name, found, path) for name in found.model}
        if found.kind == DELTA and found.base != self.base(found.model.keys(), found.parts):
            raise CheckpointError(
                where=str(path),
                found="it is a delta to a model with other values than this trainer's",
                needed="the same base in all that the delta leaves out",
                remedy="Nothing was changed; load the base by load_state_dict, or a full "
                "checkpoint of that run",
            )
        return tensors

    def _completed(self, name: str, found: Checkpoint, path: str | Path) -> Tensor:
        tensor, part, whole = found.model[name], found.parts.get(name), self.tensor(name)
        wanted = list(whole.shape)
        if part is not None and part.axis < len(wanted):
            wanted[part.axis] = min(part.count, wanted[part.axis])
        if list(tensor.shape) != wanted:
            shapes = f"{tuple(tensor.shape)}, not {tuple(wanted)}"
            raise _foreign(path, f"its {name} has shape {shapes}")
        if part is None:
            return tensor.to(whole.dtype)
        completed = whole.clone()
        completed.narrow(part.axis, 0, part.count).copy_(tensor)
        return completed


def resumed(
    found: Checkpoint, wanted: Mapping[str, Tensor], optimizer: str
) -> tuple[dict[str, Tensor], list[str]]:
    """What a trainer takes over of a checkpoint's state.

    - A parameter's optimizer state is taken as a whole, of an optimizer of the same kind and the
      same part of the parameter. What all parameters share (corrections, a count of steps) is taken
      if every parameter's is: a step after moments from zero is too long without its correction,
      and one that is corrected too much is only short.
    - Averages are taken one by one, accumulators all or none.
    - Random numbers and buffers are taken where they are there, and stay as they are elsewhere.

    Args:
        found: the checkpoint.
        wanted: the trainer's state by name, for its shapes and types.
        optimizer: the trainer's, as Python writes it.

    Returns:
        What is taken, by name; and the names of what starts anew.
    """
    fits = {n for n, t in wanted.items() if n in found.state and _alike(t, found.state[n])}
    groups: dict[tuple[str, str], list[str]] = {}
    for name in wanted:
        groups.setdefault(_group(name), []).append(name)
    anew = {group for group, names in groups.items() if not fits.issuperset(names)}
    if _kind(found.optimizer) != _kind(optimizer):
        anew |= {group for group in groups if group[0] == PREFIX}
    if any(group[0] == PREFIX for group in anew):
        anew |= groups.keys() & {(PREFIX, "")}
    taken = {n: found.state[n] for g, names in groups.items() if g not in anew for n in names}
    begun = [n for g, names in groups.items() if g in anew and g[0] for n in names]
    return taken, sorted(begun)


def _group(name: str) -> tuple[str, str]:
    """What state is taken together: ("optimizer", parameter or ""), and so on; ("", name) alone."""
    first, _, rest = name.partition(".")
    if first == PREFIX:
        return first, rest.partition(".")[2]
    if first == ACCUMULATED:
        return first, ""
    return (first if first == EMA else ""), rest if first == EMA else name


def _alike(one: Tensor, other: Tensor) -> bool:
    return (one.shape, one.dtype) == (other.shape, other.dtype)


def _kind(optimizer: str) -> str:
    """The optimizer's class: another decay or momentum can go on with the same state."""
    return optimizer.partition("(")[0]


def same_bits(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors of one shape and dtype are equal to the bit, NaN and signs of 0 too."""
    bits = [t.contiguous().reshape(-1).view(torch.uint8) for t in (one, other) if t.numel()]
    return not bits or torch.equal(*bits)


def _foreign(path: str | Path, found: str) -> CheckpointError:
    return CheckpointError(
        where=str(path),
        found=found,
        needed="a checkpoint of this model: the same names and shapes",
        remedy="Nothing was changed; compile the model that wrote it, or name another file",
    )
