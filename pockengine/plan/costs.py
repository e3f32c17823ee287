"""What it costs a machine to compute a value once more, against keeping its bytes; or a kernel.

The rates are those of one core of the host (see ``targets/host.py``) as its kernels reach them:
register-tiled contractions, depthwise windows that are bound by loads, elementwise ops that run in
the loops of a kernel that is there anyway.
"""

from __future__ import annotations

from collections.abc import Callable

from torch.fx import Graph, Node

from pockengine.ir.graph import calls, kind_of, op_name, type_of
from pockengine.ir.ops import ALONE, Kind
from pockengine.passes.saved_cut import SavingCosts
from pockengine.plan.flops import kernel_bytes, node_bytes, node_flops
from pockengine.targets import Target, get_target

_DENSE_FLOPS_PER_NS = 90.0
_STENCIL_FLOPS_PER_NS = 20.0
_CHEAP_NS = 0.02  # an element of an op that fuses with its reader
_ELEMENTARY_NS = 0.15  # an element of an exponential and the like
_DRAW_NS = 1.5  # a random number
_REDUCE_NS = 0.1  # an element that a reduction reads
_MOVE_NS = 0.1  # an element that comes from elsewhere
CALL_NS = 300.0
"""Of a kernel, before and after its loops."""
_NS_PER_BYTE = 0.25  # what a byte that is kept through the step is worth
_RECOMPUTE_SHARES = (0.02, 0.09)  # of a step's time, for less memory
_NEVER_NS = 1e9

_ELEMENTARY = frozenset(
    "exp expm1 log log1p tanh sigmoid erf sin cos atan pow fmod sqrt rsqrt div".split()
)
_NOT_AGAIN = (ALONE - {"pack_bits"}) | {"sum_rows", "max_rows"}  # kernels of their own
_FREE = frozenset(("full", "iota"))


def saving_costs(target: Target, recompute: float | None = None) -> SavingCosts:
    """The costs that ``passes.choose_saved`` weighs for a target.

    Only their ratio decides, so times are told as if a byte cost what it costs on the host; where a
    target's rates are not both known, the host's balance of work and traffic stands for it.

    Args:
        target: the machine.
        recompute: largest part of a step's time that may go into computing again; None for the
            default's.
    """
    shares: tuple[float, ...] = _RECOMPUTE_SHARES
    if recompute is not None:
        shares = (*(share for share in (0.0, *shares) if share < recompute), recompute)
    scale = _balance(target)
    return SavingCosts(
        recompute_ns=lambda node: recompute_ns(node) * scale,
        ns_per_byte=_NS_PER_BYTE,
        recompute_shares=shares,
    )


def memory_time(arena_bytes: int, step_ns: float) -> float:
    """What is least where computing again pays: it saves the part of memory that it takes of time.

    Args:
        arena_bytes: of a step that computes some things again.
        step_ns: what it takes.
    """
    return arena_bytes * step_ns


def _balance(target: Target) -> float:
    """How much dearer work is than traffic, compared with the host."""
    host = get_target("host")
    rates = (host.fma_flops_per_s, host.memory_bytes_per_s)
    own = (target.fma_flops_per_s, target.memory_bytes_per_s)
    if None in own or None in rates:
        return 1.0
    work, traffic = (there / here for there, here in zip(rates, own, strict=True))  # type: ignore[operator]
    return work / traffic


def recompute_ns(node: Node) -> float:
    """Nanoseconds on one core of the host to compute a value once more, its operands given."""
    kind, name = kind_of(node), op_name(node)
    if name in _NOT_AGAIN or kind in (None, Kind.UPDATE):
        return _NEVER_NS
    if name in _FREE:
        return 0.0
    assert kind is not None
    return _RULES[kind](node)


def kernel_ns(graph: Graph, flops_per_s: float, bytes_per_s: float) -> float:
    """Nanoseconds that a kernel takes on a machine of these peaks, as far as is known beforehand.

    Work and traffic overlap; the longer one counts, and what each call costs.

    Args:
        graph: the kernel's own (``lower.kernel.Kernel.text``).
        flops_per_s: arithmetic peak of all threads together.
        bytes_per_s: traffic peak of the memory that the kernel's operands lie in.
    """
    host = get_target("host").fma_flops_per_s
    assert host is not None
    work = sum(work_ns(node) for node in calls(graph)) * host / flops_per_s
    return CALL_NS + max(work, kernel_bytes(graph) / bytes_per_s * 1e9)


def work_ns(node: Node) -> float:
    """Nanoseconds of an op on one core of the host whose operands are at hand."""
    kind, name = kind_of(node), op_name(node)
    if kind in (None, Kind.UPDATE) or name in _FREE:
        return 0.0
    if kind is Kind.CONTRACT:
        return _products(node)
    if kind is Kind.STENCIL:
        return node_flops(node) / _STENCIL_FLOPS_PER_NS
    assert kind is not None
    return _RULES[kind](node)


def _contraction(node: Node) -> float:
    bandwidth = get_target("host").memory_bytes_per_s
    assert bandwidth is not None
    return _products(node) + node_bytes(node) / bandwidth * 1e9


def _products(node: Node) -> float:
    rate = _STENCIL_FLOPS_PER_NS if _is_grouped(node) else _DENSE_FLOPS_PER_NS
    return node_flops(node) / rate


def _is_grouped(node: Node) -> bool:
    return op_name(node).startswith("conv2d") and bool(node.args[-1] != 1)


def _pooling(node: Node) -> float:
    bandwidth = get_target("host").memory_bytes_per_s
    assert bandwidth is not None
    return node_flops(node) / _STENCIL_FLOPS_PER_NS + node_bytes(node) / bandwidth * 1e9


def _elementwise(node: Node) -> float:
    name = op_name(node)
    if name == "uniform":
        return type_of(node).size * _DRAW_NS
    each = _ELEMENTARY_NS if name in _ELEMENTARY else _CHEAP_NS
    return type_of(node).size * each


def _reduction(node: Node) -> float:
    return _most_elements(node) * _REDUCE_NS


def _most_elements(node: Node) -> int:
    return max(type_of(each).size for each in (node, *node.all_input_nodes))


_RULES: dict[Kind, Callable[[Node], float]] = {
    Kind.MAP: _elementwise,
    Kind.VIEW: lambda _: 0.0,
    Kind.MOVE: lambda node: _most_elements(node) * _MOVE_NS,
    Kind.REDUCE: _reduction,
    Kind.CONTRACT: _contraction,
    Kind.STENCIL: _pooling,
    Kind.INDEX: lambda node: type_of(node).size * _MOVE_NS,
}
