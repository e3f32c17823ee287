"""Window arithmetic against counting by hand."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pockengine.lower.window import Axis, Sweep, pieces


@st.composite
def sweeps(draw: st.DrawFn) -> Sweep:
    """Any sweep whose windows start inside the padded input."""
    size, kernel = draw(st.integers(1, 20)), draw(st.integers(1, 6))
    stride, dilation = draw(st.integers(1, 4)), draw(st.integers(1, 3))
    padding = draw(st.integers(0, 5))
    windows = draw(st.integers(1, (size + padding - 1) // stride + 1))
    return Sweep(
        size=size,
        kernel=kernel,
        stride=stride,
        padding=padding,
        dilation=dilation,
        windows=windows,
    )


def pairs(axis: Axis) -> set[tuple[int, int, int]]:
    """All (output, input, tap) of an axis."""
    return {
        (o, o // axis.period * axis.stride + tap.offset, tap.index)
        for o in range(axis.outputs)
        for tap in axis.valid(o)
    }


@given(sweeps())
def test_forward_and_gradient_are_all_pairs_inside(sweep: Sweep) -> None:
    """Both directions list exactly the pairs (window, element) of every tap."""
    expected = {
        (o, i, k)
        for o in range(sweep.windows)
        for k in range(sweep.kernel)
        if 0 <= (i := o * sweep.stride - sweep.padding + k * sweep.dilation) < sweep.size
    }
    assert pairs(sweep.forward()) == expected
    assert {(o, i, k) for i, o, k in pairs(sweep.gradient())} == expected


@given(sweeps(), st.booleans(), st.integers(1, 8))
def test_runs_and_pieces_cover_every_output_once(sweep: Sweep, back: bool, width: int) -> None:
    """Outputs are cut without gaps, and what is called interior has all its taps."""
    axis = sweep.gradient() if back else sweep.forward()
    for phase in range(axis.period):
        cut = [q for run in axis.runs(phase) for q in range(run.begin, run.end)]
        assert cut == list(range(axis.count(phase)))
    covered: list[int] = []
    for piece in pieces(axis, width):
        outputs = range(piece.begin, piece.begin + piece.width * piece.tiles)
        covered += outputs
        if piece.interior:
            assert all(axis.valid(o) == axis.phases[o % axis.period] for o in outputs)
    assert covered == list(range(axis.outputs))
