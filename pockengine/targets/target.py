"""What is known of a machine that a trainer is compiled for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from types import MappingProxyType
from typing import Any

_WORDS = ("name", "description", "llvm", "zig_triple", "zig_cpu", "emulator", "sources")


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A machine as data. A number is None where it is not known; each that is known has a source.

    Args:
        name: what the command line calls it.
        description: the machine, in words.
        llvm: TVM target as a dict with every feature spelled out; None for this host, whose
            features ``lower.features.host_target`` reads.
        zig_triple: what ``zig cc`` calls the system; None where nothing is linked.
        zig_cpu: what ``zig cc`` calls the processor; None for the triple's baseline.
        emulator: command that runs a program of this machine here, and takes its path as the last
            argument; empty where the program runs by itself, None where nothing can run it.
        pointer_bits: of an address.
        alignment_bytes: of every region and of every value in one.
        flash_bytes: read-only memory for code and frozen values.
        sram_bytes: working memory on the chip of a microcontroller.
        dram_bytes: working memory of a machine with an operating system.
        threads: processor cores; None for as many as the machine that runs has.
        fma_flops_per_s: float32 operations a second of one core, a multiply-add counted as two.
        memory_bytes_per_s: read plus written by one core that streams through working memory.
        joules_per_flop: energy of one float32 operation.
        page_in_joules: energy of one read from storage, however short.
        page_in_joules_per_byte: further energy of each byte read.
        page_out_joules: energy of one write to storage, however short.
        page_out_joules_per_byte: further energy of each byte written.
        storage_read_bytes_per_s: rate of reading from storage.
        storage_write_bytes_per_s: rate of writing to storage.
        sources: where each number comes from, by the name of its field.

    Raises:
        ValueError: a number without a source, or a source of an unknown number.
    """

    name: str
    description: str
    llvm: Mapping[str, Any] | None
    zig_triple: str | None
    zig_cpu: str | None = None
    emulator: tuple[str, ...] | None = None
    pointer_bits: int
    alignment_bytes: int
    flash_bytes: int | None = None
    sram_bytes: int | None = None
    dram_bytes: int | None = None
    threads: int | None = None
    fma_flops_per_s: float | None = None
    memory_bytes_per_s: float | None = None
    joules_per_flop: float | None = None
    page_in_joules: float | None = None
    page_in_joules_per_byte: float | None = None
    page_out_joules: float | None = None
    page_out_joules_per_byte: float | None = None
    storage_read_bytes_per_s: float | None = None
    storage_write_bytes_per_s: float | None = None
    sources: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        known = {name for name, value in self.numbers.items() if value is not None}
        if known != self.sources.keys():
            wrong = ", ".join(sorted(known ^ self.sources.keys()))
            raise ValueError(f"target {self.name}: number or source missing for {wrong}")
        object.__setattr__(self, "sources", MappingProxyType(dict(self.sources)))
        if self.llvm is not None:
            object.__setattr__(self, "llvm", MappingProxyType(dict(self.llvm)))

    def __reduce__(self) -> tuple[Any, ...]:
        """As its fields: read-only mappings cannot be pickled."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        plain = {n: dict(v) if isinstance(v, Mapping) else v for n, v in values.items()}
        return _target, (plain,)

    @property
    def numbers(self) -> dict[str, float | None]:
        """All numeric fields by name."""
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name not in _WORDS}

    @property
    def working_bytes(self) -> int | None:
        """The memory that arena, parameters and state share."""
        return self.dram_bytes if self.sram_bytes is None else self.sram_bytes


def _target(values: Mapping[str, Any]) -> Target:
    return Target(**values)
