"""What an ELF object file takes of a machine's memory, and what it leaves to the linker."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

_SYMTAB, _NOBITS = 2, 8
_ALLOC = 2
_UNWIND = (".ARM.exidx", ".eh_frame", ".rela", ".rel.")  # not kept without a system
_LAYOUTS = {
    # class: place of the section table's offset, of its row size and count; a row; a symbol
    1: ("<I", 32, 46, struct.Struct("<10I"), struct.Struct("<IIIBBH")),
    2: ("<Q", 40, 58, struct.Struct("<IIQQQQIIQQ"), struct.Struct("<IBBHQQ")),
}


@dataclass(frozen=True, slots=True)
class _Section:
    name: str
    kind: int
    flags: int
    data: bytes
    size: int
    link: int


def code_bytes(image: bytes) -> int:
    """Bytes of code and constants, without unwind tables: what it adds to flash."""
    return sum(
        section.size
        for section in _sections(image)
        if section.flags & _ALLOC
        and section.kind != _NOBITS
        and not section.name.startswith(_UNWIND)
    )


def undefined(image: bytes) -> frozenset[str]:
    """Names that an object refers to and does not define; compilers' unwinding hooks left out."""
    sections = list(_sections(image))
    row = _LAYOUTS[image[4]][4]
    found: set[str] = set()
    for section in sections:
        if section.kind == _SYMTAB:
            names = sections[section.link].data
            for symbol in row.iter_unpack(section.data):
                defined_in = symbol[5] if image[4] == 1 else symbol[3]
                if defined_in == 0:
                    found.add(_text(names, symbol[0]))
    return frozenset(name for name in found if name and not name.startswith("__aeabi_unwind"))


def _sections(image: bytes) -> Iterator[_Section]:
    offset_format, offset_at, counts_at, row, _ = _LAYOUTS[image[4]]
    (table,) = struct.unpack_from(offset_format, image, offset_at)
    size, count, names_at = struct.unpack_from("<HHH", image, counts_at)
    rows = [row.unpack_from(image, table + size * index) for index in range(count)]
    names = image[rows[names_at][4] : rows[names_at][4] + rows[names_at][5]]
    for name, kind, flags, _, offset, length, link, *_ in rows:
        data = b"" if kind == _NOBITS else image[offset : offset + length]
        yield _Section(_text(names, name), kind, flags, data, length, link)


def _text(table: bytes, at: int) -> str:
    return table[at : table.index(b"\0", at)].decode()
