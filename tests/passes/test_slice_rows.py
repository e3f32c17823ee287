"""``slice_rows``: scores of many classes are never there for all rows at once."""

from __future__ import annotations

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
from pockengine.ir.text import parse, text
from pockengine.ir.verify import verify
from pockengine.optimizer import SGD
from pockengine.passes.slice_regions import slice_rows
from pockengine.scheme import Scheme
from tests.conftest import examples
from tests.pass_oracle import PassOracle
from tests.passes.golden import example
from tests.spine import Case, prepared

NEVER = 2**40
ROWS, CLASSES = 512, 300


def _sliced(source: str, most_bytes: int = 1) -> Graph:
    return verify(slice_rows(parse(source), most_bytes))


def test_docstring_example() -> None:
    """The example holds; its argument stays as it is, and what is small is not sliced."""
    before, after = example(slice_rows)
    shown = text(before)
    assert text(verify(slice_rows(before, 2**16))) == after
    assert text(before) == shown
    assert text(slice_rows(before, 2**18)) == shown


@pytest.mark.parametrize(
    "source",
    [
        """%x: f32[256x4] = input('x')
%w: f32[4x128] = const('w')
%s: f32[256x128] = matmul(%x, %w)
%e: f32[256x128] = exp(%s)
%t: f32[128x256] = permute(%e, (1, 0))
%g: f32[128x4] = matmul(%t, %x)
return loss=None, outputs=(%g,), gradients={}, updates=()""",
        """%x: f32[256x4] = input('x')
%w: f32[4x128] = input('w')
%v: f32[128x4] = input('v')
%s: f32[256x128] = matmul(%x, %w)
%o: f32[256x4] = matmul(%s, %v)
return loss=None, outputs=(%o,), gradients={}, updates=()""",
        """%x: f32[192x4] = input('x')
%w: f32[4x128] = const('w')
%v: f32[128x4] = const('v')
%s: f32[192x128] = matmul(%x, %w)
%o: f32[192x4] = matmul(%s, %v)
return loss=None, outputs=(%o,), gradients={}, updates=()""",
        """%w: f32[256x256] = param('w')
%s: f32[256x256] = matmul(%w, %w)
%o: f32[256x256] = matmul(%s, %w)
return loss=None, outputs=(%o,), gradients={}, updates=()""",
    ],
    ids=["a weight's gradient reads all", "no weights", "few rows", "a weight times itself"],
)
def test_not_sliced(source: str) -> None:
    """What is read whole, what is no weight, few rows, and rows of what is also the weight."""
    assert text(_sliced(source)) == text(parse(source))


class Tagger(nn.Module):
    """Scores of many classes for each of many words, by a head that may be frozen."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(16, 16)
        self.norm = nn.LayerNorm(16)
        self.head = nn.Linear(16, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 64, 16) to (N, 64, CLASSES)."""
        scores: Tensor = self.head(self.norm(x + self.first(x).tanh()))
        return scores


def _loss(output: Tensor, target: Tensor) -> Tensor:
    return nn.functional.cross_entropy(output.flatten(0, 1), target.flatten(), ignore_index=-1)


def _case(scheme: Scheme) -> Case:
    torch.manual_seed(0)
    labels = [torch.randint(-1, CLASSES, (8, 64)) for _ in range(3)]
    return Case(
        model=Tagger(),
        batches=[(torch.randn(8, 64, 16), each) for each in labels],
        scheme=scheme,
        optimizer=SGD(momentum=0.9),
        loss=_loss,
        lr=0.1,
    )


FROZEN_HEAD = Scheme({"first.weight": 1.0, "norm.bias": 1.0})
SCORES = 4 * ROWS * CLASSES


