"""The binding: a trainer's C runtime, driven through ctypes.

What runs here is what ships: the same core, the same kernels, the same tables. A call costs a look
at its inputs and one foreign call; all other pointers are prepared when the engine opens.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from threading import Lock
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from pockengine.errors import InputError, PlanError, TrainError
from pockengine.runtime import library as c
from pockengine.runtime.descriptor import Entry
from pockengine.runtime.encoding import decode
from pockengine.runtime.ports import BoundPort, out_of_range


class _Entry:
    """An entry point with a pointer table for its inputs and views of its outputs."""

    def __init__(self, index: int, entry: Entry, regions: Sequence[NDArray[np.uint8]]) -> None:
        self.index = index
        self.entry = entry
        self.inputs = [BoundPort(port) for port in entry.inputs]
        self.outputs = [BoundPort(port).view(regions) for port in entry.outputs]
        self.input_table = (ctypes.c_void_p * max(len(self.inputs), 1))()
        self.input_address = ctypes.addressof(self.input_table)
        nowhere = (ctypes.c_void_p * max(len(self.outputs), 1))()  # outputs are read in place
        self.output_address = ctypes.addressof(nowhere)
        self._keep = nowhere

    def bind(self, inputs: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
        """Point the table at the inputs; what is returned has to outlive the run."""
        if len(inputs) != len(self.inputs):
            names = ", ".join(port.port.name for port in self.inputs)
            raise InputError(
                where=self.entry.name,
                found=f"{len(inputs)} inputs were passed",
                needed=f"{len(self.inputs)} are needed ({names})",
                remedy="Pass what the trainer was compiled for.",
            )
        taken = [port.accept(value) for port, value in zip(self.inputs, inputs, strict=True)]
        for index, array in enumerate(taken):
            self.input_table[index] = _data_pointer(array)
        return taken


def _data_pointer(array: NDArray[Any]) -> int:
    """The address of the first element; the quick way where the array permits it."""
    try:
        return ctypes.addressof(ctypes.c_char.from_buffer(array))  # type: ignore[arg-type]
    except (TypeError, ValueError):  # read-only, or empty
        return array.ctypes.data


def _refused(found: str) -> PlanError:
    return PlanError(
        where="opening the trainer",
        found=found,
        needed="descriptor, kernels and regions have to belong together",
        remedy="Compile the trainer again.",
    )


def _aligned_copy(data: bytes) -> NDArray[np.uint8]:
    copy = c.allocate(len(data))
    copy[:] = np.frombuffer(data, np.uint8)
    return copy


class Engine:
    """An open trainer, a context manager. Runs from several threads take turns.

    Args:
        descriptor: bytes of `pockengine.runtime.encoding.encode`.
        kernels: addresses of the kernels' code, in the descriptor's order.
        const: the region of frozen values. This and the others are arrays of bytes, as `allocate`
            makes them; the engine keeps them alive and shares them with the caller.
        param: the region of updated values.
        state: the region of what else persists.
        arena: the region of transient values.
        threads: how many threads work at a step, the caller's among them.

    Raises:
        PlanError: the descriptor is damaged, or kernels or regions do not match it.
        BuildError: the C runtime could not be built.
    """

    def __init__(
        self,
        descriptor: bytes,
        kernels: Sequence[int],
        *,
        const: NDArray[np.uint8],
        param: NDArray[np.uint8],
        state: NDArray[np.uint8],
        arena: NDArray[np.uint8],
        threads: int = 1,
    ) -> None:
        self._lock = Lock()
        self._pool: int | None = None
        self._library = c.library()
        self.descriptor = decode(descriptor)
        self.regions = (const, param, state, arena)
        self._check_regions()
        self._entries = {
            entry.name: _Entry(index, entry, self.regions)
            for index, entry in enumerate(self.descriptor.entries)
        }
        self._bytes = _aligned_copy(descriptor)
        self._kernels = (ctypes.c_void_p * len(kernels))(*kernels)
        self._trainer = c.TrainerStruct()
        self._address = ctypes.addressof(self._trainer)
        self._open(threads)

    def _open(self, threads: int) -> None:
        launcher = None
        if threads > 1:
            self._pool = self._library.pe_pool_create(threads)
            if self._pool is None:
                raise MemoryError("no memory for a pool of threads")
            launcher = ctypes.byref(self._library.pe_pool_launcher(self._pool))
        regions = (ctypes.c_void_p * 4)(*(region.ctypes.data for region in self.regions))
        code = self._library.pe_open(
            self._address,
            self._bytes.ctypes.data,
            self._bytes.size,
            self._kernels,
            len(self._kernels),
            regions,
            launcher,
        )
        if code:
            self.close()
            raise _refused(self._text(code))

    def _check_regions(self) -> None:
        """The one thing C cannot see: whether regions are as large as the descriptor says."""
        for name, region, size in zip(
            ("const", "param", "state", "arena"),
            self.regions,
            self.descriptor.region_bytes,
            strict=True,
        ):
            if region.nbytes < size or not region.flags.c_contiguous:
                raise _refused(f"the {name} region has {region.nbytes} bytes of {size}")

    def run(self, entry: str, inputs: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
        """Run an entry point once.

        Args:
            entry: its name.
            inputs: one array for each input port; integers and reals convert to the port's dtype.

        Returns:
            One flat array for each output port.

        Raises:
            InputError: an input does not fit, is not finite or is out of range (nothing changed).
            TrainError: the loss is not finite (no parameter was changed), or the trainer is torn.
        """
        return self._run(entry, inputs, 0, 0)

    def run_timed(
        self, entry: str, inputs: Sequence[NDArray[Any]]
    ) -> tuple[list[NDArray[Any]], NDArray[np.float64]]:
        """Run an entry point once and time each call in place.

        Returns:
            The outputs, and the milliseconds of each call of the entry point.

        Raises:
            InputError: as in `run`.
            TrainError: as in `run`.
        """
        times = np.zeros(self._entry(entry).entry.calls)
        clock = ctypes.cast(self._library.pe_clock_ms, ctypes.c_void_p).value or 0
        return self._run(entry, inputs, times.ctypes.data, clock), times

    def _run(
        self, name: str, inputs: Sequence[NDArray[Any]], times: int, clock: int
    ) -> list[NDArray[Any]]:
        entry = self._entry(name)
        with self._lock:
            taken = entry.bind(inputs)
            code = self._library.pe_run_timed(
                self._address, entry.index, entry.input_address, entry.output_address, times, clock
            )
            if code:
                raise self._failure(code, entry)
            del taken  # it had to outlive the run
            return [view.copy() for view in entry.outputs]

    def _entry(self, name: str) -> _Entry:
        entry = self._entries.get(name)
        if entry is None:
            raise InputError(
                where=name,
                found="there is no such entry point" if self._entries else "the engine is closed",
                needed=f"one of {', '.join(e.name for e in self.descriptor.entries)} is needed",
                remedy="Use an open trainer compiled with this entry point.",
            )
        return entry

    def _text(self, code: int) -> str:
        text: bytes = self._library.pe_error_text(code)
        return text.decode()

    def _failure(self, code: int, entry: _Entry) -> InputError | TrainError:
        fault = self._trainer.fault
        name = fault.port.decode() if fault.port else entry.entry.name
        if code == c.INPUT_OUT_OF_RANGE:
            port = next(each.port for each in entry.inputs if each.port.name == name)
            return out_of_range(port, fault.element, fault.integer)
        if code == c.INPUT_NOT_FINITE:
            return InputError(
                where=f"{name}[{fault.element}]",
                found=f"it is {fault.real}",
                needed="a finite number is needed",
                remedy="Nothing was changed; correct the batch.",
            )
        return self._train_error(code, name)

    def _train_error(self, code: int, name: str) -> TrainError:
        fault = self._trainer.fault
        kernel = f" (kernel call {fault.call} returned {fault.integer})"
        found, needed, remedy = {
            c.LOSS_NOT_FINITE: (
                f"it is {fault.real}",
                "the loss has to be finite before parameters are updated",
                "No parameter was changed; lower the learning rate or look at the batch.",
            ),
            c.KERNEL_FAILED: (
                self._text(code) + kernel,
                "every kernel has to succeed",
                "No parameter was changed.",
            ),
            c.TORN: (
                self._text(code) + (kernel if fault.integer else ""),
                "parameters have to be whole",
                "Load a checkpoint.",
            ),
        }[code]
        return TrainError(where=name, found=found, needed=needed, remedy=remedy)

    @property
    def torn(self) -> bool:
        """Whether a step failed between updates, so that parameters have to be loaded anew."""
        return bool(self._trainer.torn)

    def clear_torn(self) -> None:
        """Call after param and state were loaded anew."""
        self._library.pe_clear_torn(self._address)

    def close(self) -> None:
        """End the threads. Further runs are refused; closing again does nothing."""
        with self._lock:
            pool, self._pool = self._pool, None
            self._entries = {}
            if pool is not None:
                self._library.pe_pool_destroy(pool)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __del__(self) -> None:
        if getattr(self, "_pool", None) is not None:
            self.close()
