"""``Regions``: tensors keep their values through any storage order."""

from __future__ import annotations

import torch

from pockengine.ir.types import DType, Region, TensorType
from pockengine.plan.memory import Place, Plan
from pockengine.runtime.regions import Regions

_PLAN = Plan(
    alignment_bytes=64,
    arena_bytes=0,
    lower_bound_bytes=0,
    const_bytes=64,
    param_bytes=512,
    state_bytes=0,
    saved_bytes=0,
    places={
        "c": Place(Region.CONST, 0, TensorType((3,), DType.I64)),
        "w": Place(Region.PARAM, 0, TensorType((4, 3, 2, 2), DType.F32, (2, 3, 1, 0))),
        "s": Place(Region.PARAM, 192, TensorType(())),
    },
    entries={},
)


def test_round_trip() -> None:
    """What is written in canonical layout is read so, and lies in storage order."""
    regions = Regions(_PLAN, 64)
    tensors = {
        "c": torch.tensor([1, -2, 3]),
        "w": torch.randn(4, 3, 2, 2).to(memory_format=torch.channels_last),
        "s": torch.tensor(0.5),
    }
    regions.write(tensors)
    for name, tensor in tensors.items():
        found = regions.read(name)
        assert torch.equal(found, tensor)
        assert found.is_contiguous()
    stored = torch.from_numpy(regions.arrays[Region.PARAM][:192]).view(torch.float32)
    assert torch.equal(stored, tensors["w"].permute(2, 3, 1, 0).reshape(-1))
    assert regions.names(Region.PARAM) == ["w", "s"]


def test_read_is_a_copy() -> None:
    """Changing what was read changes nothing inside; a view does."""
    regions = Regions(_PLAN, 64)
    regions.read("w").fill_(1)
    assert not regions.read("w").any()
    regions.view("w").fill_(1)
    assert regions.read("w").all()
