"""The descriptor: a compiled trainer's tables (decision 4 of the design).

The schedule is data. A call names a kernel and its operands as (region, offset), never as pointers,
so the same tables serve from a file, from flash or on another processor. ``encoding.py`` turns them
into the bytes that the C core interprets.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from pockengine.ir.types import DType, Region

REGION_ALIGNMENT = 64


@dataclass(frozen=True, slots=True)
class Operand:
    """A place in memory: a byte offset in a region."""

    region: Region
    offset: int


@dataclass(frozen=True, slots=True)
class Call:
    """One run of a kernel.

    Args:
        kernel: index into the descriptor's kernels.
        operands: as many as the kernel takes, outputs and inputs alike.
        extent: the kernel's outer loop runs over [0, extent).
        grain: the least iterations worth a thread of their own; 0 keeps the range whole.
    """

    kernel: int
    operands: tuple[Operand, ...]
    extent: int
    grain: int = 0


class CheckKind(IntEnum):
    """What is checked of an input before a step changes anything."""

    NONE = 0
    FINITE = 1
    INDEX = 2


@dataclass(frozen=True, slots=True)
class Check:
    """What an input has to satisfy.

    Args:
        kind: nothing, finite reals, or integers in a range.
        low: the least permitted integer.
        high: the least integer that is too big.
        ignore: one integer permitted besides (a label that does not count), if any.
    """

    kind: CheckKind = CheckKind.NONE
    low: int = 0
    high: int = 0
    ignore: int | None = None

    @classmethod
    def finite(cls) -> Check:
        """No NaN and no infinity."""
        return cls(CheckKind.FINITE)

    @classmethod
    def index(cls, low: int, high: int, ignore: int | None = None) -> Check:
        """Integers in [low, high), or equal to ``ignore``."""
        return cls(CheckKind.INDEX, low, high, ignore)


@dataclass(frozen=True, slots=True)
class Port:
    """Where an entry point takes an input from, leaves an output, or finds its guard.

    Args:
        name: what messages call it.
        dtype: of its elements, dense.
        operand: its place; an input's is in the arena.
        size: number of elements.
        check: what an input has to satisfy; outputs and guards carry none.
    """

    name: str
    dtype: DType
    operand: Operand
    size: int
    check: Check = Check()


@dataclass(frozen=True, slots=True)
class Entry:
    """An entry point: a run of calls with inputs and outputs.

    Args:
        name: such as ``step`` or ``predict``.
        inputs: copied in before the first call.
        outputs: copied out after the last call.
        first_call: index of its first call in the descriptor.
        calls: how many there are.
        commit: the first of its calls (counted from ``first_call``) that updates a param or state;
            -1 if none does.
        guard: float32 values (the loss) that have to be finite before ``commit`` runs.
        rounds: its calls are so many rounds alike, one for each micro-batch; the guard is looked at
            in each of them, at the call that is ``commit`` in the first.
    """

    name: str
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    first_call: int
    calls: int
    commit: int = -1
    guard: Port | None = None
    rounds: int = 1


@dataclass(frozen=True, slots=True)
class Page:
    """A transfer between a region and storage before a call. Carried, not yet run.

    Args:
        call: index of the call.
        out: to storage, else from it.
        operand: the place in memory.
        storage_offset: the place in storage, in bytes.
        nbytes: how much.
    """

    call: int
    out: bool
    operand: Operand
    storage_offset: int
    nbytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Descriptor:
    """A compiled trainer but for its kernels' code and its regions' contents.

    Args:
        region_bytes: sizes of const, param, state and arena.
        region_alignment: of the first byte of each; a power of two, at least 8.
        kernels: names, in the order of the table handed to the runtime.
        calls: of all entry points.
        entries: the entry points.
        pages: transfers to and from storage.
    """

    region_bytes: tuple[int, int, int, int]
    region_alignment: int = REGION_ALIGNMENT
    kernels: tuple[str, ...]
    calls: tuple[Call, ...]
    entries: tuple[Entry, ...]
    pages: tuple[Page, ...] = ()
