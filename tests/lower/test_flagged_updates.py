"""Updates that hang on a flag: without it, what they would change is neither read nor written."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from pockengine.ir.text import parse
from pockengine.lower.build import kernel_function
from pockengine.lower.kernel import form_of, kernels
from pockengine.passes.fuse import fuse
from tests.lower.kernel_oracle import AVX512, check_kernels, random_values

HEADS = """
%w: f32[40x72] = param('w')
%m: f32[40x72] = state('m')
%flag: f32[] = const('flag')
%other: f32[] = const('other')
%x: f32[24x40] = input('x')
%dy: f32[24x72] = input('dy')
%last: bool[] = gt(%flag, 0.0)
"""

CONTRACTION = f"""{HEADS}
%t: f32[40x24] = permute(%x, (1, 0))
%g: f32[40x72] = matmul(%t, %dy)
%d: f32[40x72] = mul(%m, 0.9)
%k: f32[40x72] = add(%d, %g)
%um: f32[40x72] = update(%m, %k)
%s: f32[40x72] = mul(%k, 0.1)
%n: f32[40x72] = sub(%w, %s)
%v: f32[40x72] = where(%last, %n, %w)
%uw: f32[40x72] = update(%w, %v)
return loss=None, outputs=(), gradients={{}}, updates=(%um, %uw)
"""

BOTH = f"""{HEADS}
%k: f32[40x72] = mul(%m, 0.9)
%a: f32[40x72] = where(%last, %k, %m)
%um: f32[40x72] = update(%m, %a)
%s: f32[40x72] = mul(%m, %k)
%n: f32[40x72] = sub(%w, %s)
%v: f32[40x72] = where(%last, %n, %w)
%uw: f32[40x72] = update(%w, %v)
return loss=None, outputs=(), gradients={{}}, updates=(%um, %uw)
"""

TWO_FLAGS = f"""{HEADS}
%first: bool[] = gt(%other, 0.0)
%k: f32[40x72] = mul(%m, 0.9)
%a: f32[40x72] = where(%first, %k, %m)
%um: f32[40x72] = update(%m, %a)
%n: f32[40x72] = sub(%w, %m)
%v: f32[40x72] = where(%last, %n, %w)
%uw: f32[40x72] = update(%w, %v)
return loss=None, outputs=(), gradients={{}}, updates=(%um, %uw)
"""


@pytest.mark.parametrize("flags", [(0.0, 1.0), (1.0, 0.0), (1.0, 1.0)])
@pytest.mark.parametrize("text", [CONTRACTION, BOTH, TWO_FLAGS], ids=["sum", "map", "two flags"])
def test_values(text: str, flags: tuple[float, float], tmp_path: Path) -> None:
    """With a flag and without; what one update overwrites, the other has read before."""
    graph = fuse(parse(text))
    values = random_values(graph)
    for name, value in zip(("flag", "other"), flags, strict=True):
        if name in values:
            values[name] = torch.tensor(value)
    check_kernels(graph, values, tmp_path)


@pytest.mark.parametrize(("text", "form"), [(CONTRACTION, "contract"), (BOTH, "map")])
def test_touched_under_the_flag_alone(text: str, form: str) -> None:
    """Loads, stores and prefetches of the weight lie under the condition, which decides alone."""
    (kernel,) = (k for k in kernels(fuse(parse(text))) if k.updates)
    assert form_of(parse(kernel.text)) == form
    function, _ = kernel_function(kernel.text, AVX512)
    weight = [node.name for node in kernel.operands].index("w")
    touched = [under for line, under in _lines(function.script()) if f"p{weight}[" in line]
    assert len(touched) >= 2
    assert all(touched)
    assert "T.Select" not in function.script()


def _lines(script: str) -> Iterator[tuple[str, bool]]:
    """Each line of a function's body, and whether it lies under a condition."""
    depths: list[int] = []
    for line in script.splitlines():
        depth = len(line) - len(line.lstrip())
        depths = [outer for outer in depths if outer < depth]
        if re.match(r"\s*if ", line):
            depths.append(depth)
        elif "p0: T.Buffer" not in line:
            yield line, bool(depths)
