"""The order of tasks: valid, never worse, and the two rules it is there for."""

from __future__ import annotations

import itertools

from hypothesis import given, settings
from hypothesis import strategies as st

from pockengine.plan.order import Task, lifetimes, order, peak


@st.composite
def problems(draw: st.DrawFn) -> tuple[list[Task], list[int], frozenset[int], frozenset[int]]:
    """Up to five tasks, each writing one buffer and reading earlier ones."""
    count = draw(st.integers(1, 5))
    sizes = draw(st.lists(st.integers(0, 9), min_size=count + 1, max_size=count + 1))
    tasks = []
    for index in range(count):
        reads = draw(st.sets(st.integers(0, index), max_size=3))
        after = draw(st.sets(st.integers(0, index - 1), max_size=1)) if index else set()
        scratch = draw(st.integers(0, 5))
        tasks.append(
            Task(
                reads=tuple(reads),
                writes=(index + 1,),
                workspace_bytes=scratch,
                after=tuple(after),
            )
        )
    chosen = st.frozensets(st.integers(0, count), max_size=2)
    return tasks, sizes, draw(chosen), draw(chosen)


def is_valid(tasks: list[Task], steps: tuple[int, ...]) -> bool:
    """Every buffer is written before it is read, every ``after`` kept (buffer b: task b - 1)."""
    rank = {index: step for step, index in enumerate(steps)}
    return all(
        rank[earlier] < rank[index]
        for index, task in enumerate(tasks)
        for earlier in (*task.after, *(b - 1 for b in task.reads if b))
    )


@given(problems())
@settings(deadline=None, max_examples=80)
def test_order_is_valid_never_worse_and_repeatable(
    problem: tuple[list[Task], list[int], frozenset[int], frozenset[int]],
) -> None:
    """It lies between the given order and the best of all, and is the same each time."""
    tasks, sizes, pinned, outputs = problem
    given_order = tuple(range(len(tasks)))
    found = order(tasks, sizes=sizes, pinned=pinned, outputs=outputs)
    assert found == order(tasks, sizes=sizes, pinned=pinned, outputs=outputs)
    assert sorted(found) == list(given_order)
    assert is_valid(tasks, tuple(found))

    def cost(steps: tuple[int, ...]) -> int:
        return peak(tasks, steps, sizes=sizes, pinned=pinned, outputs=outputs)

    every = [p for p in itertools.permutations(given_order) if is_valid(tasks, p)]
    assert min(map(cost, every)) <= cost(tuple(found)) <= cost(given_order)


def test_updates_run_right_after_their_gradients() -> None:
    """Weight gradients do not pile up: each is consumed before the next is made."""
    gradients = [Task(reads=(0,), writes=(k,)) for k in range(1, 6)]
    updates = [Task(reads=(k,), writes=()) for k in range(1, 6)]
    tasks = [*gradients, *updates]
    sizes = [10, 100, 100, 100, 100, 100]
    assert peak(tasks, range(10), sizes=sizes) == 510
    assert peak(tasks, order(tasks, sizes=sizes), sizes=sizes) == 110


def test_recomputation_runs_right_before_its_use() -> None:
    """A large buffer made early from a small one waits until the peak in between is over."""
    tasks = [
        Task(reads=(0,), writes=(1,)),
        Task(reads=(0,), writes=(2,)),
        Task(reads=(2,), writes=(3,)),
        Task(reads=(3, 1), writes=(4,)),
    ]
    sizes = [1, 50, 60, 5, 1]
    found = order(tasks, sizes=sizes)
    assert found == [1, 2, 0, 3]
    assert peak(tasks, found, sizes=sizes) == 66


def test_an_update_waits_for_every_read_of_its_parameter() -> None:
    """Dependencies that no buffer expresses are kept."""
    tasks = [
        Task(reads=(0,), writes=(1,)),
        Task(reads=(0,), writes=(2,)),
        Task(reads=(1,), writes=(), after=(1,)),
    ]
    assert order(tasks, sizes=[0, 9, 1]).index(2) == 2


def test_lifetimes_of_inputs_outputs_and_dead_results() -> None:
    """Inputs live from step 0, outputs to the end, an unread result for its own step."""
    tasks = [
        Task(reads=(0,), writes=(1, 2)),
        Task(reads=(1,), writes=(3,)),
        Task(reads=(), writes=()),
    ]
    found = lifetimes(tasks, [0, 1, 2], count=5, outputs=frozenset({3}))
    assert found == [(0, 1), (0, 2), (0, 1), (1, 3), (0, 0)]


def test_peak_counts_workspace_and_leaves_out_pinned() -> None:
    """Scratch counts in its step only; what is pinned is not in the arena."""
    tasks = [Task(reads=(0,), writes=(1,), workspace_bytes=7), Task(reads=(1,), writes=(2,))]
    assert peak(tasks, [0, 1], sizes=[100, 4, 8], pinned=frozenset({0})) == 12
    assert peak(tasks, [0, 1], sizes=[0, 4, 1]) == 11
