"""``pad_convolutions``: padding becomes a value; depthwise convolutions keep theirs."""

from __future__ import annotations

import pytest
import torch

from pockengine.ir.graph import calls
from pockengine.ir.interpret import interpret
from pockengine.ir.text import parse, text
from pockengine.ir.verify import verify
from pockengine.passes.pad_convolutions import pad_convolutions
from tests.passes.golden import example


def test_example() -> None:
    """The docstring's example."""
    before, after = example(pad_convolutions)
    assert text(pad_convolutions(before)) == after


@pytest.mark.parametrize("stride", [(1, 1), (2, 2), (3, 2)])
@pytest.mark.parametrize("padding", [(1, 1, 1, 1), (0, 2, 1, 0)])
@pytest.mark.parametrize("groups", [1, 2])
def test_gradients(stride: tuple[int, int], padding: tuple[int, ...], groups: int) -> None:
    """All three convolutions of a stride, an uneven padding and groups keep their values."""
    x, w = (2, 4, 9, 8), (6, 4 // groups, 3, 3)
    image = torch.randn(x, dtype=torch.float64)
    height = (x[2] + padding[0] + padding[1] - 3) // stride[0] + 1
    width = (x[3] + padding[2] + padding[3] - 3) // stride[1] + 1
    grad = torch.randn((2, 6, height, width), dtype=torch.float64)
    form = f"{stride}, {padding}, (1, 1), {groups}"
    graph = parse(f"""
%x: f32[2x4x9x8] = input('x')
%w: f32[6x{4 // groups}x3x3] = param('w')
%g: f32[2x6x{height}x{width}] = input('g')
%y: f32[2x6x{height}x{width}] = conv2d(%x, %w, {form})
%dx: f32[2x4x9x8] = conv2d_input_grad(%g, %w, (9, 8), {form})
%dw: f32[6x{4 // groups}x3x3] = conv2d_weight_grad(%x, %g, (3, 3), {form})
return loss=None, outputs=(%y, %dx, %dw), gradients={{}}, updates=()
""")
    values = {"x": image, "w": torch.randn(w, dtype=torch.float64), "g": grad}
    after = verify(pad_convolutions(graph))
    for found, wanted in zip(
        interpret(after, values).outputs, interpret(graph, values).outputs, strict=True
    ):
        torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12)
    assert text(pad_convolutions(after)) == text(after)


def test_depthwise_keeps_its_padding() -> None:
    """One channel a group: borders are the loops' business."""
    graph = parse("""
%x: f32[2x4x9x8] = input('x')
%w: f32[4x1x3x3] = param('w')
%y: f32[2x4x9x8] = conv2d(%x, %w, (1, 1), (1, 1, 1, 1), (1, 1), 4)
return loss=None, outputs=(%y,), gradients={}, updates=()
""")
    assert not list(calls(pad_convolutions(graph), "pad"))
