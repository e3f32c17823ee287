"""Depthwise convolutions of the vocabulary as window sweeps."""

from __future__ import annotations

from typing import Any

from torch.fx import Graph, Node

from pockengine.ir.graph import kind_of, op_name, type_of
from pockengine.ir.ops import Kind
from pockengine.lower.depthwise import Depthwise
from pockengine.lower.kernel import find
from pockengine.lower.tile_parameters import TileParameters
from pockengine.lower.window import Sweep


def stencil_anchor(graph: Graph) -> Node:
    """The depthwise convolution of a kernel's graph."""
    return find(graph, lambda node: kind_of(node) is Kind.CONTRACT)


def depthwise_shape(anchor: Node, tiles: TileParameters) -> Depthwise:
    """The shape of a depthwise convolution, of its input gradient or of its weight gradient."""
    numbers: Any = anchor.args[-4:-1]
    stride, padding, dilation = numbers
    first: Any = anchor.args[0]
    second: Any = anchor.args[1]
    if op_name(anchor) == "conv2d":
        size, kernel, windows = first, type_of(second).shape[2:], anchor
    elif op_name(anchor) == "conv2d_input_grad":
        size, kernel, windows = anchor, type_of(second).shape[2:], first
    else:
        size, kernel, windows = first, type_of(anchor).shape[2:], second
    batch, channels = type_of(size).shape[:2]
    sweeps = [
        Sweep(
            size=type_of(size).shape[2 + axis],
            kernel=kernel[axis],
            stride=stride[axis],
            padding=padding[2 * axis],
            dilation=dilation[axis],
            windows=type_of(windows).shape[2 + axis],
        )
        for axis in range(2)
    ]
    return Depthwise(
        batch=batch,
        channels=channels,
        rows=sweeps[0],
        columns=sweeps[1],
        lanes=tiles.vector_lanes,
        registers=tiles.vector_registers,
    )
