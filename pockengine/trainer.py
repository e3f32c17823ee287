"""The trainer: a compiled fine-tuning run, driven from Python."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from torch import Tensor

from pockengine.checks import is_number, is_whole, kind_of, some
from pockengine.contents import Contents
from pockengine.errors import InputError, TrainError
from pockengine.fit.callbacks import AnyCallback
from pockengine.fit.history import History
from pockengine.fit.loop import Settings
from pockengine.fit.loop import fit as run_fit
from pockengine.fit.measure import metrics as measure_metrics
from pockengine.fit.metrics import Metric
from pockengine.lower.cache import load as load_kernel
from pockengine.modes import ema_name
from pockengine.plan.memory import Plan
from pockengine.program import Program
from pockengine.resume import Checkpoint
from pockengine.runtime.emulate import Replay, emulate
from pockengine.runtime.encoding import encode
from pockengine.runtime.engine import Engine
from pockengine.runtime.export import export
from pockengine.runtime.image import Image
from pockengine.runtime.shapes import Bound, bind, shaped
from pockengine.runtime.signature import has_tensors
from pockengine.runtime.threads import default_threads
from pockengine.schedules import Schedule
from pockengine.targets import Target


class Trainer:
    """Fine-tunes one model by one scheme; ``pockengine.compile`` makes it. A context manager.

    Args:
        program: what was compiled.
        tensors: the model's tensors by canonical name; they are copied.
        threads: how many work at a step; None for all cores where that pays, else one.
        seed: of random numbers.
    """

    def __init__(
        self,
        program: Program,
        tensors: Mapping[str, Tensor],
        threads: int | None = None,
        seed: int = 0,
    ) -> None:
        self._program = program
        self._contents = Contents.begun(program, tensors, checked_seed(seed))
        self.threads = checked_threads(threads)
        self._engine = self._open() if program.target.llvm is None else None

    def __getstate__(self) -> dict[str, Any]:
        """What a copy in this or another process on this machine needs: the kernels are cached."""
        if self._engine is not None and self._engine.torn:
            raise TrainError(
                where="copying the trainer",
                found="a step failed between updates",
                needed="whole parameters",
                remedy="Load a checkpoint",
            )
        return {"program": self._program, "contents": self._contents, "threads": self.threads}

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        """Become a trainer of one's own, open, with the same contents."""
        program: Program = state["program"]
        self._program = program
        self._contents = state["contents"]
        self.threads = state["threads"]
        self._engine = self._open() if program.target.llvm is None else None

    def __copy__(self) -> Self:
        made = object.__new__(type(self))
        made.__setstate__({**self.__getstate__(), "contents": copy.copy(self._contents)})
        return made

    def __deepcopy__(self, _memo: object) -> Self:
        return copy.copy(self)  # the program never changes; the rest is copied

    def _open(self) -> Engine:
        const, param, state, arena = self._contents.regions.arrays
        return Engine(
            encode(self._program.descriptor),
            [load_kernel(path) for path in self._program.kernels],
            const=const,
            param=param,
            state=state,
            arena=arena,
            threads=self.threads,
        )

    @property
    def plan(self) -> Plan:
        """Bytes by region, and where every value lies."""
        return self._program.plan

    @property
    def program(self) -> Program:
        """What was compiled."""
        return self._program

    @property
    def engine(self) -> Engine:
        """The C runtime underneath, to be timed or inspected.

        Raises:
            TrainError: the trainer was compiled for another machine than this host.
        """
        if self._engine is None:
            raise _foreign_machine(self._program.target)
        return self._engine

    def step(self, inputs: Any, targets: Any = None, *, lr: float) -> float:
        """One step of training; with ``accumulate=k``, every k-th updates by the gradients of k.

        Args:
            inputs: as in the example batch: a tensor or array, a tuple of them, or a dict of
                keyword arguments.
            targets: likewise, in any structure.
            lr: the learning rate.

        Returns:
            The loss ahead of the update.

        Raises:
            InputError: the batch does not fit, or holds a NaN or a label out of range. Nothing
                was changed.
            TrainError: the loss is not finite (nothing was changed), or the trainer is torn.
        """
        rate = _rate(lr)
        bound = self._bound(inputs, (targets,))
        accumulate = self._program.modes.accumulate
        if accumulate is None:
            (loss,) = self.engine.run(self._trains("step", bound), [*bound.arrays, rate])
            return float(loss[0])
        (loss,) = self.engine.run(self._trains("accumulate", bound), bound.arrays)
        if self.accumulated >= accumulate.steps:
            self.engine.run("apply", [rate])
        return float(loss[0])

    @property
    def accumulated(self) -> int:
        """How many steps wait for their update; 0 without ``accumulate``."""
        return self._contents.accumulated

    def apply(self, *, lr: float) -> bool:
        """Update by what is accumulated so far, such as at the end of an epoch.

        The mean is over the steps that there were.

        Returns:
            Whether there was anything.

        Raises:
            InputError: the learning rate is not finite.
            TrainError: the trainer is torn.
        """
        if self.accumulated == 0:
            return False
        self.engine.run("apply", [_rate(lr)])
        return True

    def predict(self, inputs: Any, *, ema: bool = False) -> Any:
        """The model's output in its own structure: tensors if the inputs are tensors, else arrays.

        Args:
            inputs: as ``step``.
            ema: by the averaged parameters, of a trainer compiled with ``ema``.

        Raises:
            InputError: as ``step``.
        """
        bound = self._bound(inputs, None)
        outputs = self.engine.run(self._entry("predict", ema, bound.shape), bound.arrays)
        return self._structured(outputs, inputs, bound)

    def evaluate(self, inputs: Any, targets: Any, *, ema: bool = False) -> tuple[float, Any]:
        """The loss and the model's output, with nothing changed; arguments as ``predict``."""
        bound = self._bound(inputs, (targets,))
        loss, *outputs = self.engine.run(self._entry("evaluate", ema, bound.shape), bound.arrays)
        return float(loss[0]), self._structured(outputs, inputs, bound)

    def fit(  # noqa: PLR0913 - each a decision of its own
        self,
        train: Any,
        *,
        validation: Any = None,
        epochs: int = 1,
        lr: float | Schedule = 1e-3,
        batch_size: int | None = None,
        shuffle: bool = True,
        seed: int = 0,
        metrics: Sequence[Metric] | None = None,
        callbacks: Sequence[AnyCallback] = (),
        checkpoint: str | Path | None = None,
        save_every: int | None = None,
        resume: bool = True,
        progress: bool | None = None,
    ) -> History:
        """Train for some epochs.

        Data are whole arrays (a tuple ``(inputs, targets)`` that nests like the example batch, or a
        dict of columns), a PyTorch ``Dataset`` or a Hugging Face ``Dataset``, of which batches are
        cut; or batches: a ``DataLoader``, a list or whatever else can be iterated once an epoch.
        A batch is ``(inputs, targets)`` or a dict of columns. Columns go by the model's argument
        names; targets are called ``labels``, ``label``, ``targets``, ``target`` or ``y``.

        A smaller last batch is padded by a trainer compiled with ``partial=True``, else left out
        with a warning. With ``accumulate``, what is pending at the end of an epoch is applied.

        Args:
            train: data.
            validation: data for metrics after each epoch.
            epochs: how many in all, those before a resumption included.
            lr: the learning rate, or a schedule: a function of the step, counted from 0.
            batch_size: of what is cut; None for that of the example batch.
            shuffle: cut in another order in each epoch; the loader decides on its batches' order.
            seed: of that order, and of all that data sets draw from the global generators.
            metrics: of validation: "loss", "accuracy", "f1" (macro), "f1_micro", "perplexity",
                "confusion_matrix", or callables (outputs, targets) -> float. None for the loss, and
                the accuracy where the outputs are class scores.
            callbacks: ``EarlyStopping``, ``BestCheckpoint``, other ``Callback`` objects, or
                functions of a ``Status``, called after each step; to return True ends the run.
            checkpoint: a file that is written after each epoch, every ``save_every`` steps and on
                Ctrl-C. If it is there, the run goes on from it, bit by bit as if never interrupted.
            save_every: steps.
            resume: False to begin anew and overwrite the checkpoint.
            progress: a bar on stderr; None if that is a terminal or a notebook.

        Returns:
            A row for each epoch.

        Raises:
            InputError: an argument or a batch does not fit, by its number.
            TrainError: the loss is not finite, or the trainer is torn.
            CheckpointError: the checkpoint cannot be written, or is of another run.
            Interrupted: a ``KeyboardInterrupt``: Ctrl-C, after the step under way was finished and
                saved. A second Ctrl-C does not wait.
        """
        settings = Settings(
            epochs=epochs,
            lr=lr,
            batch_size=batch_size,
            shuffle=shuffle,
            seed=seed,
            metrics=metrics,
            callbacks=callbacks,
            checkpoint=checkpoint,
            save_every=save_every,
            resume=resume,
            progress=progress,
        )
        return run_fit(self, train, validation, settings)

    def metrics(
        self,
        data: Any,
        *,
        metrics: Sequence[Metric] | None = None,
        batch_size: int | None = None,
        ema: bool = False,
    ) -> dict[str, Any]:
        """Metrics of a data set by the formulas of scikit-learn; nothing is changed.

        Args:
            data: as ``fit``.
            metrics: as ``fit``. The loss is the mean of the batches', weighted by samples.
            batch_size: as ``fit``.
            ema: by the averaged parameters, of a trainer compiled with ``ema``.

        Returns:
            Numbers by name. A confusion matrix is an array, (C, C): rows are true, columns
            predicted; (C, 2, 2) where a sample has several labels.

        Raises:
            InputError: an argument or a batch does not fit, or the outputs are no class scores.
        """
        return measure_metrics(self, data, metrics=metrics, batch_size=batch_size, ema=ema)

    def _bound(self, inputs: Any, targets: tuple[Any] | None) -> Bound:
        program = self._program
        return bind(program.shapes, inputs, targets, partial=program.partial)

    def _structured(self, outputs: list[Any], inputs: Any, bound: Bound) -> Any:
        signature = self._program.shapes[bound.shape]
        return signature.structured(outputs, as_tensors=has_tensors(inputs), samples=bound.samples)

    def _trains(self, name: str, bound: Bound) -> str:
        """The entry point of a step."""
        entry = shaped(name, bound.shape)
        if entry not in self._program.plan.entries:
            raise InputError(
                where="step",
                found="a shape that was declared with train=False",
                needed="a shape that steps were compiled for",
                remedy="Declare it with train=True, or use predict and evaluate",
            )
        return entry

    def _entry(self, name: str, ema: bool, shape: int) -> str:
        if ema:
            self._check_ema()
        entry = shaped(ema_name(name) if ema else name, shape)
        if name == "predict" and entry not in self._program.plan.entries:
            raise InputError(
                where="predict",
                found="the model computes its outputs from the targets",
                needed="outputs that depend on the inputs alone",
                remedy="Use evaluate, or pass what the outputs depend on as an input",
            )
        return entry

    def _check_ema(self) -> None:
        if self._program.modes.ema is None:
            raise InputError(
                where="ema",
                found="the trainer keeps no average",
                needed="one compiled with ema",
                remedy="Compile with ema=0.999, or leave it out here",
            )

    def state_dict(self, *, merge: bool = False, ema: bool = False) -> dict[str, Tensor]:
        """Copies of all of the model's tensors, under PyTorch's names, dense and in its order.

        Every name has a copy of its own, also of tied tensors: so ``model.load_state_dict``,
        ``torch.save`` and ``safetensors.torch.save_file`` all take the result.

        Args:
            merge: whether the adapters that a scheme added are worked into the weights, which gives
                the names of the model that was compiled. Else they are listed by the side of the
                weights, as ``layer.lora_a`` (rank, inputs) and ``layer.lora_b`` (outputs, rank).
            ema: averages of what is updated, of a trainer compiled with ``ema``.

        Raises:
            InputError: there are no averages.
        """
        if ema:
            self._check_ema()
        return self._contents.state_dict(merge=merge, ema=ema)

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take over all of the model's tensors; the optimizer's state stays.

        An average (``ema``) begins anew with them.

        Raises:
            InputError: a name is missing or unknown, a shape differs, or two names of one tied
                tensor disagree. Nothing was changed.
        """
        self._contents.take_state_dict(state)
        self._clear_torn()

    def save(
        self,
        path: str | Path,
        *,
        delta: bool = False,
        state: bool = True,
        extra: Mapping[str, str] | None = None,
    ) -> None:
        """Write a checkpoint, whole or not at all; once this returns, it outlasts a loss of power.

        The file is plain safetensors: ``load_file`` of a full one gives ``load_state_dict(...,
        strict=False)`` of the model all it needs. ``pockengine.Checkpoint.read`` tells what is in
        it.

        Args:
            path: the file. What was there is replaced.
            delta: only what the scheme updates, to be loaded where the rest of the model is the
                same.
            state: also what a run goes on with bit by bit: of the optimizer, averages,
                accumulators, counters and random numbers.
            extra: texts to keep with it, which ``load`` returns.

        Raises:
            CheckpointError: the file cannot be written, or another process is at it.
            InputError: ``extra`` holds anything but texts.
        """
        self._contents.checkpoint(delta=delta, state=state, extra=extra or {}).write(path)

    def load(self, path: str | Path) -> dict[str, str]:
        """Take over what ``save`` wrote, also by a trainer of another scheme or optimizer.

        A full checkpoint needs the same names and shapes; a delta also the same values in all that
        it leaves out. Where scheme, optimizer and modes are the same, the run goes on bit by bit.
        State that does not fit starts anew, and a warning says so; so does all state, without
        one, where ``save(state=False)`` left it out.

        Returns:
            ``save``'s ``extra``.

        Raises:
            CheckpointError: the file is corrupt or truncated, of another model, or a delta to other
                values. Nothing was changed.
        """
        found = Checkpoint.read(path)
        anew = self._contents.take(found, path)
        self._clear_torn()
        if anew and found.has_state:
            warnings.warn(
                f"{path}: state that fits this trainer is not in it and starts anew: {some(anew)}",
                stacklevel=2,
            )
        return dict(found.extra)

    def _clear_torn(self) -> None:
        if self._engine is not None:
            self._engine.clear_torn()

    def emulate(
        self, batches: Sequence[tuple[Any, Any]], *, lr: float, folder: Path | None = None
    ) -> Replay:
        """Step through batches under the target's emulator; this trainer itself stays as it is.

        Args:
            batches: ``(inputs, targets)`` of each step, as ``step`` takes them.
            lr: the learning rate of all steps.
            folder: where the program is built; by default one that is deleted again.

        Raises:
            InputError: a batch does not fit, the target has no emulator, or the trainer accumulates
                gradients.
            BuildError: the program does not link or does not fit the machine.
            TrainError: the emulator is missing, or the program failed in it.
        """
        self._check_steps("emulate")
        rate = _rate(lr)
        return emulate(
            self.image(),
            [[*self._example(inputs, targets), rate] for inputs, targets in batches],
            folder,
        )

    def _example(self, inputs: Any, targets: Any) -> list[np.ndarray[Any, Any]]:
        """The arrays of a batch like the example, with which the C programs step."""
        partial = self._program.partial
        return bind(self._program.shapes[:1], inputs, (targets,), partial=partial).arrays

    def export(self, folder: str | Path) -> None:
        """Write the trainer for its machine: a library, data, sources, an example and a README.

        Raises:
            InputError: the trainer was compiled for the host, or accumulates gradients.
            BuildError: the library cannot be built or written.
        """
        self._check_steps("export")
        export(self.image(), Path(folder))

    def _check_steps(self, where: str) -> None:
        """The C programs around a trainer call one entry point for a step."""
        if self._program.modes.accumulate is not None:
            raise InputError(
                where=where,
                found="a step of this trainer is two entry points, accumulate and apply",
                needed="a trainer with one update for each batch",
                remedy="Compile without accumulate for another machine",
            )

    def image(self) -> Image:
        """All that another machine needs."""
        const, param, state, _ = self._contents.regions.arrays
        return Image(
            target=self._program.target,
            descriptor=self._program.descriptor,
            objects=self._program.kernels,
            const=const,
            param=param,
            state=state,
        )

    def close(self) -> None:
        """End the threads. Steps are refused then; ``state_dict`` and ``save`` still work."""
        if self._engine is not None:
            self._engine.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _rate(lr: float) -> np.ndarray[Any, Any]:
    """The learning rate as an entry point takes it: (1,), float32; from a number or a 0-d array."""
    value = lr if isinstance(lr, (float, int)) else getattr(lr, "item", lambda: None)()
    if not is_number(value) or value < 0:
        raise InputError(
            where="lr",
            found=kind_of(lr) if callable(lr) else repr(lr),
            needed="a finite number of at least 0",
            remedy="Nothing was changed; call the schedule: lr=schedule(step)"
            if callable(lr)
            else "Nothing was changed; give a learning rate such as 1e-3",
        )
    return np.array([value], np.float32)


def checked_threads(threads: int | None) -> int:
    """How many threads work: as asked, or what pays here.

    Raises:
        InputError: no whole number above 0.
    """
    if threads is None:
        return default_threads()
    if not is_whole(threads) or threads < 1:
        raise InputError(
            where="compile(threads=...)",
            found=repr(threads),
            needed="None, or a whole number of at least 1",
            remedy="Leave it out to use all cores where that pays",
        )
    return threads


def checked_seed(seed: int) -> int:
    """A seed as it is.

    Raises:
        InputError: no whole number of 63 bits.
    """
    if not is_whole(seed) or not 0 <= seed < 2**63:
        raise InputError(
            where="compile(seed=...)",
            found=repr(seed),
            needed="a whole number of at least 0 and below 2**63",
            remedy="Leave it out for 0",
        )
    return seed


def _foreign_machine(target: Target) -> TrainError:
    return TrainError(
        where=f"trainer for {target.name}",
        found="its kernels are code for another machine",
        needed='only what is compiled for target="host" runs here',
        remedy="Write it for its machine by export(folder), or run it in an emulator by emulate",
    )
