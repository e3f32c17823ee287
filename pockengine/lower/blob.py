"""A kernel's object file -> one relocation-free piece of code, and back into memory.

Kernels on the host are loaded without a linker or a compiler process: the sections a kernel
reaches are laid out one behind the other, their PC-relative references are resolved, and the
result is mapped from its cache file. Formats: System V ABI (ELF64), its x86-64 supplement, and
ELF for the Arm 64-bit architecture.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from pockengine.errors import BuildError

LOAD_OFFSET = 64
"""Bytes between a page boundary and a blob's first byte, wherever the blob is mapped."""

_X86_64, _AARCH64 = 62, 183
_RELA, _NOBITS, _SYMTAB = 4, 8, 2
_WRITE, _ALLOC = 1, 2
_SECTION_SYMBOL = 3


@dataclass(frozen=True, slots=True)
class _Relocation:
    offset: int
    kind: int
    symbol: int
    addend: int


@dataclass(frozen=True, slots=True)
class _Symbol:
    name: str
    section: int
    value: int


@dataclass(slots=True)
class _Section:
    name: str
    flags: int
    alignment: int
    data: bytes
    relocations: list[_Relocation] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Object:
    machine: int
    sections: list[_Section]
    symbols: list[_Symbol]


def relocate(compiled: bytes, name: str, support: Sequence[bytes] = ()) -> bytes:
    """Code and constants of function ``name``, ready to run at `LOAD_OFFSET` into any page.

    Args:
        compiled: ELF64 relocatable object, x86-64 or aarch64.
        name: the function; it becomes the first byte of the result.
        support: further objects that define what the first leaves undefined (``memset``).

    Raises:
        BuildError: not such an object, a symbol nobody defines, writable data, or a relocation
            that depends on the load address.
    """
    objects = [_parse(image, name) for image in (compiled, *support)]
    definitions = {
        symbol.name: (number, symbol)
        for number, each in reversed(list(enumerate(objects)))
        for symbol in each.symbols
        if symbol.name and 0 < symbol.section < len(each.sections)
    }
    if name not in definitions or definitions[name][1].value:
        raise _error(name, "the function is not at the start of its section", "one function")
    layout = _Layout(name, objects, definitions)
    layout.place(definitions[name][0], definitions[name][1].section)
    return layout.finish()


def undefined_symbols(compiled: bytes) -> frozenset[str]:
    """Names that an ELF64 object refers to and does not define."""
    parsed = _parse(compiled, "kernel")
    return frozenset(symbol.name for symbol in parsed.symbols if symbol.name and not symbol.section)


class _Layout:
    """Sections placed so far, in order of first reference."""

    def __init__(
        self, name: str, objects: list[_Object], definitions: dict[str, tuple[int, _Symbol]]
    ) -> None:
        self.name = name
        self.objects = objects
        self.definitions = definitions
        self.offsets: dict[tuple[int, int], int] = {}
        self.image = bytearray()

    def place(self, number: int, index: int) -> None:
        """Lay out a section and, behind it, all it refers to."""
        if (number, index) in self.offsets:
            return
        section = self.objects[number].sections[index]
        if not section.flags & _ALLOC or section.flags & _WRITE:
            raise _error(self.name, f"data in section {section.name}", "code and constants only")
        self.image.extend(b"\0" * (-len(self.image) % max(1, section.alignment)))
        self.offsets[number, index] = len(self.image)
        self.image.extend(section.data)
        for relocation in section.relocations:
            self.place(*self._target(number, relocation)[0])

    def finish(self) -> bytes:
        """Resolve every reference of the placed sections."""
        for (number, index), start in self.offsets.items():
            machine = self.objects[number].machine
            for relocation in self.objects[number].sections[index].relocations:
                where, value = self._target(number, relocation)
                target = self.offsets[where] + value + relocation.addend
                self._apply(machine, relocation.kind, start + relocation.offset, target)
        return bytes(self.image)

    def _target(self, number: int, relocation: _Relocation) -> tuple[tuple[int, int], int]:
        """((object, section), offset in it) that a relocation's symbol stands for."""
        symbol = self.objects[number].symbols[relocation.symbol]
        if symbol.section:
            return (number, symbol.section), symbol.value
        if symbol.name not in self.definitions:
            raise _error(self.name, f"a call of {symbol.name}", "a kernel that calls nothing")
        number, symbol = self.definitions[symbol.name]
        return (number, symbol.section), symbol.value

    def _apply(self, machine: int, kind: int, place: int, target: int) -> None:
        patch = _PATCHES.get((machine, kind))
        if patch is None:
            raise _error(self.name, f"relocation type {kind}", "PC-relative relocations")
        patch(self.image, place, target + LOAD_OFFSET)