def test_a_frozen_head(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each graph computes what autograd does in float64, and holds the scores of 128 rows."""
    case = _case(FROZEN_HEAD)
    whole = prepared(case).plan.entries["step"]
    monkeypatch.setattr(pipeline, "ROWS_BYTES", 2**17)
    oracle = PassOracle(case)
    found = prepared(case, oracle)
    assert not oracle.failures
    step = found.plan.entries["step"]
    assert max(value.nbytes for value in whole.values) == SCORES
    assert max(value.nbytes for value in step.values) == SCORES // 4
    assert step.arena_bytes < 0.6 * whole.arena_bytes
    texts = [k.text for source in found.sources if source.name == "step" for k in source.kernels]
    assert max(texts.count(each) for each in texts) >= 4  # kernels are shared


def test_a_trained_head(monkeypatch: pytest.MonkeyPatch) -> None:
    """The gradient of its weights reads the gradient of all scores, which stays whole."""
    monkeypatch.setattr(pipeline, "ROWS_BYTES", 2**17)
    case = _case(Scheme.full())
    oracle = PassOracle(case)
    found = prepared(case, oracle)
    assert not oracle.failures
    assert max(value.nbytes for value in found.plan.entries["step"].values) == SCORES


def test_same_training(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trained some rows at a time or whole, losses and parameters agree."""
    runs = []
    for most_bytes in (NEVER, 2**17):
        monkeypatch.setattr(pipeline, "ROWS_BYTES", most_bytes)
        case = _case(FROZEN_HEAD)
        trainer = pe.compile(
            case.model,
            case.batches[0],
            loss=_loss,
            scheme=FROZEN_HEAD,
            optimizer=case.optimizer,
            threads=2,
        )
        runs.append(([trainer.step(x, y, lr=0.1) for x, y in case.batches], trainer.state_dict()))
    (losses, state), (again, other) = runs
    assert losses == pytest.approx(again, rel=1e-6)
    for name, value in state.items():
        torch.testing.assert_close(value, other[name], rtol=1e-5, atol=1e-6)


_STEPS = (
    "matmul({}, %w)",
    "exp({})",
    "add({}, {})",
    "sub({}, %m)",
    "mul({}, %r)",
    "matmul(%u, {})",
)
_STEP = st.tuples(st.sampled_from(_STEPS), st.integers(0, 9), st.integers(0, 9))


@examples(40)
@given(st.lists(_STEP, min_size=2, max_size=12), st.integers(0, 1))
def test_random_chains_keep_their_values(steps: list[tuple[str, int, int]], sums: int) -> None:
    """Products with weights, maps, and what mixes rows: sliced, the last value is the same."""
    names = ["x"]
    lines = [
        "%x: f32[256x8] = input('x')",
        "%w: f32[8x8] = const('w')",
        "%u: f32[256x256] = const('u')",
        "%m: f32[8] = input('m')",
        "%r: f32[256x1] = input('r')",
    ]
    for number, (step, one, other) in enumerate(steps):
        operands = [f"%{names[place % len(names)]}" for place in (one, other)]
        names.append(f"y{number}")
        lines.append(f"%y{number}: f32[256x8] = {step.format(*operands[: step.count('{}')])}")
    lines.append(f"%z: f32[8] = sum(%{names[-1]}, (0,))")
    shown = "%z" if sums else f"%{names[-1]}"
    lines.append(f"return loss=None, outputs=({shown},), gradients={{}}, updates=()")
    graph = rebuild(parse("\n".join(lines)))
    made = verify(slice_rows(graph, 1))
    generator = torch.Generator().manual_seed(0)
    values = {
        name: torch.randn(type_of(node).shape, generator=generator) * 0.1
        for name, node in ((node.name, node) for node in graph.nodes if node.op == "placeholder")
    }
    found, wanted = (interpret(each, values).outputs[0] for each in (made, graph))
    torch.testing.assert_close(found, wanted, equal_nan=True)


def test_random_chains_are_sliced() -> None:
    """Such chains do have what is sliced."""
    made = _sliced(
        """%x: f32[256x8] = input('x')
%w: f32[8x8] = const('w')
%r: f32[256x1] = input('r')
%y: f32[256x8] = matmul(%x, %w)
%e: f32[256x8] = mul(%y, %r)
%f: f32[256x8] = matmul(%e, %w)
%g: f32[256x8] = exp(%f)
%h: f32[256x8] = matmul(%g, %w)
%k: f32[256x8] = matmul(%h, %w)
%l: f32[256x8] = matmul(%k, %w)
%z: f32[8] = sum(%l, (0,))
return loss=None, outputs=(%z,), gradients={}, updates=()"""
    )
    (joined,) = calls(made, "cat")
    assert type_of(joined).shape == (256, 8)
    assert len(list(calls(made, "matmul"))) == 10
