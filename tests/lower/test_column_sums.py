"""Weight gradients whose kernels also add up their columns: one kernel, the same values."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

from pockengine.ir.graph import calls, group_of, placeholders, type_of
from pockengine.ir.text import parse
from pockengine.ir.verify import verify
from pockengine.lower import build
from pockengine.lower.features import host_target
from pockengine.lower.operands import by_signature, geometry
from pockengine.lower.tile_parameters import TileParameters, tile_parameters
from pockengine.passes.fuse import fuse
from tests.lower.kernel_oracle import check_kernels

HOST = tile_parameters(host_target())
SMALL = dataclasses.replace(HOST, left_bytes=1 << 13, scratch_bytes=1 << 12, chunk_steps=32)
BY_LANE = dataclasses.replace(HOST, by_lane=True, unrolled=8, vector_lanes=4)
_PLACE = "@0.2.3.1"
_TAIL = """
%scaled: {dw} = mul(%dw, 0.5)
%kept: {dw} = mul(%m, 0.9)
%new: {dw} = add(%kept, %scaled)
%later: {dw} = sub(%w, %new)
%part: {dw} = mul(%dw, %w)
%ga: f32[{n}] = sum(%part, {axes}, False)
%shift: f32[{n}] = mul(%gb, %mean)
%gg: f32[{n}] = sub(%ga, %shift)
%ng: f32[{n}] = sub(%gamma, %gg)
%um: {dw} = update(%m, %new)
%uw: {dw} = update(%w, %later)
%nb: f32[{n}] = sub(%beta, %gb)
%ug: f32[{n}] = update(%gamma, %ng)
%ub: f32[{n}] = update(%beta, %nb)
return loss=None, outputs=(), gradients={{}}, updates=(%um, %uw, %ug, %ub)
"""


def _convolution(
    batch: int, inputs: int, outputs: int, size: int, kernel: int = 3, stride: int = 1
) -> str:
    """The weight gradient of a convolution, with what BatchNorm in evaluation mode asks of it."""
    side = (size - kernel) // stride + 1
    x, g = f"{batch}x{inputs}x{size}x{size}", f"{batch}x{outputs}x{side}x{side}"
    dw = f"f32[{outputs}x{inputs}x{kernel}x{kernel}]@2.3.1.0"
    form = f"({kernel}, {kernel}), ({stride}, {stride}), (0, 0, 0, 0), (1, 1), 1"
    head = f"""%x: f32[{x}]{_PLACE} = input('x')
%g: f32[{g}]{_PLACE} = input('g')
%m: {dw} = state('m')
%w: {dw} = param('w')
%mean: f32[{outputs}] = const('mean')
%gamma: f32[{outputs}] = param('gamma')
%beta: f32[{outputs}] = param('beta')
%gb: f32[{outputs}] = sum(%g, (0, 2, 3), False)
%dw: {dw} = conv2d_weight_grad(%x, %g, {form})"""
    return head + _TAIL.format(dw=dw, n=outputs, axes="(1, 2, 3)")


def _linear(rows: int, inputs: int, outputs: int) -> str:
    """The weight gradient of a matrix, with the same tail."""
    dw = f"f32[{outputs}x{inputs}]@1.0"
    head = f"""%x: f32[{rows}x{inputs}] = input('x')
%g: f32[2x{rows // 2}x{outputs}] = input('g')
%m: {dw} = state('m')
%w: {dw} = param('w')
%mean: f32[{outputs}] = const('mean')
%gamma: f32[{outputs}] = param('gamma')
%beta: f32[{outputs}] = param('beta')
%flat: f32[{rows}x{outputs}] = reshape(%g, ({rows}, {outputs}))
%turned: f32[{outputs}x{rows}] = permute(%flat, (1, 0))
%gb: f32[{outputs}] = sum(%g, (0, 1), False)
%dw: {dw} = matmul(%turned, %x)"""
    return head + _TAIL.format(dw=dw, n=outputs, axes="(1,)")


CASES = {
    "3x3": _convolution(2, 5, 70, 9),
    "1x1": _convolution(3, 37, 26, 11, kernel=1),
    "strided": _convolution(2, 3, 33, 15, stride=2),
    "few columns": _convolution(1, 40, 3, 7),
    "linear": _linear(58, 45, 100),
    "one panel": _linear(300, 61, 16),
    "in pieces": _linear(300, 61, 100),
}


@pytest.mark.parametrize(
    "tiles", [HOST, SMALL, BY_LANE], ids=["host", "many pieces and blocks", "by lane"]
)
@pytest.mark.parametrize("text", CASES.values(), ids=CASES)
def test_one_kernel_computes_all(
    text: str, tiles: TileParameters, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The gradient, both sums, and the updates of the weight, its momentum and the scale."""
    monkeypatch.setattr(build, "tile_parameters", lambda _: tiles)
    graph = fuse(parse(text))
    verify(graph)
    generator = torch.Generator().manual_seed(0)
    values = {
        node.meta["name"]: torch.randn(type_of(node).shape, generator=generator)
        for node in placeholders(graph)
    }
    assert check_kernels(graph, values, tmp_path) == 1


def test_units_are_columns() -> None:
    """The small tiles above really cut the rows into blocks and the reduction into pieces."""
    graph = parse(CASES["in pieces"])
    ((name, terms),) = by_signature(graph).items()
    assert name.endswith("columns added up")
    cut = geometry(terms, SMALL)
    assert cut.whole_columns
    assert cut.row_blocks > 1
    assert cut.chunk
    assert cut.extent == cut.groups


_NOT = {
    "sums over a row": "%ga: f32[5] = sum(%part, (0, 2, 3), False)",
    "an extremum": "%ga: f32[70] = amax(%part, (1, 2, 3), False)",
}


@pytest.mark.parametrize("line", _NOT.values(), ids=_NOT)
def test_other_reductions_have_kernels_of_their_own(line: str) -> None:
    """What is not a sum over all rows of a column does not join the contraction."""
    lines = _convolution(2, 5, 70, 9).splitlines()
    end = next(i for i, each in enumerate(lines) if each.startswith("%ga:"))
    ends = "return loss=None, outputs=(%ga,), gradients={}, updates=()"
    unused = ("%gb", "%scaled", "%kept", "%new", "%later")
    head = [each for each in lines[:end] if not each.startswith(unused)]
    graph = fuse(parse("\n".join([*head, line, ends])))
    (contraction,) = calls(graph, "conv2d_weight_grad")
    (reduction,) = calls(graph, "sum", "amax")
    assert group_of(contraction) != group_of(reduction)
