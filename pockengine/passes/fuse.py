"""Gather ops into groups, each of which becomes one kernel."""

from __future__ import annotations

from collections.abc import Iterable
from math import prod

from torch.fx import Graph, Node

from pockengine.ir.forward import forward_values
from pockengine.ir.graph import (
    calls,
    is_op,
    kind_of,
    op_name,
    outputs_of,
    rebuild,
    set_group,
    type_of,
)
from pockengine.ir.ops import ALONE, Kind
from pockengine.ir.verify import base_of
from pockengine.passes.kernel_groups import (
    Group,
    adds_up_columns,
    adds_up_gradient,
    form,
    in_place,
    is_row_major,
    is_row_reduction,
    is_weight_side,
    keeps_place,
    order_agrees,
    readers_of,
    row_axes,
    same_columns,
    same_walk,
    source_of,
)
from pockengine.passes.summed_products import first_terms

MOST_OPERANDS = 24  # of a group, which leaves room below the runtime's 32
MOST_NODES = 48  # of a group: its code is unrolled, and its values live in registers
_POINTWISE = (Kind.MAP, Kind.UPDATE)
_CAN_WAIT = ("unpack_bits", "take_rows", "sum_rows", "max_rows")  # besides elementwise ops


def fuse(graph: Graph) -> Graph:
    """Number every stored or computed node with its group, and bring groups together in the order.

    An elementwise op joins the group of the latest producer whose loops visit its elements: the
    tail of a contraction, a map, or rows that share a reduction (softmax and layer normalization
    become one group). One without such a producer waits and joins its first reader's group; a map
    joins a group that reads it. Values that only feed a column reduction, or only the weight side
    of a contraction, are computed inside it; column reductions of one value become one group; two
    matmuls of which only the sum is read are summed up in one; sums over the columns of a weight
    gradient, or over those of the gradient that it reads, join its contraction. An update waits for
    every other reader of its target, and joins only those that read of it the element that they are
    about to overwrite. Views have no group: they are ways to read.

    Not fused: inverted indices, bit packing and concatenation stand alone; the backward pass does
    not join groups of the forward pass, for it would keep more than ``choose_saved`` chose; what
    row reductions read does not join a contraction whose result is stored anyway; an op whose
    joining would make two groups wait for each other.

    Source: PockEngine, section 3 (operator fusion); the acyclicity test is the classical one.
    """
    return _Builder(graph).result()


