"""Apply small value-preserving rules until none applies."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from torch.fx import Graph, Node

from pockengine.ir.graph import Argument, infer, kind_of, op_name, rebuild, type_of
from pockengine.ir.ops import OPS, Kind
from pockengine.ir.types import TensorType
from pockengine.passes.rewriter import Rewriter
from pockengine.passes.simplify_rules import RULES
from pockengine.passes.simplify_rules.empty import without_elements


def simplify(graph: Graph) -> Graph:
    """Merge equal calls and rewrite by ``simplify_rules`` to a fixed point.

    A rule never changes a shape or a dtype, and a value only by float reassociation and the sign of
    zero; NaN stays NaN. Calls whose results already have a storage order are left as they are.

    before::

        %z: f32[2x4] = input('z')
        %low: f32[2x4] = maximum(%z, 0)
        %y: f32[2x4] = minimum(%low, 6)
        %one: f32[] = full((), 1.0, 'f32')
        %n: f32[2x1] = input('n')
        %dy: f32[2x1] = div(%one, %n)
        %wide: f32[2x4] = expand(%dy, (2, 4))
        %mean: f32[2x4] = div(%wide, 8.0)
        %le: bool[2x4] = le(%z, 0)
        %ge: bool[2x4] = ge(%z, 6)
        %mask: bool[2x4] = logical_or(%le, %ge)
        %zero: f32[] = full((), 0.0, 'f32')
        %dz: f32[2x4] = where(%mask, %zero, %mean)
        return loss=None, outputs=(%y,), gradients={'z': %dz}, updates=()

    after::

        %z: f32[2x4] = input('z')
        %maximum: f32[2x4] = maximum(%z, 0.0)
        %minimum: f32[2x4] = minimum(%maximum, 6.0)
        %n: f32[2x1] = input('n')
        %div: f32[2x1] = div(1.0, %n)
        %mul: f32[2x1] = mul(%div, 0.125)
        %le: bool[2x4] = le(%minimum, 0.0)
        %ge: bool[2x4] = ge(%minimum, 6.0)
        %mask: bool[2x4] = logical_or(%le, %ge)
        %where: f32[2x4] = where(%mask, 0.0, %mul)
        return loss=None, outputs=(%minimum,), gradients={'z': %where}, updates=()
    """
    while True:
        sweep = _Sweep()
        graph = rebuild(graph, sweep.visit)
        if not sweep.changed:
            return graph


class _Sweep(Rewriter):
    """One walk over the graph: a call's arguments are rewritten when it is met."""

    def __init__(self) -> None:
        super().__init__()
        self.changed = False
        self._uses: Counter[Node] = Counter()

    def visit(self, graph: Graph, node: Node, moved: Callable[[Argument], Argument]) -> Node | None:
        """The visit of ``rebuild``."""
        self.at(graph, node)
        if type_of(node).order or kind_of(node) is Kind.UPDATE:
            return None
        args, kwargs = moved(node.args), moved(node.kwargs)
        made = None if kwargs else self._rewritten(op_name(node), args, type_of(node))
        made = made or self.find(op_name(node), args, kwargs)
        self.changed |= made is not None
        made = made or self.keep(node, moved)
        self._uses[made] += len(node.users)
        return made

    def emit(self, op: str, *args: Argument) -> Node:
        """A call of an op, rewritten like one that was there."""
        made = self._rewritten(op, args, infer(OPS[op], args, {}))
        return super().emit(op, *args) if made is None else made

    def is_read_once(self, node: Node) -> bool:
        """Whether one call reads a value; no for values that this walk made."""
        return self._uses[node] == 1

    def _rewritten(self, op: str, args: tuple[Argument, ...], wanted: TensorType) -> Node | None:
        empty = without_elements(self, op, args, wanted)
        if empty is not None:
            return empty
        for rule in RULES.get(op, ()):
            made = rule(self, *args)
            if made is not None and _plain(type_of(made)) == _plain(wanted):
                return made
        return None


def _plain(found: TensorType) -> TensorType:
    return TensorType(found.shape, found.dtype)
