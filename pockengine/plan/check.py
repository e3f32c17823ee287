"""An independent check of a packing; it shares no code with the packer it mistrusts."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Mapping, Sequence

from pockengine.errors import PlanError
from pockengine.plan.model import Buffer


def check(buffers: Sequence[Buffer], offsets: Mapping[str, int], arena_bytes: int) -> None:
    """Refuses a packing in which anything lies wrong; O(n log n) comparisons.

    Time is swept from start to end with the live buffers kept in the order of their offsets. As
    long as all is well these are disjoint, so a buffer that starts can only meet its neighbours.

    Args:
        buffers: what was to be placed.
        offsets: byte offset by buffer id.
        arena_bytes: bytes from offset 0 that belong to the arena.

    Raises:
        PlanError: a buffer has no offset, lies below 0, beyond the arena, off its alignment or off
            its fixed offset, or overlaps another that is live at the same time.
    """
    for buffer in buffers:
        _check_alone(buffer, offsets, arena_bytes)
    solid = [buffer for buffer in buffers if buffer.size > 0]
    starting = [(buffer.lower, 1, index) for index, buffer in enumerate(solid)]
    ending = [(buffer.upper, 0, index) for index, buffer in enumerate(solid)]
    live: list[tuple[int, int, int]] = []  # offset, end, index
    for _, starts, index in sorted(starting + ending):
        offset = offsets[solid[index].id]
        interval = (offset, offset + solid[index].size, index)
        at = bisect_left(live, interval)
        if not starts:
            del live[at]
            continue
        for neighbour in live[max(at - 1, 0) : at + 1]:
            if neighbour[0] < interval[1] and interval[0] < neighbour[1]:
                raise _overlap(solid[neighbour[2]], solid[index], offsets)
        insort(live, interval)


def _check_alone(buffer: Buffer, offsets: Mapping[str, int], arena_bytes: int) -> None:
    if buffer.id not in offsets:
        raise _wrong(buffer, "it has no offset", "every buffer has a place")
    offset = offsets[buffer.id]
    if offset < 0:
        raise _wrong(buffer, f"its offset is {offset}", "offsets are not negative")
    if offset + buffer.size > arena_bytes:
        end = f"it ends at byte {offset + buffer.size}"
        raise _wrong(buffer, end, f"the arena ends at {arena_bytes}")
    if offset % buffer.alignment:
        needed = f"offsets are multiples of {buffer.alignment}"
        raise _wrong(buffer, f"its offset is {offset}", needed)
    if buffer.fixed_offset is not None and offset != buffer.fixed_offset:
        raise _wrong(buffer, f"its offset is {offset}", f"it is fixed at {buffer.fixed_offset}")


def _overlap(first: Buffer, second: Buffer, offsets: Mapping[str, int]) -> PlanError:
    def told(buffer: Buffer) -> str:
        offset = offsets[buffer.id]
        lifetime = f"live on [{buffer.lower}, {buffer.upper})"
        return f"{buffer.id} ({lifetime}, bytes [{offset}, {offset + buffer.size}))"

    return PlanError(
        where="memory plan",
        found=f"{told(first)} overlaps {told(second)}",
        needed="buffers that are live at one time lie apart",
        remedy="The packing is wrong: do not use it, and report it.",
    )


def _wrong(buffer: Buffer, found: str, needed: str) -> PlanError:
    return PlanError(
        where=f"memory plan, buffer {buffer.id} of {buffer.size} bytes",
        found=found,
        needed=needed,
        remedy="The packing is wrong: do not use it, and report it.",
    )
