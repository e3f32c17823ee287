"""Ways to damage a file, or to change it and make its checksum right again."""

from __future__ import annotations

import hashlib
import json
import random
import re
import struct
import zlib
from collections.abc import Callable
from typing import Any

Damage = Callable[[bytes, random.Random], bytes]

_NUMBERS = (
    0,
    1,
    2,
    7,
    8,
    31,
    33,
    63,
    255,
    2**15,
    2**31 - 1,
    2**31,
    2**32 - 1,
    2**62,
    2**63,
    2**64 - 1,
)
_ODD: tuple[Any, ...] = (
    *(
        None,
        True,
        False,
        0,
        -1,
        1,
        2,
        1e308,
        -0.0,
        2**31,
        2**63,
        10**30,
        float("nan"),
        float("inf"),
    ),
    *("", "x", "a" * 300, "\0", "\ud83d\ude00", "kind", "full", "lora", "F32", "1"),
    *([], {}, [[]], [0, 0], {"": {}}, [None] * 5, {"kind": "full"}),
)


def _flip(data: bytes, chance: random.Random) -> bytes:
    at = chance.randrange(len(data))
    return data[:at] + bytes([data[at] ^ 1 << chance.randrange(8)]) + data[at + 1 :]


def _overwrite(data: bytes, chance: random.Random) -> bytes:
    at = chance.randrange(len(data))
    return data[:at] + chance.randbytes(chance.randint(1, 40)) + data[at + 1 :]


def _cut(data: bytes, chance: random.Random) -> bytes:
    return data[: chance.randrange(len(data))]


def _drop(data: bytes, chance: random.Random) -> bytes:
    at = chance.randrange(len(data))
    return data[:at] + data[at + chance.randint(1, 64) :]


def _repeat(data: bytes, chance: random.Random) -> bytes:
    at, size = chance.randrange(len(data)), chance.randint(1, 64)
    return data[: at + size] + data[at:]


def _swap(data: bytes, chance: random.Random) -> bytes:
    one, two = sorted(chance.randrange(len(data)) for _ in range(2))
    return data[:one] + data[two:] + data[one:two]


def _zeros(data: bytes, chance: random.Random) -> bytes:
    at, size = chance.randrange(len(data)), chance.choice((1, 8, 64, 512))
    return data[:at] + bytes(min(size, len(data) - at)) + data[at + size :]


def _word(data: bytes, chance: random.Random) -> bytes:
    """An aligned number becomes one at some limit, or near what it was."""
    width, code = chance.choice(((4, "<I"), (8, "<Q")))
    if len(data) < width:
        return data[:-1]
    at = chance.randrange(len(data) // width) * width
    (old,) = struct.unpack_from(code, data, at)
    near = old + chance.choice((-8, -1, 1, 8))
    new = chance.choice((*_NUMBERS, near, near, near)) % (1 << 8 * width)
    return data[:at] + struct.pack(code, new) + data[at + width :]


_BYTES = (_flip, _overwrite, _cut, _drop, _repeat, _swap, _zeros, _word)


def damaged(data: bytes, chance: random.Random) -> bytes:
    """Bytes with one to three things wrong; never what they were."""
    new = data
    while new == data:
        for _ in range(chance.choice((1, 1, 2, 3))):
            new = chance.choice(_BYTES)(new or data, chance)
    return new


def changed_words(data: bytes, chance: random.Random) -> bytes:
    """Bytes of the same length with other numbers in them."""
    for _ in range(chance.choice((1, 1, 2, 4))):
        data = _word(data, chance)
    return data


def changed_json(value: Any, chance: random.Random) -> Any:
    """A document with one odd value, a missing or new key, or too many brackets."""
    if chance.random() < 0.35 or not isinstance(value, (dict, list)) or not value:
        return chance.choice(_ODD)
    keys = list(value) if isinstance(value, dict) else range(len(value))
    key: Any = chance.choice(list(keys))
    new: Any = dict(value) if isinstance(value, dict) else list(value)
    if chance.random() < 0.15:
        del new[key]
    elif chance.random() < 0.1 and isinstance(new, dict):
        new[chance.choice(("", "more", "kind", "weight"))] = chance.choice(_ODD)
    else:
        new[key] = changed_json(new[key], chance)
    return new


def json_text(value: Any, chance: random.Random) -> bytes:
    """A document as text: now and then too deep."""
    text = json.dumps(value)
    if chance.random() < 0.02:
        text = text.replace("null", "[" * 100_000) + "[" * 100_000
    return text.encode("utf-8", "surrogatepass")


def split_safetensors(data: bytes) -> tuple[dict[str, Any], bytes]:
    """The header and the rest."""
    (length,) = struct.unpack_from("<Q", data)
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def join_safetensors(header: bytes, rest: bytes) -> bytes:
    """A file of a header and the rest."""
    header += b" " * (-len(header) % 8)
    return struct.pack("<Q", len(header)) + header + rest


def signed_checkpoint(data: bytes) -> bytes:
    """A checkpoint with the checksum that it should have, where it says one."""
    found = re.search(rb'"sha256": ?"([0-9a-f]{64})"', data)
    if found is None:
        return data
    empty = data[: found.start(1)] + b"0" * 64 + data[found.end(1) :]
    digest = hashlib.sha256(empty).hexdigest().encode()
    return data[: found.start(1)] + digest + data[found.end(1) :]


def signed_descriptor(data: bytes) -> bytes:
    """A descriptor with the length and the checksum that it should have."""
    if len(data) < 24:
        return data
    sized = data[:16] + struct.pack("<Q", len(data)) + data[24:]
    return sized[:12] + struct.pack("<I", zlib.crc32(sized[16:])) + sized[16:]
