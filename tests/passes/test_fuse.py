"""``fuse``: what becomes one kernel, what must not, and unchanged values."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import pytest
from torch.fx import Graph, Node

from pockengine.ir.forward import forward_values
from pockengine.ir.graph import calls, group_of, kind_of, op_name, outputs_of
from pockengine.ir.ops import Kind
from pockengine.ir.text import parse
from pockengine.ir.verify import verify
from pockengine.optimizer import SGD
from pockengine.passes.append_optimizer import append_optimizer
from pockengine.passes.choose_layout import choose_layout
from pockengine.passes.choose_saved import choose_saved
from pockengine.passes.compress_masks import compress_masks
from pockengine.passes.decompose_batch_norm import decompose_batch_norm
from pockengine.passes.fuse import fuse
from pockengine.passes.saved_cut import SavingCosts
from pockengine.passes.simplify import simplify
from tests.oracles import EXAMPLES, Example, assert_same, encoder


def _groups(graph: Graph) -> list[str]:
    """The ops of each group, in the order of the groups."""
    found: dict[int, list[str]] = {}
    for node in calls(graph):
        group = group_of(node)
        if group is not None:
            found.setdefault(group, []).append(op_name(node))
    return [" ".join(found[group]) for group in sorted(found)]


_HEAD = """%x: f32[64x64] = input('x')
%w: f32[64x64] = param('w')
%v: f32[64x64] = param('v')
%b: f32[64] = param('b')
"""
_CASES = {
    "a contraction's tail": (
        "%p: f32[64x64] = matmul(%x, %w)\n%q: f32[64x64] = add(%p, %b)\n%r: f32[64x64] = exp(%q)",
        ["matmul add exp"],
    ),
    "a softmax": (
        (
            "%m: f32[64x1] = amax(%x, (1,), True)\n%d: f32[64x64] = sub(%x, %m)\n"
            "%e: f32[64x64] = exp(%d)\n%s: f32[64x1] = sum(%e, (1,), True)\n"
            "%r: f32[64x64] = div(%e, %s)"
        ),
        ["amax sub exp sum div"],
    ),
    "rows of a sum over columns": (
        (
            "%y: f32[8x8x64] = reshape(%x, (8, 8, 64))\n%s: f32[8x64] = sum(%y, (1,), False)\n"
            "%h: f32[8x64] = mul(%s, 0.5)\n%r: f32[8x1] = amax(%h, (1,), True)"
        ),
        ["sum mul", "amax"],
    ),
    "a weight that is computed": (
        "%s: f32[64x64] = mul(%w, 2.0)\n%r: f32[64x64] = matmul(%x, %s)",
        ["mul matmul"],
    ),
    "a left operand that is computed": (
        "%s: f32[64x64] = mul(%x, 2.0)\n%r: f32[64x64] = matmul(%s, %w)",
        ["mul", "matmul"],
    ),
    "what waits for a tail": (
        "%s: f32[64x64] = exp(%v)\n%p: f32[64x64] = matmul(%x, %w)\n%r: f32[64x64] = add(%p, %s)",
        ["exp matmul add"],
    ),
    "a map that another group reads first": (
        (
            "%s: f32[64x64] = exp(%v)\n%p: f32[64x64] = matmul(%s, %w)\n"
            "%q: f32[64x64] = matmul(%x, %w)\n"
            "%t: f32[64x64] = add(%q, %s)\n%r: f32[64x64] = matmul(%p, %t)"
        ),
        ["exp matmul add", "matmul", "matmul"],
    ),
    "column sums of one value": (
        (
            "%s: f32[64] = sum(%x, (0,), False)\n%p: f32[64x64] = mul(%x, %w)\n"
            "%t: f32[64] = sum(%p, (0,), False)\n%r: f32[64] = add(%s, %t)"
        ),
        ["sum mul sum add"],
    ),
    "column sums that need each other": (
        (
            "%m: f32[1x64] = sum(%x, (0,), True)\n%d: f32[64x64] = sub(%x, %m)\n"
            "%p: f32[64x64] = mul(%d, %d)\n%s: f32[64] = sum(%p, (0,), False)\n"
            "%u: f32[64] = reshape(%m, (64,))\n%r: f32[64] = add(%s, %u)"
        ),
        ["sum", "sub mul sum add"],
    ),
    "rows take what they read": (
        (
            "%p: f32[64x64] = matmul(%x, %w)\n%c: f32[64] = sum(%p, (0,), False)\n"
            "%a: f32[64x64] = mul(%p, %v)\n%s: f32[64x1] = sum(%a, (1,), True)\n"
            "%d: f32[64x64] = sub(%a, %s)\n%r: f32[64x64] = add(%d, %c)"
        ),
        ["matmul", "sum", "mul sum sub add"],
    ),
    "a sum of products on few rows": (
        (
            "%a: f32[8x64] = slice(%x, 0, 0, 8)\n%c: f32[8x64] = mul(%a, 2.0)\n"
            "%d: f32[8x64] = exp(%a)\n%e: f32[64x8] = permute(%c, (1, 0))\n"
            "%f: f32[64x8] = permute(%d, (1, 0))\n%p: f32[64x64] = matmul(%e, %d)\n"
            "%q: f32[64x64] = matmul(%f, %c)\n%s: f32[64x64] = add(%p, %q)\n"
            "%r: f32[64x64] = mul(%s, 0.5)"
        ),
        ["exp", "mul", "matmul matmul add mul"],
    ),
    "a sum of products of weights": (
        (
            "%p: f32[64x64] = matmul(%x, %w)\n%q: f32[64x64] = matmul(%x, %v)\n"
            "%r: f32[64x64] = add(%p, %q)"
        ),
        ["matmul", "matmul add"],
    ),
    "a sum of products that somebody else reads": (
        (
            "%a: f32[8x64] = slice(%x, 0, 0, 8)\n%c: f32[8x64] = mul(%a, 2.0)\n"
            "%d: f32[8x64] = exp(%a)\n%e: f32[64x8] = permute(%c, (1, 0))\n"
            "%f: f32[64x8] = permute(%d, (1, 0))\n%p: f32[64x64] = matmul(%e, %d)\n"
            "%q: f32[64x64] = matmul(%f, %c)\n%s: f32[64x64] = add(%p, %q)\n"
            "%r: f32[64x64] = matmul(%s, %q)"
        ),
        ["mul", "exp", "matmul", "matmul add", "matmul"],
    ),
    "a move of heads": (
        "%p: f32[64x64] = exp(%x)\n%q: f32[64x64] = permute(%p, (1, 0))\n%r: f32[64x64] = sin(%q)",
        ["exp", "sin"],
    ),
}


@pytest.mark.parametrize("name", _CASES)
def test_groups(name: str) -> None:
    """Ops become the groups that the docstring promises."""
    lines, wanted = _CASES[name]
    graph = parse(f"{_HEAD}{lines}\nreturn loss=None, outputs=(%r,), gradients={{}}, updates=()")
    assert _groups(fuse(graph)) == wanted


def test_backward_does_not_join_forward() -> None:
    """A value that is computed again for the backward pass is not computed ahead of it."""
    graph = parse(
        f"{_HEAD}%y: f32[64x64] = matmul(%x, %w)\n%z: f32[64x64] = exp(%y)\n"
        "%again: f32[64x64] = exp(%y)\n%g: f32[64x64] = matmul(%v, %again)\n"
        "return loss=None, outputs=(%z,), gradients={'w': %g}, updates=()"
    )
    assert _groups(fuse(graph)) == ["matmul exp", "exp matmul"]


def _fused(example: Example) -> Graph:
    graph = append_optimizer(decompose_batch_norm(example.graph), SGD(momentum=0.9))
    graph = choose_layout(compress_masks(simplify(graph)))
    return fuse(choose_saved(graph, SavingCosts(lambda _: 10.0, 1.0)))


@pytest.mark.parametrize("example", EXAMPLES)
def test_groups_of_a_step(example: Callable[[], Example]) -> None:
    """Every call but views has a group, groups lie together, and none mixes the two passes."""
    graph = verify(_fused(example()))
    numbers = [group_of(node) for node in calls(graph) if kind_of(node) is not Kind.VIEW]
    assert None not in numbers
    assert all(0 <= int(b or 0) - int(a or 0) <= 1 for a, b in pairwise(numbers))
    forward = forward_values(graph)
    sides: dict[int | None, set[bool]] = {}
    for node in calls(graph):
        if kind_of(node) is not Kind.VIEW:
            sides.setdefault(group_of(node), set()).add(node in forward)
    assert all(len(side) == 1 for side in sides.values())


@pytest.mark.parametrize("example", EXAMPLES)
def test_same_values(example: Callable[[], Example]) -> None:
    """Fusion reorders calls and changes no value."""
    graph = choose_layout(simplify(decompose_batch_norm(example().graph)))
    assert_same(graph, verify(fuse(graph)), example().values)


def test_an_update_follows_the_readers_of_its_target() -> None:
    """Each update's group comes after all other groups that read what it overwrites."""
    graph = _fused(encoder())
    for update in outputs_of(graph).updates:
        target = update.args[0]
        assert isinstance(target, Node)
        for reader in target.users:
            if kind_of(reader) is not Kind.VIEW:
                assert (group_of(reader) or 0) <= (group_of(update) or 0)


