"""Refuses a plan that its machine has no memory for, and says what holds most of it."""

from __future__ import annotations

from collections import Counter

from pockengine.errors import PlanError
from pockengine.plan.memory import EntryPlan, Plan
from pockengine.targets import Target


def working_bytes(plan: Plan, target: Target) -> int:
    """What a plan needs of a target's working memory: constants too where it has no flash."""
    working = plan.arena_bytes + plan.param_bytes + plan.state_bytes
    return working + (plan.const_bytes if target.flash_bytes is None else 0)


def fits(plan: Plan, target: Target) -> bool:
    """Whether the target's working memory, where its size is known, holds a plan."""
    return target.working_bytes is None or working_bytes(plan, target) <= target.working_bytes


def check_fits(plan: Plan, target: Target) -> None:
    """Compare a plan with a target's memory, as far as its sizes are known.

    Args:
        plan: arena, parameters and state share the working memory; constants lie in flash if the
            target has that, else in the working memory too.
        target: the machine.

    Raises:
        PlanError: the plan does not fit.
    """
    working = working_bytes(plan, target)
    if target.flash_bytes is not None and plan.const_bytes > target.flash_bytes:
        raise _too_big(target, plan.const_bytes, target.flash_bytes, "flash", "const alone")
    if target.working_bytes is not None and not fits(plan, target):
        raise _too_big(target, working, target.working_bytes, "working memory", _breakdown(plan))


def _breakdown(plan: Plan) -> str:
    sizes = {"arena": plan.arena_bytes, "param": plan.param_bytes, "state": plan.state_bytes}
    told = ", ".join(f"{name} {_kib(size)}" for name, size in sizes.items())
    return f"{told}; {_largest_scope(max(plan.entries.values(), key=lambda e: e.arena_bytes))}"


def _largest_scope(entry: EntryPlan) -> str:
    """The module whose values hold most at the worst moment."""
    steps = range(max((value.upper for value in entry.values), default=0))
    live = {step: [v for v in entry.values if v.lower <= step < v.upper] for step in steps}
    worst = max(live.values(), key=lambda values: sum(v.nbytes for v in values), default=[])
    held: Counter[str] = Counter()
    for value in worst:
        held[value.scope or value.name] += value.nbytes
    if not held:
        return "nothing is transient"
    scope, nbytes = held.most_common(1)[0]
    return f"{scope}'s values hold {_kib(nbytes)} at the worst moment"


def _too_big(target: Target, found: int, limit: int, memory: str, detail: str) -> PlanError:
    return PlanError(
        where=target.name,
        found=f"needs {_kib(found)} of {memory} ({detail})",
        needed=f"has {_kib(limit)}",
        remedy="Update fewer layers, compile with micro_batches, or halve the batch or the image",
    )


def _kib(nbytes: int) -> str:
    return f"{-(-nbytes // 1024)} KiB"
