"""The C runtime through its binding, on the toy trainer of conftest.py."""

from __future__ import annotations

import os
import threading
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from pockengine.errors import InputError, PlanError, TrainError
from pockengine.runtime.encoding import encode
from pockengine.runtime.engine import Engine
from pockengine.runtime.library import allocate
from tests.runtime.toy import CHUNKS, SIZE, batch, toy_descriptor

Open = Callable[..., Engine]


def _losses(engine: Engine, steps: int = 20) -> list[float]:
    return [float(engine.run("step", batch())[0][0]) for _ in range(steps)]


def test_step_equals_numpy(open_toy: Open) -> None:
    """Losses and parameters follow the same regression in float64."""
    x = batch()[0].astype(np.float64)
    w = np.zeros(SIZE)
    expected = []
    for _ in range(20):
        error = w @ x - 3
        expected.append(error**2)
        w -= 1e-4 * 2 * error * x
    with open_toy() as engine:
        np.testing.assert_allclose(_losses(engine), expected, rtol=1e-4)
        np.testing.assert_allclose(engine.regions[1].view(np.float32), w, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("threads", [2, 3, 7])
def test_thread_count_changes_nothing(open_toy: Open, threads: int) -> None:
    """One thread and several leave the same bits."""
    with open_toy(1) as one, open_toy(threads) as many:
        assert _losses(one) == _losses(many)
        assert one.regions[1].tobytes() == many.regions[1].tobytes()


def test_predict_gives_a_copy(open_toy: Open) -> None:
    """Outputs are the caller's own: a later run does not change them."""
    with open_toy() as engine:
        before = engine.run("predict", batch()[:1])[0]
        engine.run("step", batch())
        after = engine.run("predict", batch()[:1])[0]
    assert before.shape == (CHUNKS,)
    assert not before.any()
    assert after.any()


REFUSED: dict[str, tuple[dict[str, NDArray[Any]], str]] = {
    "label too big": (
        {"label": np.array([1, 10], np.int64)},
        (
            "label[1]: it is 10; an integer from 0 to 9, or -100 is needed. "
            "Nothing was changed; correct the batch."
        ),
    ),
    "label too small, int32": ({"label": np.array([-1, 1], np.int32)}, r"label[0]: it is -1; "),
    "label beyond int64": (
        {"label": np.array([0, 2**63], np.uint64)},
        "label[1]: it is 9223372036854775808",
    ),
    "label of reals": (
        {"label": np.array([0, 1], np.float32)},
        "label: it has elements of float32; ",
    ),
    "NaN": (
        {"x": np.where(np.arange(SIZE) == 700, np.nan, 1).astype(np.float32)},
        "x[700]: it is nan; a finite number is needed. Nothing was changed; correct the batch.",
    ),
    "infinity": ({"rate": np.array([-np.inf], np.float32)}, "rate[0]: it is -inf; "),
    "real too big": ({"rate": np.array([1e300], np.float64)}, "rate[0]: it is inf; "),
    "wrong size": (
        {"x": np.zeros(5, np.float32)},
        (
            "x: it has 5 elements; 1000 elements of float32 are needed. "
            "Pass what the trainer was compiled for."
        ),
    ),
    "integers for reals": ({"x": np.zeros(SIZE, np.int32)}, "x: it has elements of int32; "),
}


@pytest.mark.parametrize("case", REFUSED)
def test_bad_input_changes_nothing(open_toy: Open, case: str) -> None:
    """Each fault of a batch is named with its place and value; memory stays as it was."""
    changes, message = REFUSED[case]
    with open_toy() as engine:
        _losses(engine, 2)
        before = [region.tobytes() for region in engine.regions]
        with pytest.raises(InputError) as caught:
            engine.run("step", batch(**changes))
        assert str(caught.value).startswith(message)
        assert [region.tobytes() for region in engine.regions] == before


def test_inputs_convert_losslessly_or_by_rounding(open_toy: Open) -> None:
    """Strided float64 and int32 inputs count as the dense float32 and int64 they stand for."""
    x = np.repeat(batch()[0].astype(np.float64), 2)[::2]
    with open_toy() as plain, open_toy() as converted:
        expected = plain.run("step", batch())
        found = converted.run("step", batch(x=x, label=np.array([9, -100], np.int32)))
        assert found == expected


def test_loss_that_is_not_finite_updates_nothing(open_toy: Open) -> None:
    """The guard stops the step before its first update, and the next step works."""
    with open_toy() as engine:
        _losses(engine, 2)
        before = engine.regions[1].tobytes()
        with pytest.raises(TrainError, match=r"loss: it is nan; the loss has to be finite before"):
            engine.run("step", batch(y=np.array([np.nan], np.float32)))
        assert engine.regions[1].tobytes() == before
        assert not engine.torn
        _losses(engine, 1)


def test_kernel_failure_before_the_commit_updates_nothing(open_toy: Open) -> None:
    """A kernel that fails early is reported, and the trainer stays whole."""
    with open_toy() as engine:
        with pytest.raises(TrainError, match=r"kernel call 0 returned 7.*No parameter was changed"):
            engine.run("step", batch(early=np.array([7], np.int32)))
        assert not engine.torn
        assert not engine.regions[1].any()


def test_kernel_failure_after_the_commit_tears(open_toy: Open) -> None:
    """After a half-made update every run is refused until parameters are loaded."""
    with open_toy() as engine:
        with pytest.raises(TrainError, match=r"kernel call 5 returned -3.*Load a checkpoint"):
            engine.run("step", batch(late=np.array([-3], np.int32)))
        assert engine.torn
        with pytest.raises(TrainError, match="Load a checkpoint"):
            engine.run("predict", batch()[:1])
        engine.regions[1][:] = 0
        engine.clear_torn()
        _losses(engine, 1)


def test_each_call_is_timed(open_toy: Open) -> None:
    """Timing gives one number a call and the same outputs."""
    with open_toy() as plain, open_toy() as timed:
        outputs, ms = timed.run_timed("step", batch())
        assert outputs == plain.run("step", batch())
        assert ms.shape == (6,)
        assert (ms >= 0).all()


def test_two_engines_at_once(open_toy: Open) -> None:
    """Trainers share nothing: two that run at once in two threads give what each gives alone."""
    found: dict[int, list[float]] = {}
    with open_toy(2) as one, open_toy(2) as two, open_toy(1) as alone:
        runs = [
            threading.Thread(target=lambda i=i, e=e: found.update({i: _losses(e, 50)}))
            for i, e in enumerate((one, two))
        ]
        for run in runs:
            run.start()
        for run in runs:
            run.join()
        assert found[0] == found[1] == _losses(alone, 50)


def test_fork(open_toy: Open) -> None:
    """A child process goes on with threads of its own, and so does its parent."""
    with open_toy(2) as engine, open_toy(1) as alone:
        expected = _losses(alone, 4)
        assert _losses(engine, 2) == expected[:2]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            child = os.fork()
        if child == 0:
            ok = _losses(engine, 2) == expected[2:]
            engine.close()
            os._exit(0 if ok else 1)
        assert os.waitpid(child, 0)[1] == 0
        assert _losses(engine, 2) == expected[2:]


@pytest.mark.parametrize("threads", [1, 2])
def test_subnormals_are_flushed_inside_a_step_only(open_toy: Open, threads: int) -> None:
    """Every thread counts subnormal numbers as zero in a step; the caller's mode is as before."""
    tiny = np.full(SIZE, 1e-39, np.float32)
    with open_toy(threads) as engine:
        engine.regions[1].view(np.float32)[:] = 1
        assert not engine.run("predict", [tiny])[0].any()
    assert (tiny * np.float32(0.5)).all()


def test_inputs_are_counted(open_toy: Open) -> None:
    """Too few inputs: the message lists what is expected."""
    with open_toy() as engine, pytest.raises(InputError, match=r"2 inputs .* 6 are needed \(x, y"):
        engine.run("step", batch()[:2])


def test_unknown_entry_and_closed_engine(open_toy: Open) -> None:
    """An entry point that is not there is refused with those that are; so is a closed engine."""
    engine = open_toy()
    with pytest.raises(InputError, match=r"nothing: there is no such.*one of step, predict"):
        engine.run("nothing", [])
    engine.close()
    engine.close()
    with pytest.raises(InputError, match="step: the engine is closed"):
        engine.run("step", batch())


def test_regions_and_kernels_have_to_match(toy_kernels: list[int]) -> None:
    """A region too small, an unaligned one and a missing kernel are refused."""
    data = encode(toy_descriptor())
    const, param, state, arena = map(allocate, toy_descriptor().region_bytes)

    def opened(kernels: list[int], arena: NDArray[np.uint8]) -> Engine:
        return Engine(data, kernels, const=const, param=param, state=state, arena=arena)

    with pytest.raises(PlanError, match="arena region has 100 bytes of 9216"):
        opened(toy_kernels, allocate(100))
    with pytest.raises(PlanError, match="not aligned"):
        opened(toy_kernels, allocate(9300)[4:])
    with pytest.raises(PlanError, match="kernel table"):
        opened(toy_kernels[:-1], arena)
