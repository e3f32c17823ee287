"""``plan.memory``: order, sharing of bytes, offsets and regions of a trainer."""

from __future__ import annotations

import pytest
from torch.fx import Graph

from pockengine.errors import PlanError
from pockengine.ir.text import parse
from pockengine.ir.types import Region
from pockengine.ir.verify import base_of
from pockengine.lower.kernel import kernels
from pockengine.lower.program import works
from pockengine.passes.fuse import fuse
from pockengine.plan.memory import EntryPlan, plan_entry, plan_memory
from pockengine.plan.ownership import Work

_STEP = """
%x: f32[4x64] = input('x')
%w: f32[64x64] = param('w')
%m: f32[64x64] = state('m')
%h: f32[4x64] = matmul(%x, %w)
%xt: f32[64x4] = permute(%x, (1, 0))
%g: f32[64x64] = matmul(%xt, %h)
%n: f32[64x64] = add(%m, %g)
%um: f32[64x64] = update(%m, %n)
%v: f32[64x64] = sub(%w, %n)
%uw: f32[64x64] = update(%w, %v)
%e: f32[4x64] = exp(%h)
%loss: f32[] = sum(%e, (0, 1))
return loss=%loss, outputs=(), gradients={}, updates=(%um, %uw)
"""
_PREDICT = """
%x: f32[4x64] = input('x')
%w: f32[64x64] = param('w')
%c: f32[3] = const('c')
%h: f32[4x64] = matmul(%x, %w)
return loss=None, outputs=(%h,), gradients={}, updates=()
"""


def _works(graph: Graph, *groups: str, in_place: tuple[tuple[str, str], ...] = ()) -> list[Work]:
    """One kernel for each group of call names."""
    by_name = {node.name: node for node in graph.nodes}
    found = []
    for group in groups:
        nodes = [by_name[name] for name in group.split()]
        inside = set(nodes)
        reads = [base_of(o) for node in nodes for o in node.all_input_nodes]
        updates = [node for node in nodes if node.name.startswith("u")]
        writes = [
            node
            for node in nodes
            if node not in updates and any(user not in inside for user in node.users)
        ]
        pairs = [(by_name[a], by_name[b]) for a, b in in_place if by_name[b] in nodes]
        found.append(
            Work(
                reads=tuple(dict.fromkeys(node for node in reads if node not in inside)),
                writes=tuple(writes),
                updates=tuple(base_of(node.args[0]) for node in updates),
                in_place=tuple(pairs),
            )
        )
    return found


def _offsets(plan: EntryPlan) -> dict[str, int]:
    return {node.name: offset for node, offset in plan.offsets.items()}


def test_loss_before_updates() -> None:
    """Updates come last in the step although they come first in the graph."""
    graph = parse(_STEP)
    plan = plan_entry(graph, _works(graph, "h", "g n um v uw", "e", "loss"))
    assert plan.order == (0, 2, 3, 1)
    assert plan.commit == 3


def test_update_waits_for_readers() -> None:
    """A kernel that updates a parameter runs after all others that read it."""
    source = _STEP.replace("sub(%w, %n)", "neg(%n)").replace("%e: f32[4x64] = exp(%h)", "")
    graph = parse(source.replace("%loss: f32[] = sum(%e,", "%loss: f32[] = sum(%w,"))
    plan = plan_entry(graph, _works(graph, "h", "g n um v uw", "loss"))
    assert plan.order.index(1) == 2


def test_in_place_shares_bytes() -> None:
    """A value may take over the bytes of one that dies with it, and the arena shrinks by them."""
    source = _PREDICT.replace("%c: f32[3] = const('c')", "%z: f32[4x64] = input('z')")
    source = source.replace("return", "%e: f32[4x64] = mul(%h, %z)\nreturn")
    graph = parse(source.replace("(%h,)", "(%e,)"))
    shared = plan_entry(graph, _works(graph, "h", "e", in_place=(("h", "e"), ("z", "e"))))
    apart = plan_entry(graph, _works(graph, "h", "e"))
    assert _offsets(shared)["e"] == _offsets(shared)["h"] != _offsets(shared)["z"]
    assert (shared.arena_bytes, apart.arena_bytes) == (3072, 3072)  # x, z and h live at once


