"""The order of a schedule that keeps the fewest bytes live at its worst moment.

Finding the best order is NP-hard, so several are built and the best is kept, the given one among
them: nothing here makes a schedule worse. Each is made of two rules of "On-Device Training Under
256KB Memory" (section 3.4) and POET: run what frees memory as early as possible (an update right
after its gradient), run what costs memory as late as possible (a recomputation right before its
use).
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

_ROUNDS = 8
_DELAYS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One kernel call: buffers read and written, scratch bytes, and tasks that must precede it."""

    reads: tuple[int, ...]
    writes: tuple[int, ...]
    workspace_bytes: int = 0
    after: tuple[int, ...] = ()


def order(
    tasks: Sequence[Task],
    *,
    sizes: Sequence[int],
    pinned: frozenset[int] = frozenset(),
    outputs: frozenset[int] = frozenset(),
) -> list[int]:
    """A topological order of ``tasks`` with a low peak of live bytes.

    Args:
        tasks: in an order that is valid already; each buffer is written by one task at most.
        sizes: bytes per buffer.
        pinned: buffers outside the arena, never counted.
        outputs: buffers that live to the end.

    Returns:
        Indices into ``tasks``; the peak is never above that of the given order. Deterministic.
    """
    schedule = _Schedule(tasks, sizes, pinned, outputs)
    best = list(range(len(tasks)))
    cost = schedule.cost(best)
    for base in (best, schedule.lazy(best), schedule.backward(), schedule.greedy()):
        for candidate in (base, schedule.eager(base), schedule.lazy(schedule.eager(base))):
            found = schedule.cost(candidate)
            if found < cost:
                best, cost = candidate, found
    return schedule.relieve(best)


def lifetimes(
    tasks: Sequence[Task],
    order: Sequence[int],
    *,
    count: int,
    outputs: frozenset[int] = frozenset(),
) -> list[tuple[int, int]]:
    """The steps [first, last + 1) during which each of ``count`` buffers is live.

    Steps are positions in ``order``. A buffer that no task writes is live from step 0, an output to
    the end; one that no task touches is [0, 0) unless it is an output.
    """
    first = [0] * count
    last = [0] * count
    for step, index in enumerate(order):
        for buffer in tasks[index].writes:
            first[buffer] = step
            last[buffer] = max(last[buffer], step + 1)
        for buffer in tasks[index].reads:
            last[buffer] = step + 1
    for buffer in outputs:
        last[buffer] = len(order)
    return list(zip(first, last, strict=True))


def peak(
    tasks: Sequence[Task],
    order: Sequence[int],
    *,
    sizes: Sequence[int],
    pinned: frozenset[int] = frozenset(),
    outputs: frozenset[int] = frozenset(),
) -> int:
    """The largest number of bytes live in one step, workspace included, pinned buffers not."""
    live = _Schedule(tasks, sizes, pinned, outputs).profile(order)
    return max(live, default=0)


