"""The passes of clipping, accumulation and averaging: their examples, and where they do nothing."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch.fx import Graph

from pockengine.ir.interpret import interpret
from pockengine.ir.text import text
from pockengine.ir.verify import verify
from pockengine.modes import Clip
from pockengine.passes.accumulate_gradients import accumulate_gradients, take_accumulated
from pockengine.passes.clip_gradients import clip_gradients
from pockengine.passes.read_average import read_average
from pockengine.passes.split_batch import accumulate_rounds, split_batch
from pockengine.passes.track_average import track_average
from pockengine.scheme import Channels
from tests.passes.golden import example


@pytest.mark.parametrize(
    ("rewrite", "run"),
    [
        (clip_gradients, lambda graph: clip_gradients(graph, Clip(norm=2.0))),
        (accumulate_gradients, accumulate_gradients),
        (take_accumulated, lambda graph: take_accumulated(graph, mean=True)),
        (track_average, lambda graph: track_average(graph, 0.75)),
        (read_average, lambda graph: read_average(graph, {"w": Channels(0, 2)})),
        (split_batch, lambda graph: split_batch(graph, 4, {"part": "x"}, {"all": "x"})),
        (accumulate_rounds, accumulate_rounds),
    ],
)
def test_docstring(rewrite: Callable[..., Graph], run: Callable[[Graph], Graph]) -> None:
    """The example in the docstring is what happens, and the graph it starts from stays."""
    before, after = example(rewrite)
    told = text(before)
    assert text(verify(run(before))) == after
    assert text(before) == told


def test_nothing_asked_changes_nothing() -> None:
    """Without a limit or a decay the graph is the same."""
    before, _ = example(clip_gradients)
    assert clip_gradients(before, None) is before
    assert track_average(before, 0.9) is before
    assert track_average(before, None) is before
    assert accumulate_rounds(before) is before


@pytest.mark.parametrize("limit", [0.5, 1e3])
@pytest.mark.parametrize("kind", ["value", "norm", "global_norm"])
def test_clipping_equals_pytorchs(kind: str, limit: float) -> None:
    """Below the limit, above it, and for what is not a number."""
    before, _ = example(clip_gradients)
    for x in (torch.randn(8, 4), torch.full((8, 4), torch.nan), torch.zeros(8, 4)):
        weight = torch.nn.Parameter(torch.zeros(8, 4))
        weight.grad = -x
        if kind == "value":
            torch.nn.utils.clip_grad_value_([weight], limit)
        else:
            torch.nn.utils.clip_grad_norm_([weight], limit)
        graph = verify(clip_gradients(before, Clip(**{kind: limit})))
        found = interpret(graph, {"w": weight.detach(), "x": x}).gradients["w"]
        torch.testing.assert_close(found, weight.grad, equal_nan=True)