def _parse(image: bytes, name: str) -> _Object:
    if len(image) < 64 or image[:6] != b"\x7fELF\x02\x01":
        raise _error(name, "no little-endian ELF64 object", "a target of that format")
    machine = struct.unpack_from("<H", image, 18)[0]
    if machine not in (_X86_64, _AARCH64):
        raise _error(name, f"an object for ELF machine {machine}", "x86-64 or aarch64")
    table, size, count, names_at = (
        *struct.unpack_from("<Q", image, 40),
        *struct.unpack_from("<HHH", image, 58),
    )
    headers = [struct.unpack_from("<IIQQQQIIQQ", image, table + size * i) for i in range(count)]
    names = _bytes_of(image, headers[names_at])
    sections = [
        _Section(_text(names, header[0]), header[2], header[8], _bytes_of(image, header))
        for header in headers
    ]
    symbols: list[_Symbol] = []
    for header in headers:
        if header[1] == _SYMTAB:
            symbols = _symbols(_bytes_of(image, header), sections[header[6]].data)
        elif header[1] == _RELA:
            sections[header[7]].relocations.extend(_relocations(_bytes_of(image, header)))
    return _Object(machine, sections, symbols)


def _bytes_of(image: bytes, header: tuple[int, ...]) -> bytes:
    _, kind, _, _, offset, size, *_ = header
    return b"\0" * size if kind == _NOBITS else image[offset : offset + size]


def _text(table: bytes, at: int) -> str:
    return table[at : table.index(b"\0", at)].decode()


def _symbols(table: bytes, names: bytes) -> list[_Symbol]:
    rows = struct.iter_unpack("<IBBHQQ", table)
    return [
        _Symbol("" if info & 15 == _SECTION_SYMBOL else _text(names, at), section, value)
        for at, info, _, section, value, _ in rows
    ]


def _relocations(table: bytes) -> list[_Relocation]:
    return [
        _Relocation(offset, info & 0xFFFFFFFF, info >> 32, addend)
        for offset, info, addend in struct.iter_unpack("<QQq", table)
    ]


def _relative(layout: str) -> Callable[[bytearray, int, int], None]:
    """Patch of a plain PC-relative word; places are blob offsets, targets file offsets."""

    def patch(image: bytearray, place: int, target: int) -> None:
        struct.pack_into(layout, image, place, target - (place + LOAD_OFFSET))

    return patch


def _branch(bits: int, at: int, unit: int) -> Callable[[bytearray, int, int], None]:
    """Patch of an aarch64 instruction's PC-relative field of ``bits`` bits at bit ``at``."""

    def patch(image: bytearray, place: int, target: int) -> None:
        distance = (target - (place + LOAD_OFFSET)) // unit
        _insert(image, place, bits, at, distance)

    return patch


def _page(image: bytearray, place: int, target: int) -> None:
    """ADR_PREL_PG_HI21: distance in 4 KiB pages, split over immlo and immhi."""
    pages = (target >> 12) - ((place + LOAD_OFFSET) >> 12)
    _insert(image, place, 2, 29, pages)
    _insert(image, place, 19, 5, pages >> 2)


def _low_bits(scale: int) -> Callable[[bytearray, int, int], None]:
    """Patch of the offset within a page, in units of 2**scale bytes."""

    def patch(image: bytearray, place: int, target: int) -> None:
        _insert(image, place, 12 - scale, 10, (target & 0xFFF) >> scale)

    return patch


def _insert(image: bytearray, place: int, bits: int, at: int, value: int) -> None:
    word = struct.unpack_from("<I", image, place)[0]
    mask = (1 << bits) - 1
    struct.pack_into("<I", image, place, word & ~(mask << at) | (value & mask) << at)


def _error(name: str, found: str, needed: str) -> BuildError:
    return BuildError(
        where=f"kernel {name}",
        found=found,
        needed=needed,
        remedy="build it as an object file for the linker, or report the kernel",
    )


_PATCHES: dict[tuple[int, int], Callable[[bytearray, int, int], None]] = {
    (_X86_64, 2): _relative("<i"),  # R_X86_64_PC32
    (_X86_64, 4): _relative("<i"),  # R_X86_64_PLT32
    (_X86_64, 24): _relative("<q"),  # R_X86_64_PC64
    (_AARCH64, 260): _relative("<q"),  # R_AARCH64_PREL64
    (_AARCH64, 261): _relative("<i"),  # R_AARCH64_PREL32
    (_AARCH64, 275): _page,  # R_AARCH64_ADR_PREL_PG_HI21
    (_AARCH64, 277): _low_bits(0),  # R_AARCH64_ADD_ABS_LO12_NC
    (_AARCH64, 278): _low_bits(0),  # R_AARCH64_LDST8_ABS_LO12_NC
    (_AARCH64, 280): _branch(19, 5, 4),  # R_AARCH64_CONDBR19
    (_AARCH64, 282): _branch(26, 0, 4),  # R_AARCH64_JUMP26
    (_AARCH64, 283): _branch(26, 0, 4),  # R_AARCH64_CALL26
    (_AARCH64, 284): _low_bits(1),  # R_AARCH64_LDST16_ABS_LO12_NC
    (_AARCH64, 285): _low_bits(2),  # R_AARCH64_LDST32_ABS_LO12_NC
    (_AARCH64, 286): _low_bits(3),  # R_AARCH64_LDST64_ABS_LO12_NC
    (_AARCH64, 299): _low_bits(4),  # R_AARCH64_LDST128_ABS_LO12_NC
}
