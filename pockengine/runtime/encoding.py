"""The descriptor's bytes, which the C core interprets in place (``csrc/format.h``)."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable, Sequence

from pockengine.errors import PlanError
from pockengine.ir.types import DType, Region
from pockengine.runtime.descriptor import (
    Call,
    Check,
    CheckKind,
    Descriptor,
    Entry,
    Operand,
    Page,
    Port,
)

VERSION = 2
MAX_OPERANDS = 32

_MAGIC = b"PockEng\0"
_NONE = 0xFFFFFFFF
_CHECKED_FROM = 16
_OFFSET_BITS = 62
_DTYPES = (DType.F32, DType.BF16, DType.F16, DType.I8, DType.I32, DType.I64, DType.U8, DType.BOOL)

_HEADER = struct.Struct("<8sIIQ4Q8I")
_KERNEL = struct.Struct("<2I")
_CALL = struct.Struct("<4Iq")
_OPERAND = struct.Struct("<Q")
_PORT = struct.Struct("<I4B2Q3q")
_ENTRY = struct.Struct("<10I")
_PAGE = struct.Struct("<2I3Q")
_SECTIONS = (_KERNEL, _CALL, _OPERAND, _PORT, _ENTRY, _PAGE)


def encode(descriptor: Descriptor) -> bytes:
    """The bytes of a descriptor.

    Raises:
        PlanError: a field does not fit the format, or calls of a kernel differ in their number of
            operands.
    """
    try:
        return _encode(descriptor)
    except struct.error as error:
        raise _misfit(str(error)) from error


def _encode(descriptor: Descriptor) -> bytes:
    names = _Names()
    ports: list[bytes] = []
    sections = [
        _encode_kernels(descriptor, names),
        _encode_calls(descriptor.calls),
        [_pack_operand(each) for call in descriptor.calls for each in call.operands],
        ports,  # filled by the entries
        [_encode_entry(entry, ports, names) for entry in descriptor.entries],
        [_encode_page(page) for page in descriptor.pages],
    ]
    sizes = [len(rows) for rows in sections]
    text = names.section()
    body = b"".join(b"".join(rows) for rows in sections) + text
    return _with_header(descriptor, sizes, len(text), body)


def _with_header(
    descriptor: Descriptor, sizes: Sequence[int], name_bytes: int, body: bytes
) -> bytes:
    def header(checksum: int) -> bytes:
        return _HEADER.pack(
            _MAGIC,
            VERSION,
            checksum,
            _HEADER.size + len(body),
            *descriptor.region_bytes,
            descriptor.region_alignment,
            *sizes,
            name_bytes,
        )

    checksum = zlib.crc32(header(0)[_CHECKED_FROM:] + body)
    return header(checksum) + body


class _Names:
    """Zero-terminated strings, each once."""

    def __init__(self) -> None:
        self._at: dict[str, int] = {}
        self._bytes = bytearray()

    def add(self, name: str) -> int:
        """The offset of a name."""
        if name not in self._at:
            if "\0" in name:
                raise _misfit(f"the name {name!r} has a zero byte")
            self._at[name] = len(self._bytes)
            self._bytes += name.encode() + b"\0"
        return self._at[name]

    def section(self) -> bytes:
        """All names, padded to a multiple of 8 bytes."""
        return bytes(self._bytes) + bytes(-len(self._bytes) % 8)


def _misfit(found: str) -> PlanError:
    return PlanError(
        where="descriptor",
        found=found,
        needed="tables within the limits of the format",
        remedy="This is a fault of the compiler: please report it.",
    )


def _encode_kernels(descriptor: Descriptor, names: _Names) -> list[bytes]:
    arities = [0] * len(descriptor.kernels)
    for index, call in enumerate(descriptor.calls):
        if not 0 <= call.kernel < len(arities):
            raise _misfit(f"call {index} names kernel {call.kernel} of {len(arities)}")
        name, arity = descriptor.kernels[call.kernel], len(call.operands)
        if not 1 <= arity <= MAX_OPERANDS:
            raise _misfit(f"{name} has {arity} operands, of 1 to {MAX_OPERANDS}")
        if arities[call.kernel] not in (0, arity):
            raise _misfit(f"{name} is called with {arities[call.kernel]} and {arity} operands")
        arities[call.kernel] = arity
    return [
        _KERNEL.pack(names.add(name), arity)
        for name, arity in zip(descriptor.kernels, arities, strict=True)
    ]


def _encode_calls(calls: Iterable[Call]) -> list[bytes]:
    rows = []
    first = 0
    for call in calls:
        arity = len(call.operands)
        rows.append(_CALL.pack(call.kernel, first, arity, call.grain, call.extent))
        first += arity
    return rows


def _operand(operand: Operand) -> int:
    if not 0 <= operand.offset < 1 << _OFFSET_BITS:
        raise _misfit(f"the offset {operand.offset} is not within {_OFFSET_BITS} bits")
    return operand.region << _OFFSET_BITS | operand.offset


def _pack_operand(operand: Operand) -> bytes:
    return _OPERAND.pack(_operand(operand))


def _encode_port(port: Port, names: _Names) -> bytes:
    check = port.check
    return _PORT.pack(
        names.add(port.name),
        _DTYPES.index(port.dtype),
        check.kind,
        check.ignore is not None,
        0,
        _operand(port.operand),
        port.size,
        check.low,
        check.high,
        check.ignore or 0,
    )


def _encode_entry(entry: Entry, ports: list[bytes], names: _Names) -> bytes:
    if entry.guard and entry.commit < 0:
        raise _misfit(f"{entry.name} has a guard but nothing that it guards")
    if entry.rounds < 1 or entry.calls % entry.rounds:
        raise _misfit(f"{entry.name} has {entry.calls} calls in {entry.rounds} rounds")
    first = len(ports)
    ports += [_encode_port(port, names) for port in (*entry.inputs, *entry.outputs)]
    guard = len(ports) if entry.guard else _NONE
    if entry.guard:
        ports.append(_encode_port(entry.guard, names))
    return _ENTRY.pack(
        names.add(entry.name),
        entry.first_call,
        entry.calls,
        entry.commit if entry.commit >= 0 else _NONE,
        first,
        len(entry.inputs),
        len(entry.outputs),
        guard,
        entry.rounds,
        0,
    )


def _encode_page(page: Page) -> bytes:
    return _PAGE.pack(page.call, page.out, _operand(page.operand), page.storage_offset, page.nbytes)


def decode(data: bytes) -> Descriptor:
    """The descriptor of some bytes; the inverse of `encode`.

    Raises:
        PlanError: the bytes are damaged, truncated or something else.
    """
    header, sections = _split(data)
    try:
        return _assemble(header, sections)
    except (IndexError, ValueError, UnicodeDecodeError) as error:
        raise _damaged(f"holds a field out of range ({error})") from error


def _split(data: bytes) -> tuple[tuple[int, ...], tuple[bytes, ...]]:
    """The header's numbers from the region sizes on, and the bytes of each section."""
    if len(data) < _HEADER.size:
        raise _damaged(f"has {len(data)} bytes")
    magic, version, checksum, total, *header = _HEADER.unpack_from(data)
    if magic != _MAGIC:
        raise _damaged(f"begins with {magic!r}")
    if version != VERSION:
        raise _damaged(f"has version {version}")
    if total != len(data):
        raise _damaged(f"has {len(data)} bytes of {total}")
    if checksum != zlib.crc32(data[_CHECKED_FROM:]):
        raise _damaged("has a wrong checksum")
    *counts, name_bytes = header[5:]
    sizes = [row.size * count for row, count in zip(_SECTIONS, counts, strict=True)]
    if _HEADER.size + sum(sizes) + name_bytes != total:
        raise _damaged("has sections that do not add up")
    sections = []
    at = _HEADER.size
    for size in (*sizes, name_bytes):
        sections.append(data[at : at + size])
        at += size
    return tuple(header), tuple(sections)


