"""``slice_regions``: what runs slice by slice, what does not, and the same bits."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.fx import Graph

import pockengine as pe
from pockengine import pipeline
from pockengine.ir.graph import calls, rebuild, type_of
from pockengine.ir.interpret import interpret
from pockengine.ir.joined import parts_of
from pockengine.ir.text import parse, text
from pockengine.ir.verify import verify
from pockengine.lower.kernel import kernels
from pockengine.optimizer import SGD
from pockengine.passes.fuse import fuse
from pockengine.passes.slice_regions import slice_regions
from pockengine.scheme import Scheme
from tests.conftest import examples
from tests.pass_oracle import PassOracle
from tests.passes.golden import example
from tests.spine import Case, prepared

NEVER = 2**40


def _sliced(source: str, cache_bytes: int = 1) -> Graph:
    return verify(slice_regions(fuse(parse(source)), cache_bytes))


def test_docstring_example() -> None:
    """The example holds; its argument stays as it is, and what fits the cache is not sliced."""
    before, after = example(slice_regions)
    fused = fuse(before)
    shown = text(fused)
    assert text(verify(slice_regions(fused, 64))) == after
    assert text(fused) == shown
    assert text(slice_regions(fused, 128)) == shown


_CHAIN = """%q: f32[4x16x4] = input('q')
%k: f32[4x4x16] = input('k')
%s: f32[4x16x16] = matmul(%q, %k)
%t: f32[4x16x16] = matmul(%s, %s)
%v: f32[4x16x4] = matmul(%t, %q)
return loss=None, outputs=({}), gradients={{}}, updates=()"""


@pytest.mark.parametrize(("cache_bytes", "parts"), [(8192, 0), (4095, 4), (2048, 4), (1, 4)])
def test_least_slices_that_fit(cache_bytes: int, parts: int) -> None:
    """As few slices as let the values fit the cache that only the region reads, 8192 bytes here."""
    made = _sliced(_CHAIN.format("%v,"), cache_bytes)
    joined = [len(parts_of(node)) for node in calls(made, "cat")]
    assert joined == ([parts] if parts else [])


def test_values_read_elsewhere_are_joined() -> None:
    """An interior value that the graph yields is joined from its parts; kernels are shared."""
    made = _sliced(_CHAIN.format("%v, %t"))
    assert sorted(len(parts_of(node)) for node in calls(made, "cat")) == [4, 4]
    found = kernels(made)
    assert len(found) == 12
    assert len({kernel.text for kernel in found}) == 3


@pytest.mark.parametrize(
    "source",
    [
        """%x: f32[4x16] = input('x')
%w: f32[16x16] = param('w')
%a: f32[4x16] = matmul(%x, %w)
%b: f32[4x16] = matmul(%a, %w)
return loss=None, outputs=(%b,), gradients={}, updates=()""",
        """%x: f32[4x4x16] = input('x')
%w: f32[4x16x16] = input('w')
%a: f32[4x4x16]@1.0.2 = matmul(%x, %w)
%b: f32[4x4x16]@1.0.2 = matmul(%a, %w)
return loss=None, outputs=(%b,), gradients={}, updates=()""",
        """%x: f32[4x4x16] = input('x')
%w: f32[4x16x16] = input('w')
%a: f32[4x4x16] = matmul(%x, %w)
%t: f32[4x4x16] = permute(%a, (1, 0, 2))
%b: f32[4x4x16] = matmul(%t, %w)
return loss=None, outputs=(%b,), gradients={}, updates=()""",
        """%x: f32[4x4x4] = input('x')
%a: f32[4x4x4] = matmul(%x, %x)
%s: f32[4x4] = sum(%a, (2,))
%r: f32[1x4x4] = reshape(%s, (1, 4, 4))
%e: f32[4x4x4] = expand(%r, (4, 4, 4))
%b: f32[4x4x4] = matmul(%a, %e)
return loss=None, outputs=(%b,), gradients={}, updates=()""",
    ],
    ids=["linear", "stored otherwise", "axes exchanged", "a slice needs all"],
)
def test_not_sliced(source: str) -> None:
    """What an index computes from others', or what lies otherwise, stays whole."""
    assert text(_sliced(source)) == text(fuse(parse(source)))


def test_through_what_waits_for_both_ends() -> None:
    """Groups are no region where something in between has to run after one and ahead of another."""
    source = """%q: f32[4x4x16] = input('q')
%w: f32[4x16x16] = input('w')
%m: f32[4x4] = input('m')
%s: f32[4x4x16] = matmul(%q, %w)
%f: f32[16x16] = reshape(%s, (16, 16))
%g: f32[16x16] = matmul(%f, %f)
%h: f32[4x4x16] = reshape(%g, (4, 4, 16))
%a: f32[4x4x16] = add(%s, %h)
%u: f32[4x4x16] = matmul(%a, %w)
return loss=None, outputs=(%u,), gradients={}, updates=()"""
    made = _sliced(source)
    first = next(node for node in calls(made, "matmul"))
    assert type_of(first).shape == (4, 4, 16)


