"""Values of a group at a place: expressions for what is computed, loads for what is stored."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch.fx import Node
from tvm import tirx

from pockengine.ir.access import access
from pockengine.ir.graph import kind_of, op_name, type_of
from pockengine.ir.ops import Kind
from pockengine.ir.types import DType
from pockengine.ir.verify import base_of
from pockengine.lower import elementwise
from pockengine.lower.draws import uniform
from pockengine.lower.nest import (
    Buffer,
    Expr,
    Stmt,
    allocate,
    block,
    bound,
    const,
    held,
    load,
    local,
    prefetch,
    serial,
    splat,
    store,
    when,
)
from pockengine.lower.reductions import Reduction


@dataclass(frozen=True, slots=True, eq=False)
class Index:
    """A place in a value: one int64 expression an axis; ``lanes`` neighbours along ``axis``.

    Compared by identity: values are computed once for each index object.
    """

    place: tuple[Expr, ...]
    axis: int | None = None
    lanes: int = 1


Copies = Mapping[Node, tuple[Buffer, Expr]]
"""Where operands have been copied to: for each the copy, and the element of the place at hand."""


class LaneError(Exception):
    """A vector would straddle a row: the kernel has to go element by element."""


class Values:
    """Computes values of a group inside one straight piece of code.

    Args:
        buffers: flat buffer of each stored value that the kernel reads or writes.
        inside: the nodes that the group computes.
        fixed: values that are already known here, one scalar each (a row's reductions).
        inline: yield whole expressions instead of binding their parts to variables.
        copies: operands of this code's one place that are read elsewhere.

    Raises:
        LaneError: from ``value``, where neighbouring lanes are not neighbours in what they read.
    """

    def __init__(
        self,
        buffers: Mapping[Node, Buffer],
        inside: frozenset[Node],
        fixed: Mapping[Node, Expr] | None = None,
        *,
        inline: bool = False,
        copies: Copies | None = None,
    ) -> None:
        self.buffers = buffers
        self.inside = inside
        self.fixed = dict(fixed or {})
        self.inline = inline
        self.copies = copies or {}
        self.vectors: dict[Node, Expr] = {}
        self.statements: list[Stmt] = []
        self._memo: dict[tuple[object, int], tuple[Index, Any]] = {}

    def value(self, node: Node, index: Index) -> Expr:
        """The element (or ``index.lanes`` of them) of a node at a place."""
        base = base_of(node)
        if base in self.fixed:
            return splat(self.fixed[base], index.lanes)
        if base in self.vectors:
            return self.vectors[base]
        if base not in self.inside:
            return self._once(node, index, lambda: self._load(node, index))
        if kind_of(node) is Kind.VIEW:
            source = node.args[0]
            assert isinstance(source, Node)
            return self.value(source, self._through(node, index))
        return self._once(node, index, lambda: self._compute(node, index))

    def known(self, node: Node, value: Expr) -> None:
        """State the value of a node at the one place that this code is about."""
        self.vectors[node] = self._bind(value)

    def elsewhere(self, shape: tuple[int, ...], other: Node, index: Index) -> Index:
        """The place in ``other`` with the row-major number of a place in a shape."""
        have = type_of(other).shape
        if have == shape:
            return index
        return self._derived(
            ("elsewhere", have, shape),
            index,
            lambda: _reshaped(have, shape, index, self._bind_place),
        )

    def flushed(self, *last: Stmt) -> Stmt:
        """What was bound so far, then the statements."""
        body = block(*self.statements, *last)
        self.statements.clear()
        return body

    def store(self, node: Node, index: Index, value: Expr) -> Stmt:
        """Write a value to where a stored node (or an update's target) keeps its elements."""
        target = node.args[0] if op_name(node) == "update" else node
        assert isinstance(target, Node)
        found = access(target)
        assert found is not None
        value = stored_form(value, type_of(node).dtype, index.lanes)
        return tirx.BufferStore(self.buffers[found.base], value, [_offset(found, target, index)])

    def stores(self, nodes: Sequence[Node], shape: tuple[int, ...], index: Index) -> list[Stmt]:
        """Compute stored nodes, and write them to where they are kept.

        What a kernel leaves as it is unless a flag is set, it neither reads nor writes without.

        Args:
            nodes: what is stored.
            shape: that the place is of; see ``elsewhere``.
            index: the place.
        """
        flag, flagged = self._flagged(nodes)
        always = [node for node in nodes if node not in flagged]
        written = [self._stored(node, self.elsewhere(shape, node, index)) for node in always]
        if flag is None:
            return written
        condition = self.value(flag, Index(()))
        statements, memo = self.statements, dict(self._memo)
        self.statements = []
        some = [self._updated(node, self.elsewhere(shape, node, index)) for node in flagged]
        body = block(*self.statements, *some)
        self.statements, self._memo = statements, memo
        return [when(condition, body), *written]

    def _stored(self, node: Node, there: Index) -> Stmt:
        return self.store(node, there, self.value(node, there))

    def _updated(self, update: Node, there: Index) -> Stmt:
        """An update whose flag is set."""
        where: Any = update.args[1]
        value = self._operand(where.args[1], where, there, _operand_dtype(where))
        return self.store(update, there, value)

    def _flagged(self, nodes: Sequence[Node]) -> tuple[Node | None, list[Node]]:
        """The one flag that updates hang on, and these."""
        flags = {node: flag for node in nodes if (flag := self._flag(node)) is not None}
        if len(set(flags.values())) != 1:
            return None, []
        return next(iter(flags.values())), list(flags)

    def _flag(self, update: Node) -> Node | None:
        """The flag without which an update writes what is there already."""
        value = update.args[1] if op_name(update) == "update" else None
        if not isinstance(value, Node) or value not in self.inside or op_name(value) != "where":
            return None
        flag, _, other = value.args
        alone = len(value.users) == 1 and other is update.args[0]
        return flag if alone and isinstance(flag, Node) and not type_of(flag).shape else None

    def prefetches(self, places: Iterable[tuple[Node, Index]]) -> list[Stmt]:
        """Prefetches of what ``value`` will load of nodes, and of those that are stored.

        Elementwise ops and views are followed; values that all lanes share are left out.
        """
        places = list(places)
        found: dict[Node, Stmt] = {}
        flag, flagged = self._flagged([node for node, _ in places])
        for node, index in places:
            if node not in flagged:
                self._prefetch(node, index, found)
        always = list(found.values())
        for node, index in places:
            if node in flagged:
                self._prefetch(node, index, found)
        some = list(found.values())[len(always) :]
        if flag is None or not some:
            return always
        return [*always, when(self.value(flag, Index(())), block(*some))]

    def _prefetch(self, node: Node, index: Index, found: dict[Node, Stmt]) -> None:
        base = base_of(node)
        if base in found or base in self.fixed:
            return
        if base in self.buffers:
            place = access(node)
            assert place is not None
            if _lane_stride(place.strides, node, index):
                scalar = Index(index.place)
                found[base] = prefetch(self.buffers[place.base], _offset(place, node, scalar))
        if base not in self.inside or base in self.vectors:
            return
        if kind_of(node) is Kind.VIEW:
            index = self._through(node, index)
        elif kind_of(node) not in (Kind.MAP, Kind.UPDATE):
            return
        for operand in node.all_input_nodes:
            there = self._broadcast(operand, node, index) if kind_of(node) is Kind.MAP else index
            self._prefetch(operand, there, found)

    def _bind(self, value: Expr) -> Expr:
        if self.inline:
            return value
        if isinstance(value, (tirx.Var, tirx.IntImm, tirx.FloatImm)):
            return value
        if str(value.ty.dtype).startswith("bool"):
            return value  # TVM's analyzer rejects a bound vector of booleans
        made, variable = held("v", value)
        self.statements += made
        return variable

    def _bind_place(self, value: Expr) -> Expr:
        if self.inline or isinstance(value, (tirx.Var, tirx.IntImm)):
            return value
        variable, statement = bound("at", value)
        self.statements.append(statement)
        return variable

    def _once(self, key: object, index: Index, make: Callable[[], Expr]) -> Expr:
        found = self._memo.get((key, id(index)))
        if found is None:
            found = (index, self._bind(make()))
            self._memo[key, id(index)] = found
        return found[1]

    def _load(self, node: Node, index: Index) -> Expr:
        if node in self.copies:
            copy, at = self.copies[node]
            return load(copy, at, index.lanes)
        found = access(node)
        assert found is not None
        stride = _lane_stride(found.strides, node, index)
        offset = _offset(found, node, index, stride)
        loaded = tirx.BufferLoad(self.buffers[found.base], [offset])
        lanes = index.lanes if stride else 1
        if type_of(node).dtype is DType.BOOL:
            zero = tirx.IntImm("uint8", 0)
            loaded = tirx.Not(tirx.EQ(loaded, splat(zero, lanes)))
        return splat(loaded, index.lanes) if not stride else loaded

    def _compute(self, node: Node, index: Index) -> Expr:
        name = op_name(node)
        special = getattr(self, f"_{name}", None)
        if special is not None:
            return special(node, index)
        operands = list(node.args)
        dtype = _operand_dtype(node)
        kinds = [DType.BOOL, dtype, dtype] if name == "where" else [dtype] * len(operands)
        values = [
            self._operand(operand, node, index, kind)
            for operand, kind in zip(operands, kinds, strict=True)
        ]
        return elementwise.apply(name, values, dtype)

    def _operand(self, operand: Any, node: Node, index: Index, dtype: DType) -> Expr:
        if not isinstance(operand, Node):
            return elementwise.constant(operand, dtype, index.lanes)
        value = self.value(operand, self._broadcast(operand, node, index))
        return elementwise.convert(value, type_of(operand).dtype, dtype, index.lanes)

    def _broadcast(self, operand: Node, node: Node, index: Index) -> Index:
        """The place in an operand that a place in the result reads."""
        have, want = type_of(operand).shape, type_of(node).shape
        if have == want:
            return index

        def make() -> Index:
            skip = len(want) - len(have)
            place = tuple(
                const(0) if extent == 1 else index.place[axis + skip]
                for axis, extent in enumerate(have)
            )
            axis = None if index.axis is None else index.axis - skip
            on = axis is not None and axis >= 0 and have[axis] > 1
            return Index(place, axis if on else None, index.lanes)

        return self._derived(("broadcast", have, want), index, make)

    def _derived(self, key: object, index: Index, make: Callable[[], Index]) -> Index:
        found = self._memo.get((key, id(index)))
        if found is None:
            found = (index, make())
            self._memo[key, id(index)] = found
        result = found[1]
        assert isinstance(result, Index)
        return result

    def _through(self, view: Node, index: Index) -> Index:
        """The place in a view's source that a place in the view shows."""
        return self._derived(view, index, lambda: _through(view, index, self._bind_place))

    # --- ops that are not elementwise ------------------------------------------------------------

    def _full(self, node: Node, index: Index) -> Expr:
        value: Any = node.args[1]
        return elementwise.constant(value, type_of(node).dtype, index.lanes)

    def _iota(self, node: Node, index: Index) -> Expr:
        axis: Any = node.args[1]
        place = index.place[axis]
        if index.axis == axis and index.lanes > 1:
            return tirx.Ramp(place, const(1), index.lanes)
        return splat(place, index.lanes)

    def _uniform(self, node: Node, index: Index) -> Expr:
        seed, step = (self.value(operand, Index(())) for operand in node.all_input_nodes)
        shape = type_of(node).shape
        element: Expr = splat(const(0), index.lanes)
        for axis, (place, extent) in enumerate(zip(index.place, shape, strict=True)):
            if index.lanes > 1 and axis == index.axis:
                place = tirx.Ramp(place, const(1), index.lanes)  # noqa: PLW2901
            else:
                place = splat(place, index.lanes)  # noqa: PLW2901
            element = element * splat(const(extent), index.lanes) + place
        stream: Any = node.args[3]
        if self.inline:
            raise NotImplementedError("random numbers have no expression without statements")
        return uniform(self._bind(element), seed, step, stream, index.lanes, self._bind)

    def _cast(self, node: Node, index: Index) -> Expr:
        source = node.args[0]
        assert isinstance(source, Node)
        value = self.value(source, index)
        return elementwise.convert(value, type_of(source).dtype, type_of(node).dtype, index.lanes)

    def _update(self, node: Node, index: Index) -> Expr:
        value = node.args[1]
        assert isinstance(value, Node)
        return self.value(value, index)

    def _pad(self, node: Node, index: Index) -> Expr:
        source: Any = node.args[0]
        low: Any = node.args[1]
        fill: Any = node.args[3]
        shape = type_of(source).shape
        inside: Expr = tirx.IntImm("bool", 1)
        place = []
        for axis, extent in enumerate(shape):
            at = index.place[axis]
            if extent != type_of(node).shape[axis]:
                if axis == index.axis and index.lanes > 1:
                    raise LaneError
                at = at - const(low[axis])
                inside = tirx.And(inside, tirx.And(at >= const(0), at < const(extent)))
                at = self._bind_place(tirx.max(tirx.min(at, const(extent - 1)), const(0)))
            place.append(at)
        value = self.value(source, Index(tuple(place), index.axis, index.lanes))
        other = elementwise.constant(fill, type_of(node).dtype, index.lanes)
        return tirx.Select(splat(inside, index.lanes), value, other)

    def _take_rows(self, node: Node, index: Index) -> Expr:
        table: Any = node.args[0]
        rows: Any = node.args[1]
        if index.axis is not None and index.axis < len(index.place) - 1 and index.lanes > 1:
            return self._take_apart(node, index)
        row = self.value(rows, Index(index.place[:-1]))
        row = self._bind(tirx.Cast("int64", row))
        axis = 1 if index.axis == len(index.place) - 1 else None
        return self.value(table, Index((row, index.place[-1]), axis, index.lanes))

    def _take_apart(self, node: Node, index: Index) -> Expr:
        """Elements of one column of a table, each lane from a row of its own."""
        table: Any = node.args[0]
        rows: Any = node.args[1]
        found = access(table)
        if found is None or found.base in self.inside:
            raise LaneError
        row = self.value(rows, Index(index.place[:-1], index.axis, index.lanes))
        kind = f"int64x{index.lanes}"
        column = index.place[-1] * const(found.strides[1]) + const(found.offset)
        step = splat(const(found.strides[0]), index.lanes)
        offset = tirx.Cast(kind, row) * step + splat(column, index.lanes)
        loaded = tirx.BufferLoad(self.buffers[found.base], [offset])
        if type_of(node).dtype is DType.BOOL:
            return tirx.Not(tirx.EQ(loaded, splat(tirx.IntImm("uint8", 0), index.lanes)))
        return loaded

    def _sum_rows(self, node: Node, index: Index) -> Expr:
        """The rows of one place, reduced in a register; of neighbouring places one by one."""
        rows: Any = node.args[0]
        inverse: Any = node.args[1]
        count, width = type_of(node).shape
        apart = index.lanes if index.axis == 0 else 1
        lanes = index.lanes if index.axis == 1 else 1
        reduction = Reduction(node)
        total = local("total", apart, lanes, elementwise.COMPUTE[reduction.dtype])
        by_place = (type_of(inverse).size - 1 - count, width)

        def add(lane: Expr, place: Expr) -> Stmt:
            terms = Values(self.buffers, self.inside)
            number = tirx.Cast("int64", terms.value(inverse, Index((place + const(count + 1),))))
            at = Index((number, index.place[1]), index.axis if lanes > 1 else None, lanes)
            there = _reshaped(type_of(rows).shape, by_place, at, terms._bind_place)
            value = reduction.combine(load(total, lane), terms.value(rows, there))
            return terms.flushed(store(total, lane, value))

        def row(lane: Expr) -> Stmt:
            values = Values(self.buffers, self.inside)
            first, last = values._starts(inverse, index.place[0] + lane, 1)
            start = store(total, lane, reduction.neutral(lanes))
            return values.flushed(start, serial("p", last - first, lambda p: add(lane, p), first))

        sums = serial("lane", apart, row)
        if apart > 1:  # most neighbours of a large table have no place at all
            none = store(total, const(0), reduction.neutral(apart), apart)
            sums = tirx.IfThenElse(
                tirx.EQ(*self._starts(inverse, index.place[0], apart)), none, sums
            )
        self.statements += [allocate(total), sums]
        value = load(total, const(0), apart)
        return value if index.axis is not None else splat(value, index.lanes)

    _max_rows = _sum_rows

    def _starts(self, inverse: Node, row: Expr, rows: int) -> tuple[Expr, Expr]:
        """Where the places of some rows begin and end in an inverted index."""
        first, last = (self.value(inverse, Index((row + const(step),))) for step in (0, rows))
        return self._bind(tirx.Cast("int64", first)), self._bind(tirx.Cast("int64", last))

    def _unpack_bits(self, node: Node, index: Index) -> Expr:
        packed: Any = node.args[0]
        axis: Any = node.args[1]
        along = index.axis == axis and index.lanes > 1
        octet = self._bind_place(tirx.truncdiv(index.place[axis], const(8)))
        shift = splat(tirx.Cast("int32", tirx.truncmod(index.place[axis], const(8))), index.lanes)

        def byte(step: int, lane_axis: int | None, lanes: int) -> Expr:
            place = (*index.place[:axis], octet + const(step), *index.place[axis + 1 :])
            kind = "int32" if lanes == 1 else f"int32x{lanes}"
            return tirx.Cast(kind, self.value(packed, Index(place, lane_axis, lanes)))

        if along:
            word: Expr = byte(0, None, 1)
            for step in range(1, index.lanes // 8):
                word = word | (byte(step, None, 1) << _int32(8 * step))
            shift = shift + tirx.Ramp(_int32(0), _int32(1), index.lanes)
            word = splat(self._bind(word), index.lanes)
        else:
            word = byte(0, None if index.axis == axis else index.axis, index.lanes)
        one = splat(_int32(1), index.lanes)
        return tirx.EQ((word >> shift) & one, one)


def _int32(value: int) -> Expr:
    return tirx.IntImm("int32", value)


def stored_form(value: Expr, dtype: DType, lanes: int) -> Expr:
    """A value as it lies in memory: booleans as one byte."""
    if dtype is not DType.BOOL:
        return value
    one, zero = (splat(tirx.IntImm("uint8", bit), lanes) for bit in (1, 0))
    return tirx.Select(value, one, zero)


def _operand_dtype(node: Node) -> DType:
    """The dtype in which an elementwise op works: its tensor operands', or its result's."""
    kinds = [type_of(o).dtype for o in node.all_input_nodes]
    if op_name(node) in ("eq", "ne", "lt", "le", "gt", "ge", "logical_not"):
        return kinds[0]
    return type_of(node).dtype


def _lane_stride(strides: tuple[int, ...], node: Node, index: Index) -> int:
    if index.lanes == 1 or index.axis is None or type_of(node).shape[index.axis] == 1:
        return 0
    return strides[index.axis]


def _offset(found: Any, node: Node, index: Index, stride: int | None = None) -> Expr:
    total = const(found.offset)
    for place, step, extent in zip(index.place, found.strides, type_of(node).shape, strict=True):
        if step and extent > 1:
            total = total + place * const(step)
    if stride is None:
        stride = _lane_stride(found.strides, node, index)
    return total if not stride or index.lanes == 1 else tirx.Ramp(total, const(stride), index.lanes)


def _through(view: Node, index: Index, bind: Callable[[Expr], Expr]) -> Index:
    source: Any = view.args[0]
    shape = type_of(source).shape
    name = op_name(view)
    if name == "permute":
        order: Any = view.args[1]
        place = [const(0)] * len(shape)
        for axis, origin in enumerate(order):
            place[origin] = index.place[axis]
        moved = None if index.axis is None else order[index.axis]
        return Index(tuple(place), moved, index.lanes)
    if name == "slice":
        along: Any = view.args[1]
        start: Any = view.args[2]
        step: Any = view.args[4] if len(view.args) > 4 else 1
        assert step == 1 or index.axis != along
        at = index.place[along] * const(step) + const(start)
        place = [at if i == along else p for i, p in enumerate(index.place)]
        return Index(tuple(place), index.axis, index.lanes)
    if name == "expand":
        place = [const(0) if e == 1 else p for e, p in zip(shape, index.place, strict=True)]
        on = index.axis is not None and shape[index.axis] > 1
        return Index(tuple(place), index.axis if on else None, index.lanes)
    return _reshaped(shape, type_of(view).shape, index, bind)


def _reshaped(
    source: tuple[int, ...], shown: tuple[int, ...], index: Index, bind: Callable[[Expr], Expr]
) -> Index:
    """Row-major places are the same number in both shapes; axes of extent 1 have none."""
    real = [axis for axis, extent in enumerate(source) if extent > 1]
    left = [axis for axis, extent in enumerate(shown) if extent > 1]
    place = [const(0)] * len(source)
    lane = None
    while real and left and source[real[-1]] == shown[left[-1]]:
        axis, origin = real.pop(), left.pop()
        place[axis] = index.place[origin]
        lane = axis if index.axis == origin else lane
    rest = const(0)
    for origin in left:
        rest = rest * const(shown[origin]) + index.place[origin]
    if index.lanes > 1 and index.axis in left:
        inner = min(source[real[-1]], shown[left[-1]])
        if index.axis != left[-1] or inner % index.lanes:
            raise LaneError
        lane = real[-1]
    rest = bind(rest)
    for axis in reversed(real):
        place[axis] = bind(tirx.truncmod(rest, const(source[axis]))) if axis != real[0] else rest
        rest = bind(tirx.truncdiv(rest, const(source[axis]))) if axis != real[0] else rest
    return Index(tuple(place), lane, index.lanes)