def _damaged(found: str) -> PlanError:
    return PlanError(
        where="descriptor",
        found=f"it {found}",
        needed=f"a whole descriptor of version {VERSION}",
        remedy="Compile the trainer again.",
    )


def _assemble(header: tuple[int, ...], sections: tuple[bytes, ...]) -> Descriptor:
    kernel_rows, call_rows, operand_rows, port_rows, entry_rows, page_rows, names = sections
    operands = [_read_operand(row[0]) for row in _OPERAND.iter_unpack(operand_rows)]
    ports = [_read_port(row, names) for row in _PORT.iter_unpack(port_rows)]
    const, param, state, arena, alignment = header[:5]
    return Descriptor(
        region_bytes=(const, param, state, arena),
        region_alignment=alignment,
        kernels=tuple(_read_name(names, row[0]) for row in _KERNEL.iter_unpack(kernel_rows)),
        calls=tuple(
            Call(kernel, tuple(operands[first : first + arity]), extent, grain)
            for kernel, first, arity, grain, extent in _CALL.iter_unpack(call_rows)
        ),
        entries=tuple(_read_entry(row, ports, names) for row in _ENTRY.iter_unpack(entry_rows)),
        pages=tuple(
            Page(call, bool(out), _read_operand(operand), storage, nbytes)
            for call, out, operand, storage, nbytes in _PAGE.iter_unpack(page_rows)
        ),
    )


def _read_name(names: bytes, at: int) -> str:
    return names[at : names.index(b"\0", at)].decode()


def _read_operand(packed: int) -> Operand:
    return Operand(Region(packed >> _OFFSET_BITS), packed & ((1 << _OFFSET_BITS) - 1))


def _read_port(row: tuple[int, ...], names: bytes) -> Port:
    name, dtype, kind, has_ignore, _, operand, size, low, high, ignore = row
    check = Check(CheckKind(kind), low, high, ignore if has_ignore else None)
    return Port(_read_name(names, name), _DTYPES[dtype], _read_operand(operand), size, check)


def _read_entry(row: tuple[int, ...], ports: Sequence[Port], names: bytes) -> Entry:
    name, first_call, calls, commit, first, inputs, outputs, guard, rounds, _ = row
    return Entry(
        _read_name(names, name),
        tuple(ports[first : first + inputs]),
        tuple(ports[first + inputs : first + inputs + outputs]),
        first_call,
        calls,
        -1 if commit == _NONE else commit,
        None if guard == _NONE else ports[guard],
        rounds,
    )