class _Builder:
    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.group: dict[Node, Group] = {}
        self.groups: list[Group] = []
        self.forward = forward_values(graph)
        self.readers = readers_of(graph)
        self.yielded = {base_of(node) for node in outputs_of(graph).nodes}
        self.row_bound = self._row_bound()
        self.partners = first_terms(graph, self.readers, self.forward)
        self.delayed = self._delayed() | self.partners.keys()
        self.waiting: dict[Node, None] = {}
        for node in calls(graph):
            if kind_of(node) is Kind.VIEW or node in self.delayed:
                continue
            if self._can_wait(node) and not self._producers(node) and self._is_room(node):
                self.waiting[node] = None
            else:
                self.place(node)
        while self.waiting:
            self.place(next(reversed(self.waiting)))
        for group in reversed(list(self.groups)):
            self._absorb(group)
        for group in list(self.groups):
            self._join_gradient(group)

    def _row_bound(self) -> set[Node]:
        """Nodes that row reductions read, directly or through elementwise ops of the same shape."""
        found: set[Node] = set()
        for node in reversed(list(calls(self.graph))):
            for reader in self.readers[node]:
                alike = kind_of(reader) is Kind.MAP and type_of(reader).shape == type_of(node).shape
                if is_row_reduction(reader) or (alike and reader in found):
                    found.add(node)
        return found

    # --- nodes that are computed inside their one reader -----------------------------------------

    def _delayed(self) -> set[Node]:
        found: set[Node] = set()
        for node in reversed(list(calls(self.graph))):
            if kind_of(node) is not Kind.MAP or node in self.yielded or self._is_tail(node):
                continue
            readers = self.readers[node]
            if len(readers) != 1 or (op_name(node) == "uniform" and self._feeds(node, found)):
                continue
            if self._takes(readers[0], node, found):
                found.add(node)
        return found

    def _feeds(self, node: Node, delayed: set[Node]) -> bool:
        """Whether what is computed inside its one reader ends up inside a contraction."""
        reader = self.readers[node][0]
        while reader in delayed:
            reader = self.readers[reader][0]
        return kind_of(reader) is Kind.CONTRACT

    def _takes(self, reader: Node, node: Node, delayed: set[Node]) -> bool:
        if reader in delayed:
            # the chain stays on one domain: a broadcast operand would be computed again and again
            same = type_of(node).shape == type_of(reader).shape
            return same and node in reader.all_input_nodes
        if kind_of(reader) is Kind.CONTRACT:
            return is_weight_side(reader, node) and self._reads_little(node)
        if kind_of(reader) is Kind.REDUCE:
            return not is_row_reduction(reader) and reader.args[0] is node
        return op_name(reader) == "pack_bits"

    def _is_tail(self, node: Node) -> bool:
        """Whether a node ends a contraction that nothing else reads: computed there at no cost."""
        return any(
            self.readers[base] == [node]
            and (kind_of(base) is Kind.CONTRACT or self._is_tail(base))
            and type_of(base).size == type_of(node).size
            for base in map(base_of, node.all_input_nodes)
            if base not in self.yielded
        )

    def _reads_little(self, node: Node) -> bool:
        """Whether a node reads no more than it makes."""
        size = type_of(node).size
        return sum(type_of(operand).size >= size for operand in node.all_input_nodes) <= 1

    # --- nodes that wait for a reader ------------------------------------------------------------

    def _can_wait(self, node: Node) -> bool:
        return kind_of(node) is Kind.MAP or op_name(node) in _CAN_WAIT

    def _comes_along(self, operand: Node, reader: Node) -> bool:
        """Whether a waiting operand can be computed in its reader's group."""
        base = base_of(operand)
        if (base in self.forward) != (reader in self.forward):
            return False
        if is_row_reduction(reader):
            return keeps_place(operand)
        if kind_of(reader) not in _POINTWISE:
            return False
        if in_place(operand, reader):
            return type_of(base).order == type_of(reader).order
        groups = [self.group.get(base_of(other)) for other in reader.all_input_nodes]
        return any(g is not None and g.reads_own_row(operand, reader) for g in groups)

    def _left_behind(self, node: Node) -> Node | None:
        """A waiting node that the node needs, but cannot take along."""
        stack, seen = [node], {node}
        while stack:
            reader = stack.pop()
            for operand in reader.all_input_nodes:
                base = base_of(operand)
                waits = base in self.waiting
                if waits and (reader in self.delayed or not self._comes_along(operand, reader)):
                    return base
                if (waits or base in self.delayed) and base not in seen:
                    seen.add(base)
                    stack.append(base)
        return None

    def _taken(self, node: Node) -> list[Node]:
        """The node after the delayed and waiting ones that come with it, in topological order."""
        found: dict[Node, None] = {}
        stack = [(node, False)]
        while stack:
            reader, entered = stack.pop()
            if entered:
                found.setdefault(reader)
            elif reader not in found:
                stack.append((reader, True))
                bases = [base_of(operand) for operand in reader.all_input_nodes]
                comes = [b for b in bases if b in self.delayed or b in self.waiting]
                stack += [(base, False) for base in reversed(comes)]
        return list(found)

    def _is_room(self, node: Node) -> bool:
        """Whether a kernel of a node and its company stays within its bounds."""
        return self._is_small(self._taken(node))

    # --- groups ----------------------------------------------------------------------------------

    def place(self, node: Node) -> None:
        """Put a node, and what it takes along, into a group."""
        producers = self._producers(node)
        self._settle(node)
        taken = self._taken(node)
        needs = self._needs(taken)
        guests = [n for n in taken[:-1] if n in self.waiting]
        hosts = [*producers, *self._hosts(guests, node)]
        group = next((g for g in hosts if self._fits(g, taken, needs)), None)
        alike = self._share_domain(guests, node) and self._is_small(taken)
        inside = group.nodes if group else ()
        alone = [n for n in taken[:-1] if n in self.partners and self.partners[n] not in inside]
        if alone:
            self.delayed.remove(alone[0])  # it would come without what it is summed up with
            del self.partners[alone[0]]
            self.place(alone[0])
            self.place(node)
            return
        if group is None and guests and (producers or not alike):
            self.place(guests[-1])  # without it, the node may fit
            self.place(node)
            return
        if group is None:
            group = Group(len(self.groups), node in self.forward, *form(node))
            self.groups.append(group)
        elif group.form == "map" and kind_of(node) is Kind.REDUCE:
            group.form, group.row_axes = "rows", row_axes(node)
        elif group.form == "contract" and kind_of(node) is Kind.REDUCE:
            group.columns = type_of(node).size
            self.delayed.difference_update(taken)  # they are computed where the sums are
        group.nodes += taken
        for member in taken:
            self.group[member] = group
            self.waiting.pop(member, None)
        self._order(group, needs - {group})

    def _settle(self, node: Node) -> None:
        """Place what waits and cannot come along; ahead of an update, all readers of its target."""
        while (left := self._left_behind(node)) is not None:
            self.place(left)
        if kind_of(node) is Kind.UPDATE:
            for reader in self.readers[base_of(node.args[0])]:
                together = reader in self._taken(node) and self._reads_in_step([node, reader])
                if reader in self.waiting and not together:
                    self.place(reader)

    def _needs(self, taken: list[Node]) -> set[Group]:
        operands = {base_of(o) for n in taken for o in n.all_input_nodes} - set(taken)
        if kind_of(taken[-1]) is Kind.UPDATE:
            operands.update(self.readers[base_of(taken[-1].args[0])])
        return {self.group[operand] for operand in operands if operand in self.group}

    def _producers(self, node: Node) -> list[Group]:
        """The groups that a node can join for what it reads, the best first."""
        bases = {base_of(operand) for operand in node.all_input_nodes}
        groups = {self.group[base] for base in bases if base in self.group}
        if kind_of(node) is Kind.REDUCE and not is_row_reduction(node):
            groups = self._companions(node) | self._makers(node)
        found = [g for g in groups if self._accepts(g, node)]
        if node not in self.waiting:  # it still may wait for the rows that read it
            found = [g for g in found if not self._is_better_in_rows(g, node, bases)]
        return sorted(found, key=lambda g: (g.form == "contract", g.index), reverse=True)

    def _hosts(self, guests: list[Node], node: Node) -> list[Group]:
        """The groups that compute what a node's waiting company reads, and accept the node."""
        bases = {base_of(operand) for guest in guests for operand in guest.all_input_nodes}
        found = {self.group[base] for base in bases if base in self.group}
        return sorted((g for g in found if self._accepts(g, node)), key=lambda g: -g.index)

    def _companions(self, node: Node) -> set[Group]:
        """The groups of other column reductions of what a column reduction reads.

        Not those that make some of it: one walk over the columns cannot read its own sums. Nor
        those that wait for the parts of a whole which this one does not read: it may be needed for
        these parts.
        """
        operands = {base_of(o) for n in self._taken(node) for o in n.all_input_nodes}
        joined = {operand for operand in operands if is_op(operand, "cat")}
        rivals = {r for operand in operands for r in self.readers[operand]}
        rivals |= {r for rival in rivals & self.delayed for r in self.readers[rival]}
        return {
            self.group[r]
            for r in rivals
            if r in self.group
            and kind_of(r) is Kind.REDUCE
            and same_columns(r, node)
            and self._joined(self.group[r]) == joined
        } - {self.group.get(operand) for operand in operands}

    def _joined(self, group: Group) -> set[Node]:
        """The concatenations that a group reads."""
        bases = {base_of(operand) for node in group.nodes for operand in node.all_input_nodes}
        return {base for base in bases if is_op(base, "cat")}

    def _makers(self, node: Node) -> set[Group]:
        """The groups of contractions that make some of what a column reduction reads."""
        operands = {base_of(o) for n in self._taken(node) for o in n.all_input_nodes}
        found = {self.group[operand] for operand in operands if operand in self.group}
        return {group for group in found if group.form == "contract"}

    def _is_better_in_rows(self, group: Group, node: Node, bases: set[Node]) -> bool:
        """Whether a node would only be stored beside a contraction's result, for rows to read."""
        if group.form not in ("contract", "stencil") or node not in self.row_bound:
            return False
        return any(self.group.get(b) is group and self._is_stored_anyway(b) for b in bases)

    def _is_stored_anyway(self, node: Node) -> bool:
        forward = node in self.forward
        return node in self.yielded or any(
            kind_of(r) is not Kind.MAP or (r in self.forward) != forward for r in self.readers[node]
        )

    def _share_domain(self, guests: list[Node], node: Node) -> bool:
        domain = form(node)[1]
        return all(prod(type_of(guest).shape) == prod(domain) for guest in guests)

    def _fits(self, group: Group, taken: list[Node], needs: set[Group]) -> bool:
        """Whether a group can take a node and its company without coming to wait for itself."""
        if any(n in self.waiting and not self._accepts(group, n) for n in taken[:-1]):
            return False
        if any(group in other.before for other in needs):
            return False
        together = [*group.nodes, *taken]
        return self._reads_in_step(together) and self._is_small(together)

    def _reads_in_step(self, nodes: list[Node]) -> bool:
        """Whether a kernel reads of what it overwrites only the element that it is about to."""
        targets = {base_of(n.args[0]) for n in nodes if kind_of(n) is Kind.UPDATE}
        return not targets or all(
            self._is_in_step(node, operand)
            for node in nodes
            for operand in node.all_input_nodes
            if base_of(operand) in targets
        )

    def _is_in_step(self, node: Node, operand: Node) -> bool:
        along = kind_of(node) in _POINTWISE or is_row_reduction(node)
        return along and node not in self.delayed and keeps_place(operand)

    def _absorb(self, guest: Group) -> None:
        """Let a group that reads what a map makes do the map's work as well."""
        if guest.form != "map" or any(kind_of(n) is Kind.UPDATE for n in guest.nodes):
            return
        readers = [r for n in guest.nodes for r in self.readers[n]]
        later = {self.group[r] for r in readers} - {guest}
        for host in sorted(later, key=lambda g: g.index):
            if self._can_absorb(host, guest):
                self._join(host, guest)
                return

    def _can_absorb(self, host: Group, guest: Group) -> bool:
        """Whether the host can compute all of the guest, and nothing in between needs it."""
        if any(guest in other.before for other in host.before):
            return False
        inside = set(guest.nodes)
        reads = [(o, n) for n in host.nodes for o in n.all_input_nodes if base_of(o) in inside]
        return (
            all(self._accepts(host, node) for node in guest.nodes)
            and all(self._comes_along(operand, reader) for operand, reader in reads)
            and self._reads_in_step(guest.nodes + host.nodes)
            and self._is_small(guest.nodes + host.nodes)
        )

    def _join_gradient(self, guest: Group) -> None:
        """Let a weight gradient's contraction add up the columns of the gradient that it reads."""
        if guest.form != "reduce":
            return
        sums = [n for n in guest.nodes if kind_of(n) is Kind.REDUCE]
        readers = self.readers[base_of(source_of(sums[0]))]
        for host in {self.group[r]: None for r in readers if kind_of(r) is Kind.CONTRACT}:
            if self._adds_up(host, guest, sums) and self._can_join(host, guest):
                self._join(host, guest)
                host.columns = type_of(sums[0]).size
                return

    @staticmethod
    def _adds_up(host: Group, guest: Group, sums: list[Node]) -> bool:
        """Whether the guest is nothing but sums of the gradient, and what follows from them."""
        contractions = [n for n in host.nodes if kind_of(n) is Kind.CONTRACT]
        return (
            host.form == "contract"
            and len(contractions) == 1
            and all(adds_up_gradient(node, contractions[0]) for node in sums)
            and all(type_of(node).size == type_of(sums[0]).size for node in guest.nodes)
        )

    def _can_join(self, host: Group, guest: Group) -> bool:
        """Whether two groups can be one: no third waits for one that the other waits for."""
        first, second = (host, guest) if host in guest.before else (guest, host)
        between = any(first in other.before for other in second.before)
        inside = {*host.nodes, *guest.nodes}
        reads = [
            (o, n)
            for one, other in ((host, guest), (guest, host))
            for n in one.nodes
            for o in n.all_input_nodes
            if self.group.get(base_of(o)) is other
        ]
        columns = type_of(guest.nodes[-1]).size
        return (
            not between
            and host.forward == guest.forward
            and all(type_of(n).size == columns and in_place(o, n) for o, n in reads)
            and self._reads_in_step([*inside])
            and self._is_small([*inside])
        )

    def _join(self, host: Group, guest: Group) -> None:
        """Make one group of two."""
        host.nodes = guest.nodes + host.nodes
        self.group.update(dict.fromkeys(guest.nodes, host))
        self.groups.remove(guest)
        host.before = (host.before | guest.before) - {host, guest}
        for group in self.groups:
            if group.before & {host, guest}:
                group.before = (group.before - {guest}) | host.before | {host}

    # --- what a group accepts --------------------------------------------------------------------

    def _accepts(self, group: Group, node: Node) -> bool:
        if group.form == "alone" or op_name(node) in ALONE:
            return False
        if group.forward != (node in self.forward):
            return False
        if kind_of(node) is Kind.REDUCE:
            return self._accepts_rows(group, node)
        if kind_of(node) not in _POINTWISE and op_name(node) not in _CAN_WAIT:
            return False
        return self._accepts_element(group, node)

    def _accepts_element(self, group: Group, node: Node) -> bool:
        """Whether a node is computed element by element along a group's loops."""
        if group.form == "reduce":
            return self._follows(group, node, type_of(group.nodes[-1]).shape)
        if group.columns and group.columns == type_of(node).size:
            return self._is_per_column(group, node)
        return self._is_per_row(group, node) or self._follows(group, node, group.shape)

    def _accepts_rows(self, group: Group, node: Node) -> bool:
        """Whether a row reduction fits a group's rows; column reductions come as companions."""
        if not is_row_reduction(node):
            return group.form == "reduce" or self._ends_in_columns(group, node)
        source = source_of(node)
        if group.form not in ("map", "rows"):
            return False
        if type_of(source).shape != group.shape or not is_row_major(group):
            return False
        return group.form == "map" or group.row_axes == row_axes(node)

    def _ends_in_columns(self, group: Group, node: Node) -> bool:
        """Whether a reduction adds up the columns of a contraction, or of what follows it."""
        contractions = [n for n in group.nodes if kind_of(n) is Kind.CONTRACT]
        if len(contractions) != 1 or not adds_up_columns(node, contractions[0]):
            return False
        *inner, _ = self._taken(node)
        return all(self._follows(group, n, group.shape) for n in inner)

    def _is_per_column(self, group: Group, node: Node) -> bool:
        """Whether a node has one element a column, and all that it reads inside has so as well."""
        inner = [o for o in node.all_input_nodes if self.group.get(base_of(o)) is group]
        return kind_of(node) in _POINTWISE and all(
            in_place(o, node) and type_of(base_of(o)).size == group.columns for o in inner
        )

    def _is_per_row(self, group: Group, node: Node) -> bool:
        """Whether a node has one element a row, and all that it reads inside has so as well."""
        if type_of(node).shape not in group.row_shapes:
            return False
        inner = [o for o in node.all_input_nodes if self.group.get(base_of(o)) is group]
        if op_name(node) in _CAN_WAIT:
            return not inner  # reads other rows than it writes
        return all(group.reads_own_row(operand, node) for operand in inner)

    def _follows(self, group: Group, node: Node, shape: tuple[int, ...]) -> bool:
        """Whether a node's elements are the domain's, and each operand inside is read in place."""
        if not same_walk(shape, type_of(node).shape):
            return False
        if group.form == "rows" and type_of(node).shape != shape:
            return False
        if group.form in ("rows", "map") and not order_agrees(group, node):
            return False
        inner = [o for o in node.all_input_nodes if self.group.get(base_of(o)) is group]
        if op_name(node) in _CAN_WAIT:
            return not inner  # reads elsewhere than it writes
        return all(in_place(o, node) or group.reads_own_row(o, node) for o in inner)

    def _is_small(self, nodes: list[Node]) -> bool:
        """Whether a kernel of these nodes stays within its bounds of nodes and of operands."""
        if len(nodes) > MOST_NODES:
            return False
        inside = set(nodes)
        outside = {base_of(o) for n in nodes for o in n.all_input_nodes} - inside
        written = [n for n in nodes if n in self.yielded or not inside.issuperset(self.readers[n])]
        stored = sum(kind_of(n) is not Kind.UPDATE for n in written)
        return len(outside) + stored <= MOST_OPERANDS

    def _order(self, group: Group, needs: Iterable[Group]) -> None:
        earlier = set(needs)
        for other in needs:
            earlier |= other.before
        for later in self.groups:
            if later is group or group in later.before:
                later.before |= earlier

    def result(self) -> Graph:
        """The graph with its nodes gathered by group, groups in a topological order."""
        ordered: list[Group] = []
        left = list(self.groups)
        done: set[Group] = set()
        while left:
            ready = next(g for g in left if g.before <= done)
            left.remove(ready)
            ordered.append(ready)
            done.add(ready)
        return _gathered(self.graph, ordered)


def _gathered(graph: Graph, ordered: list[Group]) -> Graph:
    new = rebuild(graph)
    twin = {old.name: old for old in graph.nodes}
    by_name = {node.name: node for node in new.nodes}
    positions = {node: place for place, node in enumerate(graph.nodes)}
    placed: set[str] = set()

    def put(name: str) -> None:
        if name in placed or twin[name].op != "call_function":
            return
        placed.add(name)
        for operand in twin[name].all_input_nodes:
            if kind_of(operand) is Kind.VIEW:
                put(operand.name)
        new.output_node().prepend(by_name[name])

    for index, group in enumerate(ordered):
        for node in sorted(group.nodes, key=positions.__getitem__):
            put(node.name)
            set_group(by_name[node.name], index)
    for node in outputs_of(graph).nodes:
        put(node.name)
    return new