class _Schedule:
    """The dependencies of tasks and the bytes their buffers take."""

    def __init__(
        self,
        tasks: Sequence[Task],
        sizes: Sequence[int],
        pinned: frozenset[int],
        outputs: frozenset[int],
    ) -> None:
        self.tasks = tasks
        self.outputs = outputs
        self.sizes = [0 if b in pinned else size for b, size in enumerate(sizes)]
        self.inputs = [tuple(dict.fromkeys(task.reads)) for task in tasks]
        self.writer = [-1] * len(sizes)
        self.readers: list[list[int]] = [[] for _ in sizes]
        for index, task in enumerate(tasks):
            for buffer in task.writes:
                self.writer[buffer] = index
            for buffer in self.inputs[index]:
                self.readers[buffer].append(index)
        self.before = [self._before(task) for task in tasks]
        self.behind: list[list[int]] = [[] for _ in tasks]
        for index, earlier in enumerate(self.before):
            for other in earlier:
                self.behind[other].append(index)

    def _before(self, task: Task) -> list[int]:
        written = [self.writer[b] for b in task.reads if self.writer[b] >= 0]
        return sorted({*written, *task.after})

    def profile(self, order: Sequence[int]) -> list[int]:
        """Live bytes per step."""
        change = [0] * (len(order) + 1)
        spans = lifetimes(self.tasks, order, count=len(self.sizes), outputs=self.outputs)
        for size, (first, last) in zip(self.sizes, spans, strict=True):
            if first < last:
                change[first] += size
                change[last] -= size
        live, total = [], 0
        for step, index in enumerate(order):
            total += change[step]
            live.append(total + self.tasks[index].workspace_bytes)
        return live

    def cost(self, order: Sequence[int]) -> tuple[int, int]:
        """Peak, then the sum over steps: what breaks ties leaves the packer more room."""
        live = self.profile(order)
        return max(live, default=0), sum(live)

    def lazy(self, order: Sequence[int]) -> list[int]:
        """Every task that takes more than it frees waits until its result is needed."""
        spans = lifetimes(self.tasks, order, count=len(self.sizes), outputs=self.outputs)
        waits = set()
        for step, index in enumerate(order):
            task = self.tasks[index]
            freed = sum(self.sizes[b] for b in self.inputs[index] if spans[b][1] == step + 1)
            if sum(self.sizes[b] for b in task.writes) > freed:
                waits.add(index)
        return self.delayed(order, waits)

    def delayed(self, order: Sequence[int], waits: Iterable[int]) -> list[int]:
        """The order with each task of ``waits`` moved to right before the first that needs it."""
        waiting = set(waits)
        done = [False] * len(order)
        result: list[int] = []
        for index in [*(i for i in order if i not in waiting), *order]:
            stack = [index]
            while stack:
                top = stack[-1]
                missing = [other for other in self.before[top] if not done[other]]
                if done[top] or not missing:
                    stack.pop()
                    if not done[top]:
                        done[top] = True
                        result.append(top)
                else:
                    stack.extend(reversed(missing))
        return result

    def eager(self, order: Sequence[int]) -> list[int]:
        """The order with each task that frees at least what it takes run as soon as it can."""
        rank = {index: step for step, index in enumerate(order)}
        return self._forward(lambda index, net: (net > 0, rank[index]))

    def greedy(self) -> list[int]:
        """List scheduling: of the tasks that are ready, the one that adds the fewest bytes."""
        return self._forward(lambda index, net: (net, index))

    def _forward(self, key: Callable[[int, int], tuple[int, int]]) -> list[int]:
        """Runs, among the ready tasks, the one of least ``key(task, bytes taken - freed)``."""
        left = [len(r) + (b in self.outputs) for b, r in enumerate(self.readers)]

        def rank(index: int) -> tuple[int, int]:
            freed = sum(self.sizes[b] for b in self.inputs[index] if left[b] == 1)
            return key(index, sum(self.sizes[b] for b in self.tasks[index].writes) - freed)

        def run(index: int) -> list[int]:
            for buffer in self.inputs[index]:
                left[buffer] -= 1
            sole = [b for b in self.inputs[index] if left[b] == 1]
            return [reader for b in sole for reader in self.readers[b]]

        return _list_schedule(self.before, self.behind, rank, run)

    def backward(self) -> list[int]:
        """List scheduling from the end: of the tasks that may be last, the best to put there.

        Seen from the end, a task takes the buffers it reads and frees those it writes.
        """
        live = [b in self.outputs for b in range(len(self.sizes))]

        def rank(index: int) -> tuple[int, int]:
            taken = sum(self.sizes[b] for b in self.inputs[index] if not live[b])
            return taken - sum(self.sizes[b] for b in self.tasks[index].writes if live[b]), -index

        def run(index: int) -> list[int]:
            woken = [b for b in self.inputs[index] if not live[b]]
            for buffer in woken:
                live[buffer] = True
            return [reader for b in woken for reader in self.readers[b]]

        return _list_schedule(self.behind, self.before, rank, run)[::-1]

    def relieve(self, order: list[int]) -> list[int]:
        """Delays, while it helps, tasks whose results are only waiting at the peak."""
        best, cost = order, self.cost(order)
        for _ in range(_ROUNDS):
            waiting = self._waiting_at_peak(best)
            options = [self.delayed(best, {index}) for index in waiting[:_DELAYS]]
            options.append(self.delayed(best, waiting))
            found = min((self.cost(option), option) for option in options)
            if found[0] >= cost:
                break
            cost, best = found
        return best

    def _waiting_at_peak(self, order: Sequence[int]) -> list[int]:
        """Tasks that ran before the peak for readers after it, the most bytes first."""
        live = self.profile(order)
        if not live:
            return []
        top = live.index(max(live))
        rank = {index: step for step, index in enumerate(order)}
        bytes_of: dict[int, int] = {}
        for buffer, writer in enumerate(self.writer):
            readers = [rank[r] for r in self.readers[buffer]]
            if writer >= 0 and readers and rank[writer] < top < min(readers):
                bytes_of[writer] = bytes_of.get(writer, 0) + self.sizes[buffer]
        return sorted(bytes_of, key=lambda index: (-bytes_of[index], index))


def _list_schedule(
    before: Sequence[Sequence[int]],
    behind: Sequence[Sequence[int]],
    rank: Callable[[int], tuple[int, int]],
    run: Callable[[int], list[int]],
) -> list[int]:
    """Runs the ready task of least rank until all ran.

    Args:
        before: per task, what must have run.
        behind: per task, what waits for it.
        rank: of a task now; other tasks' runs may lower it, never raise it.
        run: notes that a task ran; returns the tasks whose rank that may have lowered. They enter
            the heap once more, and their older entries are skipped.
    """
    missing = [len(earlier) for earlier in before]
    done = [False] * len(before)
    heap = [(rank(index), index) for index, count in enumerate(missing) if count == 0]
    heapq.heapify(heap)
    result: list[int] = []
    while heap:
        _, index = heapq.heappop(heap)
        if done[index]:
            continue
        done[index] = True
        result.append(index)
        lowered = [other for other in run(index) if not done[other] and not missing[other]]
        for later in behind[index]:
            missing[later] -= 1
            if not missing[later]:
                lowered.append(later)
        for other in lowered:
            heapq.heappush(heap, (rank(other), other))
    return result