class Attention(nn.Module):
    """A block of attention in one of several ways of writing it."""

    def __init__(self, way: Callable[[Tensor, Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.project = nn.Linear(16, 48)
        self.head = nn.Linear(16, 3)
        self.way = way

    def forward(self, x: Tensor) -> Tensor:
        """(N, 32, 16) to (N, 3)."""
        heads = self.project(x).view(x.shape[0], 32, 3, 2, 8).permute(2, 0, 3, 1, 4)
        mixed = self.way(*heads).transpose(1, 2).reshape(x.shape)
        logits: Tensor = self.head((x + mixed).mean(1))
        return logits


def _scaled(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)


def _merged(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    rows = (q.shape[0] * 2, 32, 8)
    scores = torch.bmm(q.reshape(rows), k.reshape(rows).transpose(1, 2)) / 8**0.5
    return torch.bmm(scores.softmax(-1), v.reshape(rows)).view(q.shape)


def _masked(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    distance = torch.arange(32)[None, :] - torch.arange(32)[:, None]
    bias = distance.abs() * -0.125 * torch.tensor([1.0, 0.5])[:, None, None]
    keep = k.sum((1, 3))[:, None, None, :] < 4.0
    scores = (q @ k.transpose(-1, -2) + bias).masked_fill(~keep, -1e9)
    return scores.softmax(-1) @ v


WAYS = {"scaled": _scaled, "merged": _merged, "masked": _masked}


def _case(way: str) -> Case:
    torch.manual_seed(0)
    model = Attention(WAYS[way])
    batches = [(torch.randn(4, 32, 16), torch.randint(0, 3, (4,))) for _ in range(3)]
    return Case(
        model=model, batches=batches, scheme=Scheme.full(), optimizer=SGD(momentum=0.9), lr=0.1
    )


@pytest.mark.parametrize("way", WAYS)
def test_every_graph_keeps_its_values(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sliced, each entry point computes what autograd does in float64; the plan is smaller."""
    case = _case(way)
    whole = prepared(case).plan
    monkeypatch.setattr(pipeline, "CACHE_BYTES", 2**13)
    oracle = PassOracle(case)
    found = prepared(case, oracle)
    assert not oracle.failures
    step = next(source for source in found.sources if source.name == "step")
    joined = [node for node in calls(step.graph, "cat") if parts_of(node)]
    assert len(joined) >= 2
    texts = [kernel.text for kernel in step.kernels]
    assert max(texts.count(text) for text in texts) >= 4
    arenas = [{name: e.arena_bytes for name, e in p.entries.items()} for p in (found.plan, whole)]
    assert arenas[0]["predict"] < arenas[1]["predict"]
    assert arenas[0]["step"] <= arenas[1]["step"]  # its softmax may be kept whole


@pytest.mark.parametrize("way", ["masked"])
def test_same_bits(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trained slice by slice or whole, losses and parameters are the same bits."""
    runs = []
    for cache_bytes in (NEVER, 2**13):
        monkeypatch.setattr(pipeline, "CACHE_BYTES", cache_bytes)
        case = _case(way)
        trainer = pe.compile(
            case.model, case.batches[0], loss="cross_entropy", optimizer=case.optimizer, threads=2
        )
        losses = [trainer.step(x, y, lr=case.lr) for x, y in case.batches]
        runs.append((losses, trainer.state_dict(), trainer.predict(case.batches[0][0])))
    (losses, state, output), (again, other, shown) = runs
    assert losses == again
    assert torch.equal(output, shown)
    assert all(torch.equal(state[name], other[name]) for name in state)


_STEPS = (
    "exp({})",
    "add({}, {})",
    "sub({}, %m)",
    "mul({}, %r)",
    "matmul({}, {})",
    "permute({}, (0, 2, 1))",
    "where(%c, {}, 0.5)",
)

_STEP = st.tuples(st.sampled_from(_STEPS), st.integers(0, 9), st.integers(0, 9))


@examples(40)
@given(st.integers(2, 6), st.lists(_STEP, min_size=2, max_size=12))
def test_random_chains_keep_their_values(batch: int, steps: list[tuple[str, int, int]]) -> None:
    """Products, maps and views in any order: sliced, each value is the same, and can be planned."""
    names = ["x"]
    lines = [
        f"%x: f32[{batch}x4x4] = input('x')",
        "%m: f32[4x4] = input('m')",
        f"%r: f32[{batch}x1x4] = input('r')",
        "%c: bool[4x1] = input('c')",
    ]
    for number, (step, one, other) in enumerate(steps):
        operands = [f"%{names[place % len(names)]}" for place in (one, other)]
        call = step.format(*operands[: step.count("{}")])
        names.append(f"y{number}")
        lines.append(f"%y{number}: f32[{batch}x4x4] = {call}")
    last = f"return loss=None, outputs=(%{names[-1]},), gradients={{}}, updates=()"
    graph = fuse(rebuild(parse("\n".join([*lines, last]))))
    made = verify(slice_regions(graph, 1))
    torch.manual_seed(0)
    values = {
        "x": torch.randn(batch, 4, 4),
        "m": torch.randn(4, 4),
        "r": torch.randn(batch, 1, 4),
        "c": torch.rand(4, 1) < 0.5,
    }
    found, wanted = (interpret(each, values).outputs[0] for each in (made, graph))
    torch.testing.assert_close(found, wanted, equal_nan=True)
