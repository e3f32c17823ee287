"""``compress_masks``: which masks become bits, for whom, and along which axis."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from pockengine.ir.graph import calls, is_op, type_of
from pockengine.ir.text import parse, text
from pockengine.ir.verify import verify
from pockengine.passes.compress_masks import compress_masks, forward_values
from pockengine.passes.fold_batch_norm import fold_batch_norm
from pockengine.passes.prune_backward import prune_backward
from pockengine.passes.simplify import simplify
from tests.oracles import EXAMPLES, Example, assert_same, conv_net
from tests.passes.golden import example


def _relu(shape: tuple[int, ...], mask: str = "le(%y, 0.0)") -> str:
    """A ReLU and its gradient, of a shape."""
    dims = "x".join(map(str, shape))
    return f"""%x: f32[{dims}] = input('x')
%i: i64[{dims}] = input('i')
%y: f32[{dims}] = maximum(%x, 0.0)
%dy: f32[{dims}] = neg(%y)
%m: bool[{dims}] = {mask}
%dz: f32[{dims}] = where(%m, 0.0, %dy)
return loss=None, outputs=(%y,), gradients={{'z': %dz}}, updates=()
"""


@pytest.mark.parametrize(
    ("shape", "mask", "axis"),
    [
        ((32, 32), "le(%y, 0.0)", 1),
        ((2, 2, 16, 16), "le(%y, 0.0)", 3),
        ((256, 4), "le(%y, 0.0)", None),
        ((16, 16), "le(%y, 0.0)", None),
        ((32, 32), "le(%i, 0)", None),
        ((32, 32), "le(%dy, 0.0)", None),
    ],
    ids=["matrix", "no convolution", "narrow", "small", "of integers", "of a gradient"],
)
def test_what_is_packed(shape: tuple[int, ...], mask: str, axis: int | None) -> None:
    """Large masks of forward values are packed along the innermost axis; others are not."""
    packed = verify(compress_masks(parse(_relu(shape, mask))))
    assert [node.args[1] for node in calls(packed, "pack_bits")] == ([] if axis is None else [axis])


def test_convolutions_pack_channels() -> None:
    """Masks of convolutions lie along channels, and logical ops are packed as one."""
    case = conv_net()
    packed = compress_masks(simplify(fold_batch_norm(simplify(case.graph))))
    found = list(calls(packed, "pack_bits"))
    assert {node.args[1] for node in found} == {1}
    assert all(is_op(node.args[0], "logical_or", "le") for node in found)
    assert len(found) == 6  # the last block's and the head's have fewer than 1024 elements


def test_forward_readers_keep_the_mask() -> None:
    """A forward reader of a mask reads the mask, a backward one the bits."""
    graph = parse("""%x: f32[32x32] = input('x')
%y: f32[32x32] = exp(%x)
%m: bool[32x32] = gt(%y, 1.0)
%z: f32[32x32] = where(%m, %y, 0.0)
%dz: f32[32x32] = neg(%z)
%dy: f32[32x32] = where(%m, %dz, 0.0)
return loss=None, outputs=(%z,), gradients={'y': %dy}, updates=()
""")
    forward, backward = calls(compress_masks(graph), "where")
    assert is_op(forward.args[0], "gt")
    assert is_op(backward.args[0], "unpack_bits")


def test_bits_replace_activations() -> None:
    """With biases alone updated, the bits are all that the backward pass needs of an activation."""
    case = conv_net()
    graph = prune_backward(case.graph, [f"blocks.{i}.layers.7.bias" for i in range(3)])
    packed = compress_masks(simplify(fold_batch_norm(simplify(graph))))
    forward = forward_values(packed)
    kept = [
        node
        for node in calls(packed)
        if node in forward and any(user not in forward for user in node.users)
    ]
    large = [node for node in kept if type_of(node).size >= 1024 and type_of(node).dtype.is_float]
    assert [node for node in kept if is_op(node, "pack_bits")]
    assert all(is_op(node, "mul") for node in large)  # W s, which fold_constants makes constant


@pytest.mark.parametrize("make", EXAMPLES)
def test_same_values(make: Callable[[], Example]) -> None:
    """Whole models compute the same, and twice is once."""
    case = make()
    packed = verify(compress_masks(case.graph))
    assert_same(case.graph, packed, case.values)
    assert text(compress_masks(packed)) == text(packed)


def test_example() -> None:
    """The docstring's example."""
    before, after = example(compress_masks)
    assert text(compress_masks(before)) == after