@pytest.mark.parametrize(
    ("read", "wanted"),
    [
        ("%g: f32[64x64] = matmul(%x, %w)", ["matmul mul sub", "update"]),
        (
            "%t: f32[64x64] = permute(%w, (1, 0))\n%g: f32[64x64] = mul(%x, %t)",
            ["mul", "mul sub update"],
        ),
        ("%g: f32[64x64] = mul(%x, %w)", ["mul mul sub update"]),
    ],
)
def test_what_is_overwritten_is_read_element_by_element(read: str, wanted: list[str]) -> None:
    """A kernel does not overwrite what its other elements still need."""
    graph = parse(
        f"{_HEAD}{read}\n%h: f32[64x64] = mul(%g, 0.1)\n%n: f32[64x64] = sub(%w, %h)\n"
        "%u: f32[64x64] = update(%w, %n)\n"
        "return loss=None, outputs=(), gradients={}, updates=(%u,)"
    )
    assert _groups(fuse(graph)) == wanted


def test_an_encoder_layer_has_few_kernels() -> None:
    """Normalization, softmax and their gradients are one kernel each, and no heads are copied."""
    found = _groups(fuse(choose_layout(simplify(encoder().graph))))
    assert "copy" not in " ".join(found)
    rows = [group for group in found if group.startswith("amax")]
    assert rows.count("amax sub exp sum div eq where") == 3
    assert sum("rsqrt" in group and group.startswith("sum") for group in found) == 6
