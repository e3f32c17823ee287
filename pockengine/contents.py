"""What a trainer holds: the model's tensors and the state of its run, taken out and taken over."""

from __future__ import annotations

from collections.abc import Container, Mapping
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from pockengine.adapters import merged
from pockengine.checks import kind_of, some
from pockengine.errors import InputError
from pockengine.ir.draws import SEED
from pockengine.ir.types import Region
from pockengine.modes import COUNT, ema_name
from pockengine.program import Program
from pockengine.resume import DELTA, FULL, Checkpoint, Model, resumed, same_bits
from pockengine.runtime.regions import Regions
from pockengine.scheme import Channels
from pockengine.weights import StoredWeights


class Contents:
    """The tensors of a trainer, in its regions, and beside them those that no kernel reads.

    Args:
        program: what was compiled.

    Attributes:
        regions: the memory that the kernels work in.
    """

    def __init__(self, program: Program) -> None:
        self._program = program
        self.regions = Regions(program.plan, program.descriptor.region_alignment)
        self._kept: dict[str, Tensor] = {}
        self._base: str | None = None  # what deltas are to; formed when it is asked for

    @classmethod
    def begun(cls, program: Program, tensors: Mapping[str, Tensor], seed: int) -> Self:
        """The contents ahead of the first step.

        Args:
            program: what was compiled.
            tensors: the model's by canonical name; they are copied.
            seed: of random numbers.
        """
        made = cls(program)
        regions = made.regions
        made._kept = {
            name: tensor.detach().to(program.dtypes[name], copy=True)
            for name, tensor in tensors.items()
            if name not in regions
        }
        release = tensors.release if isinstance(tensors, StoredWeights) else None
        regions.write(program.fold(tensors), release)
        regions.write({name: tensors[name] for name in made._changing(tensors)}, release)
        if SEED in regions:
            regions.write({SEED: torch.tensor(seed)})
        for name, value in program.initial.items():
            regions.view(name).fill_(value)
        made._start_averages()
        return made

    def __getstate__(self) -> dict[str, Any]:
        """What a copy needs."""
        return {
            "program": self._program,
            "regions": self.regions.arrays[:-1],  # nothing in the arena outlasts a step
            "kept": self._kept,
            "base": self._base,
        }

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        """Become contents of one's own, with the same values."""
        self._program = program = state["program"]
        self.regions = Regions(program.plan, program.descriptor.region_alignment)
        for array, contents in zip(self.regions.arrays, state["regions"], strict=False):
            array[:] = contents
        self._kept = dict(state["kept"])
        self._base = state["base"]

    @property
    def accumulated(self) -> int:
        """How many steps wait for their update."""
        return int(self.regions.view(COUNT)) if COUNT in self.regions else 0

    def state_dict(self, *, merge: bool, ema: bool) -> dict[str, Tensor]:
        """Copies of the model's tensors; ``Trainer.state_dict`` says the rest."""
        canonical = {name: self._tensor(name) for name in self._names}
        if ema:
            for name, tensor in canonical.items():
                if ema_name(name) in self.regions:
                    average = self.regions.view(ema_name(name))
                    _leading(tensor, average).copy_(average)
        found = {
            name: canonical[used] if name == used else canonical[used].clone()
            for name, used in self._program.names.items()
        }
        return merged(found, self._program.adapters) if merge else found

    def take_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take over all of the model's tensors; averages begin anew with them.

        Raises:
            InputError: a name is missing or unknown, a shape differs, or two names of one tied
                tensor disagree. Nothing was changed.
        """
        self._take_model(self._canonical(state))
        self._start_averages()

    def checkpoint(self, *, delta: bool, state: bool, extra: Mapping[str, str]) -> Checkpoint:
        """What ``Trainer.save`` writes; what a step may change of the model is copied."""
        updated, parts = self._updated(), self._parts() if delta else {}
        frozen = set() if delta else self._names - set(updated)
        tensors = {name: self._tensor(name) for name in updated}
        for name, part in parts.items():
            tensors[name] = tensors[name].narrow(part.axis, 0, part.count)
        return Checkpoint(
            kind=DELTA if delta else FULL,
            model=tensors | {name: self._look(name) for name in frozen},
            state={name: self.regions.read(name) for name in self._state_names() if state},
            scheme=self._program.scheme,
            optimizer=repr(self._program.optimizer),
            parts=parts,
            base=self._delta_base() if delta else "",
            has_state=state,
            extra=extra,
        )

    def take(self, found: Checkpoint, path: str | Path) -> list[str]:
        """Take over a checkpoint, as far as it fits.

        Args:
            found: what was read.
            path: where, for messages.

        Returns:
            Names of the state that starts anew.

        Raises:
            CheckpointError: it is of another model, or a delta to other values. Nothing was
                changed.
        """
        model = Model(self._names, self._look).updated_by(found, path)
        wanted = {name: self.regions.view(name) for name in self._state_names()}
        state, anew = resumed(found, wanted, repr(self._program.optimizer))
        self._take_model(model)
        for name in anew:
            self.regions.view(name).fill_(self._program.initial.get(name, 0))
        self._start_averages()
        self.regions.write(state)
        return anew

    def _changing(self, tensors: Container[str]) -> list[str]:
        """The model's tensors, of these, that a step may write: parameters and buffers."""
        return [n for n in self.regions.names(Region.PARAM, Region.STATE) if n in tensors]

    def _start_averages(self) -> None:
        """The averages of parameters become the parameters."""
        for name in self.regions.names(Region.PARAM):
            if ema_name(name) in self.regions:
                view = self.regions.view(ema_name(name))
                view.copy_(_leading(self.regions.view(name), view))

    def _take_model(self, found: Mapping[str, Tensor]) -> None:
        """Take over some of the model's tensors, whole, by canonical name."""
        params = set(self._changing(found))
        frozen = {name: tensor for name, tensor in found.items() if name not in params}
        if not all(same_bits(tensor, self._look(name)) for name, tensor in frozen.items()):
            kept = {name: found[name].clone() for name in self._kept if name in found}
            contents = self._program.fold({**self._everything(), **found})
            self._kept.update(kept)
            self.regions.write(contents)
        self.regions.write({name: found[name] for name in params})
        self._base = None

    def _everything(self) -> dict[str, Tensor]:
        """All tensors that were captured, by canonical name."""
        inside = self.regions.names(Region.PARAM, Region.CONST)
        inside += [n for n in self.regions.names(Region.STATE) if n in self._program.dtypes]
        return {**self._kept, **{name: self.regions.read(name) for name in inside}}

    def _tensor(self, name: str) -> Tensor:
        """A dense copy of one of the model's tensors."""
        return self._look(name).clone(memory_format=torch.contiguous_format)

    def _look(self, name: str) -> Tensor:
        """One of the model's tensors as it lies here, not to be written to."""
        if name not in self.regions:
            return self._kept[name]
        return self.regions.view(name).to(self._program.dtypes[name])

    def _canonical(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Tensors by canonical name, checked."""
        names = self._program.names
        if not isinstance(state, Mapping):
            raise _bad_state(kind_of(state))
        missing, unknown = sorted(names.keys() - state.keys()), sorted(state.keys() - names.keys())
        if missing or unknown:
            raise _bad_state(f"missing {some(missing)}; unknown {some(unknown)}")
        found: dict[str, Tensor] = {}
        for name, used in names.items():
            tensor = _with_values(name, state[name]).to(self._program.dtypes[used])
            wanted = self._look(used).shape
            if tensor.shape != wanted:
                raise _bad_state(f"{name} has shape {tuple(tensor.shape)}, not {tuple(wanted)}")
            tied = found.setdefault(used, tensor)
            if tied is tensor:
                continue
            if not torch.allclose(tied, tensor, rtol=0, atol=0, equal_nan=True):
                raise _bad_state(f"{name} differs from {used}, which it is tied to")
        return found

    @property
    def _names(self) -> set[str]:
        """Canonical names of the model's tensors."""
        return set(self._program.names.values())

    def _updated(self) -> list[str]:
        """What of the model a step may write, and so a delta holds."""
        return self._changing(self._names)

    def _parts(self) -> dict[str, Channels]:
        """The part of each parameter that a step writes, where that is not all."""
        updated = self._updated()
        return {name: part for name, part in self._program.channels.items() if name in updated}

    def _delta_base(self) -> str:
        """What deltas are to: no step changes it."""
        if self._base is None:
            self._base = Model(self._names, self._look).base(self._updated(), self._parts())
        return self._base

    def _state_names(self) -> list[str]:
        """What changes besides the model."""
        model = self._names
        return [n for n in self.regions.names(Region.PARAM, Region.STATE) if n not in model]


def _leading(whole: Tensor, part: Tensor) -> Tensor:
    """A view of the leading slice of a tensor that has another's shape."""
    return whole[tuple(slice(extent) for extent in part.shape)]


def _with_values(name: str, value: object) -> Tensor:
    """A tensor of a ``state_dict``, on the CPU."""
    try:
        return torch.as_tensor(value).detach().cpu().to_dense()
    except (TypeError, ValueError, RuntimeError) as error:  # NotImplementedError of meta tensors
        told = str(error).splitlines()[0]
        raise _bad_state(f"{name} is no tensor of values ({told})") from error


def _bad_state(found: str) -> InputError:
    return InputError(
        where="load_state_dict",
        found=found,
        needed="the tensors of the model that was compiled",
        remedy="Nothing was changed; pass model.state_dict() of such a model",
    )
