"""The descriptor and its bytes."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pockengine.errors import PlanError
from pockengine.ir.types import DType, Region
from pockengine.runtime.descriptor import Call, Check, Descriptor, Entry, Operand, Page, Port
from pockengine.runtime.encoding import VERSION, decode, encode
from tests.runtime.toy import toy_descriptor

OPERANDS = st.builds(Operand, st.sampled_from(Region), st.integers(0, 2**62 - 1))
NAMES = st.text(st.characters(exclude_characters="\0", codec="utf-8"), max_size=9)
I64 = st.integers(-(2**63), 2**63 - 1)
CHECKS = (
    st.just(Check()) | st.just(Check.finite()) | st.builds(Check.index, I64, I64, st.none() | I64)
)
PORTS = st.builds(
    Port,
    NAMES,
    st.sampled_from(DType),
    OPERANDS,
    st.integers(0, 2**63),
    CHECKS,
)
CALLS = st.builds(
    Call,
    st.just(0),
    st.tuples(OPERANDS, OPERANDS),
    st.integers(0, 2**63 - 1),
    st.integers(0, 2**32 - 1),
)
ENTRIES = st.builds(
    Entry,
    NAMES,
    st.lists(PORTS, max_size=3).map(tuple),
    st.lists(PORTS, max_size=3).map(tuple),
    st.integers(0, 99),
    st.sampled_from([0, 12, 96]),
    st.integers(0, 99),
    st.none() | PORTS,
    st.sampled_from([1, 3, 4]),
)
PAGES = st.builds(
    Page, st.integers(0, 99), st.booleans(), OPERANDS, st.integers(0, 2**64 - 1), st.integers(0, 9)
)
DESCRIPTORS = st.builds(
    Descriptor,
    region_bytes=st.tuples(*[st.integers(0, 2**62)] * 4),
    region_alignment=st.sampled_from([8, 64, 256]),
    kernels=st.just(("only",)),
    calls=st.lists(CALLS, max_size=5).map(tuple),
    entries=st.lists(ENTRIES, max_size=3).map(tuple),
    pages=st.lists(PAGES, max_size=3).map(tuple),
)


@settings(max_examples=30, deadline=None)
@given(DESCRIPTORS)
def test_decode_inverts_encode(descriptor: Descriptor) -> None:
    """Any descriptor comes back whole, and its bytes are a multiple of 8."""
    data = encode(descriptor)
    assert decode(data) == descriptor
    assert len(data) % 8 == 0


@settings(deadline=None)
@given(st.integers(0), st.integers(0, 7))
def test_damage_is_seen(position: int, bit: int) -> None:
    """A flipped bit anywhere is an error."""
    data = bytearray(encode(toy_descriptor()))
    data[position % len(data)] ^= 1 << bit
    with pytest.raises(PlanError, match="Compile the trainer again"):
        decode(bytes(data))


@settings(deadline=None)
@given(st.binary() | st.integers(0, 900).map(lambda n: encode(toy_descriptor())[:n]))
def test_foreign_or_truncated_bytes(data: bytes) -> None:
    """Bytes that are no whole descriptor are an error."""
    with pytest.raises(PlanError, match=f"a whole descriptor of version {VERSION}"):
        decode(data)


def test_size() -> None:
    """A step of MobileNetV2's size (400 calls of 6 operands, 200 kernels) takes under 40 KB."""
    operands = (Operand(Region.ARENA, 64),) * 6
    descriptor = Descriptor(
        region_bytes=(0, 0, 0, 4096),
        kernels=tuple(f"kernel_{index:016x}" for index in range(200)),
        calls=tuple(Call(index % 200, operands, 100, 1) for index in range(400)),
        entries=(),
    )
    assert len(encode(descriptor)) < 40_000


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"calls": (Call(9, (), 1),)}, "call 0 names kernel 9 of 5"),
        ({"calls": (Call(0, (), 1),)}, "toy_dot has 0 operands, of 1 to 32"),
        (
            {"calls": tuple(Call(0, (Operand(Region.ARENA, 0),) * n, 1) for n in (2, 3))},
            "toy_dot is called with 2 and 3 operands",
        ),
        ({"calls": (Call(0, (Operand(Region.ARENA, -1),), 1),)}, "offset -1 is not within"),
        ({"kernels": ("a\0b", *toy_descriptor().kernels[1:])}, r"the name 'a\\x00b' has a zero"),
        ({"region_alignment": 2**40}, "descriptor: .*; tables within the limits"),
        (
            {"entries": (replace(toy_descriptor().entries[0], commit=-1),)},
            "step has a guard but nothing that it guards",
        ),
        (
            {"entries": (replace(toy_descriptor().entries[0], rounds=4),)},
            "step has 6 calls in 4 rounds",
        ),
    ],
)
def test_misfits_are_refused(changes: dict[str, object], message: str) -> None:
    """What the format cannot say is refused by name."""
    with pytest.raises(PlanError, match=message):
        encode(replace(toy_descriptor(), **changes))  # type: ignore[arg-type]