def test_in_place_needs_the_last_reader() -> None:
    """A value that something reads later keeps its bytes."""
    graph = parse(_STEP)
    groups = ("h", "e", "loss", "g n um v uw")
    offsets = _offsets(plan_entry(graph, _works(graph, *groups, in_place=(("h", "e"),))))
    assert offsets["h"] != offsets["e"], "the weight's gradient reads h"


def test_regions() -> None:
    """What persists is packed in sequence, once for all; the arena is what the largest needs."""
    graphs = {"step": parse(_STEP), "predict": parse(_PREDICT)}
    entries = {
        "step": plan_entry(graphs["step"], _works(graphs["step"], "h", "g n um v uw", "e", "loss")),
        "predict": plan_entry(graphs["predict"], _works(graphs["predict"], "h")),
    }
    plan = plan_memory(graphs, entries)
    assert plan.region_bytes == (64, 64 * 64 * 4, 64 * 64 * 4, plan.entries["step"].arena_bytes)
    assert plan.places["w"].region is Region.PARAM
    assert plan.arena_bytes >= plan.lower_bound_bytes > 0
    values = {value.name: value for value in plan.entries["step"].values}
    assert all(value.offset % 64 == 0 and value.lower < value.upper for value in values.values())


def test_disagreement_is_refused() -> None:
    """Entry points that store a parameter differently cannot share it."""
    other = _PREDICT.replace("%w: f32[64x64]", "%w: f32[64x64]@1.0")
    graphs = {"step": parse(_STEP), "predict": parse(other)}
    entries = {
        "step": plan_entry(graphs["step"], _works(graphs["step"], "h", "g n um v uw", "e", "loss")),
        "predict": plan_entry(graphs["predict"], _works(graphs["predict"], "h")),
    }
    with pytest.raises(PlanError, match=r"w: param f32\[64x64\] in one entry point"):
        plan_memory(graphs, entries)


def test_cycle_is_refused() -> None:
    """A kernel that updates a parameter on the way to the loss has no place."""
    graph = parse(_STEP)
    with pytest.raises(PlanError, match="wait for each other"):
        plan_entry(graph, _works(graph, "h g n um v uw", "e", "loss"))


_JOIN = """
%x: f32[1x16] = input('x')
%a: f32[1x16] = exp(%x)
%b: f32[1x16] = neg(%a)
{}
%c: f32[2x16] = cat(({}), 0)
return loss=None, outputs=(%c,), gradients={{}}, updates=()
"""


def test_concatenation_in_place() -> None:
    """Parts are made where the whole lies, by two kernels and no third."""
    graph = fuse(parse(_JOIN.format("%d: f32[1x16] = cumsum(%b, 1)", "%d, %b")))
    found = kernels(graph)
    plan = plan_entry(graph, works(graph, found))
    offsets = {node.name: offset for node, offset in plan.offsets.items()}
    assert [kernel.writes[0].name for kernel in found] == ["b", "d"]
    assert (offsets["d"], offsets["b"]) == (offsets["c"], offsets["c"] + 64)
    assert plan.arena_bytes == 192


@pytest.mark.parametrize(
    ("line", "parts"),
    [("", "%b, %b"), ("%d: f32[1x16] = reshape(%b, (1, 16))", "%d, %a"), ("", "%x, %b")],
    ids=["twice", "a view", "an input"],
)
def test_concatenation_by_copies(line: str, parts: str) -> None:
    """What is no value of its own is copied."""
    graph = fuse(parse(_JOIN.format(line, parts)))
    assert any(kernel.writes[0].name == "c" for kernel in kernels(graph))
