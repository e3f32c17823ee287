"""What schemes cost, without compiling them: memory and work of any scheme from one capture.

The joint graph of all parameters is brought once to where ``choose_saved`` would meet it, with the
gradient of every channel-sliced weight beside that of the whole one, and laid out as arrays. A
scheme then selects gradients: what they need stays, what only frozen parameters feed is constant,
and a minimum cut over the forward values that are still read says which of them are kept.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace

import numpy as np
from torch import nn
from torch.fx import Graph, Node

from pockengine.errors import SchemeError
from pockengine.ir.forward import forward_values
from pockengine.ir.graph import (
    Outputs,
    ancestors,
    calls,
    emit,
    kind_of,
    name_of,
    op_name,
    outputs_of,
    placeholder,
    placeholders,
    role_of,
    set_outputs,
    type_of,
)
from pockengine.ir.ops import Kind
from pockengine.ir.types import Role, TensorType
from pockengine.ir.verify import base_of
from pockengine.optimizer import Optimizer
from pockengine.passes.append_optimizer import append_optimizer
from pockengine.passes.saved_cut import (
    Again,
    Flags,
    Numbers,
    Places,
    SavedCut,
    SavingCosts,
    values_of,
)
from pockengine.plan.flops import node_flops
from pockengine.plan.scheme_graph import SLICED, Sliceable, scheme_graph
from pockengine.scheme import Channels

_MANY = 1 << 20  # elements, beside which scalars do not count

_Parts = Mapping[str, Channels | None]
"""The updated channels of each updated parameter; None for all of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SchemeCost:
    """What a scheme costs.

    Args:
        const_bytes: frozen values, folded.
        param_bytes: updated parameters, whole.
        state_bytes: the optimizer's state.
        saved_bytes: forward values that are kept for the backward pass.
        forward_flops: of the forward pass.
        backward_flops: of what is left of the backward pass, without updates.
        contraction_flops: the part of ``backward_flops`` in convolutions and products of matrices.
        recompute_flops: of forward values that are computed again.
    """

    const_bytes: int
    param_bytes: int
    state_bytes: int
    saved_bytes: int
    forward_flops: float
    backward_flops: float
    contraction_flops: float
    recompute_flops: float


@dataclass(frozen=True, slots=True)
class Selection:
    """A scheme over the nodes.

    Args:
        alive: what stays.
        const: what depends on nothing that changes.
        scale: how much is left of each node's bytes and operations.
        updated: elements of parameters that are updated.
    """

    alive: Flags
    const: Flags
    scale: Numbers
    updated: int

    @property
    def computed(self) -> Flags:
        """What a step computes."""
        return self.alive & ~self.const


@dataclass(frozen=True, slots=True, kw_only=True)
class Walk:
    """A scheme over the nodes, and what it costs.

    Args:
        cost: in sum.
        selection: what a step computes.
        again: places in ``SchemeCosts.nodes`` of what the backward pass computes again.
        ns: what the step takes with that, by the costs of computing things again.
    """

    cost: SchemeCost
    selection: Selection
    again: frozenset[int]
    ns: float


class SchemeCosts:
    """Costs of any scheme of one captured model: seconds to set up, milliseconds a scheme.

    Args:
        graph: the joint graph of all parameters, as captured.
        model: the module that was captured; it knows the channels of its weights.
        optimizer: decides the state.
        costs: what keeping and recomputing cost.
        alignment_bytes: of every value in a region.
    """

    def __init__(
        self,
        graph: Graph,
        model: nn.Module,
        *,
        optimizer: Optimizer,
        costs: SavingCosts,
        alignment_bytes: int = 64,
    ) -> None:
        self._optimizer, self._costs, self._alignment = optimizer, costs, alignment_bytes
        joint, self._sliceable = scheme_graph(graph, model)
        self.graph = joint
        self.nodes = [node for node in joint.nodes if node.op != "output"]
        self._place = {node: index for index, node in enumerate(self.nodes)}
        self._types = {name_of(node): type_of(node) for node in placeholders(joint)}
        found = outputs_of(joint)
        assert found.loss is not None
        self._lay_out_edges()
        self._lay_out_work(joint, found.loss, costs)
        self._column = {name: column for column, name in enumerate(found.gradients, start=1)}
        self._needed = self._reach([found.loss, *found.gradients.values()])
        whole = [0, *(c for name, c in self._column.items() if not name.endswith(SLICED))]
        self._only_sliced = ~_any_of(self._needed, whole)
        self._products = {n: self._weight_products(found.gradients[n]) for n in self._sliceable}
        names = [name_of(node) for node in placeholders(joint, Role.PARAM)]
        self._param = {name: column for column, name in enumerate(names)}
        self._depends = self._spread()
        self._update_ns = _update_ns(optimizer, costs)

    def _lay_out_edges(self) -> None:
        """Who reads whom, and whose bytes a view shows."""
        place = self._place
        self._operands = [[place[x] for x in node.all_input_nodes] for node in self.nodes]
        edges = [(source, index) for index, all_ in enumerate(self._operands) for source in all_]
        self._source, self._reader = np.array(edges, np.intp).T
        self._base = np.array([place[base_of(node)] for node in self.nodes])
        self._bits = {
            place[node]: self._operands[place[node]][0]
            for node in self.nodes
            if op_name(node) == "unpack_bits"
        }

    def _lay_out_work(self, joint: Graph, loss: Node, costs: SavingCosts) -> None:
        """An array for each property of a node."""
        forward, needed = forward_values(joint), ancestors((loss,))
        nodes = self.nodes
        self._forward = np.array([node in forward for node in nodes])
        self._is_call = np.array([node.op == "call_function" for node in nodes])
        self._is_product = np.array([kind_of(node) is Kind.CONTRACT for node in nodes])
        self._is_stored = np.array([op_name(node) not in ("full", "iota") for node in nodes])
        self._nbytes = np.array([type_of(node).nbytes for node in nodes], np.float64)
        self._flops = np.array([node_flops(node) for node in nodes], np.float64)
        self._values = values_of(nodes, needed, costs)

    def _reach(self, heads: Sequence[Node]) -> Flags:
        """Which nodes each head is computed from: (nodes, heads)."""
        needed = np.zeros((len(self.nodes), len(heads)), np.bool_)
        needed[[self._place[head] for head in heads], range(len(heads))] = True
        for index in range(len(self.nodes) - 1, -1, -1):
            for source in self._operands[index]:
                needed[source] |= needed[index]
        return needed

    def _spread(self) -> Flags:
        """Which parameters each node is computed from, and in the last column whether a batch."""
        depends = np.zeros((len(self.nodes), len(self._param) + 1), np.bool_)
        for index, node in enumerate(self.nodes):
            if role_of(node) is Role.PARAM:
                depends[index, self._param[name_of(node)]] = True
            elif role_of(node) in (Role.INPUT, Role.TARGET):
                depends[index, -1] = True
            for source in self._operands[index]:
                depends[index] |= depends[source]
        return depends

    def _weight_products(self, gradient: Node) -> list[int]:
        """The contractions that a weight's whole gradient comes from."""
        found, stack = [], [self._place[gradient]]
        while stack:
            index = stack.pop()
            if self._is_product[index]:
                found.append(index)
            else:
                stack += [x for x in self._operands[index] if not self._forward[x]]
        return found

    def walks(self, scheme: Mapping[str, float]) -> list[Walk]:
        """A scheme over the nodes, for each share of its time that may go into computing again.

        Args:
            scheme: fraction by canonical name of parameter (``Scheme.resolve``).

        Raises:
            SchemeError: the loss depends on none of the parameters.
        """
        return self._walks(scheme, self._costs)

    def least(self, scheme: Mapping[str, float]) -> Walk:
        """As ``walks``, where nothing is computed again but what is cheaper than to keep it."""
        (found,) = self._walks(scheme, replace(self._costs, recompute_shares=(0.0,)))
        return found

    def _walks(self, scheme: Mapping[str, float], costs: SavingCosts) -> list[Walk]:
        parts = self._parts(scheme)
        chosen = self._select(parts)
        return [
            Walk(
                cost=self._priced(parts, chosen, again.places),
                selection=chosen,
                again=again.places,
                ns=again.ns,
            )
            for again in self._again(chosen, costs)
        ]

    def _parts(self, scheme: Mapping[str, float]) -> _Parts:
        parts = {
            name: _updated_part(self._types[name], self._sliceable.get(name), fraction)
            for name, fraction in scheme.items()
            if name in self._column
        }
        if not parts:
            raise _trains_nothing(scheme)
        return parts

    def _priced(self, parts: _Parts, chosen: Selection, again: AbstractSet[int]) -> SchemeCost:
        work = self._flops * chosen.scale * chosen.computed
        saved, recomputed = self._saved(chosen, again)
        updated = {name: _sliced(self._types[name], part) for name, part in parts.items()}
        return SchemeCost(
            const_bytes=self._const_bytes(chosen),
            param_bytes=self._region_bytes(self._types[name] for name in parts),
            state_bytes=self._region_bytes(self._optimizer.state(updated).values()),
            saved_bytes=saved,
            forward_flops=float(work[self._forward].sum()),
            backward_flops=float(work[~self._forward].sum()),
            contraction_flops=float(work[~self._forward & self._is_product].sum()),
            recompute_flops=recomputed,
        )

    def _select(self, parts: _Parts) -> Selection:
        whole = [self._column[name] for name, part in parts.items() if part is None]
        alive = _any_of(self._needed, [0, *whole])
        scale = np.ones(len(self.nodes))
        for name, part in parts.items():
            if part is None:
                continue
            if alive[self._products[name]].all():  # BatchNorm's scale needs the whole gradient
                alive = alive | self._needed[:, self._column[name]]
                continue
            needed = self._needed[:, self._column[name + SLICED]]
            own, share = needed & self._only_sliced, part.count / self._sliceable[name].count
            scale[own] = np.where(alive[own], np.maximum(scale[own], share), share)
            alive = alive | needed
        changing = [self._param[name] for name in parts]
        const = ~_any_of(self._depends, [*changing, -1])
        updated = sum(_sliced(self._types[name], part).size for name, part in parts.items())
        return Selection(alive, const, scale, updated)

    def _read(self, chosen: Selection) -> Places:
        """Forward values that the backward pass reads."""
        behind = ~self._forward & chosen.computed
        inside = self._forward & chosen.computed
        return np.unique(self._source[inside[self._source] & behind[self._reader]])

    def _again(self, chosen: Selection, costs: SavingCosts) -> list[Again]:
        """Forward values that are computed again where the backward pass needs them."""
        step_ns = float((self._values.work_ns * chosen.scale)[chosen.computed].sum())
        step_ns += chosen.updated * self._update_ns
        read = self._read(chosen)
        if not read.size:
            return [Again(places=frozenset(), ns=step_ns)]
        cut = self._cut(self._forward & chosen.computed, read, chosen.scale)
        return list(dict.fromkeys(cut.again(costs, step_ns)))

    def _saved(self, chosen: Selection, again: AbstractSet[int]) -> tuple[int, float]:
        """Bytes kept for the backward pass, and operations to compute again what is not kept."""
        inside = self._forward & chosen.computed
        stack = self._read(chosen).tolist()
        seen = set(stack)
        nbytes = flops = 0.0
        while stack:
            index = stack.pop()
            if index in again:
                flops += self._flops[index] * chosen.scale[index]
                further = {x for x in self.made_from(index, again) if inside[x]} - seen
                seen |= further
                stack += further
            elif self._is_call[index]:
                nbytes += self._nbytes[index] * chosen.scale[index]
        return round(nbytes), float(flops)

    def made_from(self, index: int, again: AbstractSet[int]) -> list[int]:
        """What a value is computed again from; no bits are needed in between."""
        bits = self._bits.get(index)
        return self._operands[index if bits is None or bits not in again else bits]

    def _cut(self, inside: Flags, read: Places, scale: Numbers) -> SavedCut:
        """The forward values of a scheme, laid out for the minimum cut."""
        order = np.cumsum(inside) - 1.0
        rank = order / max(order[-1] + 1, 1)
        inside = inside & ~self._values.is_free
        places = np.flatnonzero(inside)
        number = np.cumsum(inside) - 1
        edge = inside[self._source] & inside[self._reader]
        return SavedCut(
            values=self._values,
            scale=scale,
            inside=places,
            rank=rank[places],
            source=number[self._source[edge]],
            reader=number[self._reader[edge]],
            read=number[read[inside[read]]],
        )

    def _const_bytes(self, chosen: Selection) -> int:
        """What constants the step reads, each stored once."""
        stored = chosen.const & self._is_stored
        edge = stored[self._source] & chosen.computed[self._reader]
        read = np.unique(self._base[self._source[edge]])
        return self._region_bytes(type_of(self.nodes[index]) for index in read)

    def _region_bytes(self, kinds: Iterable[TensorType]) -> int:
        """Values in sequence, each aligned."""
        return sum(-(-kind.nbytes // self._alignment) * self._alignment for kind in kinds)


def _update_ns(optimizer: Optimizer, costs: SavingCosts) -> float:
    """What the optimizer costs an element, from the calls that it writes for one parameter."""
    graph = Graph()
    kind = TensorType((_MANY,))
    weight = placeholder(graph, "w", kind, Role.PARAM)
    set_outputs(graph, Outputs(gradients={"w": emit(graph, "neg", weight)}))
    ungrouped = replace(optimizer, groups=())
    written = [n for n in calls(append_optimizer(graph, ungrouped)) if op_name(n) != "update"]
    return sum(costs.recompute_ns(node) for node in written) / _MANY


def _any_of(flags: Flags, columns: Sequence[int]) -> Flags:
    """Which rows have any of some columns."""
    found: Flags = np.any(flags[:, columns], axis=1)
    return found


def _updated_part(
    kind: TensorType, sliceable: Sliceable | None, fraction: float
) -> Channels | None:
    """The updated channels of a parameter; None for all of them."""
    if sliceable is None or fraction == 1:
        return None
    extent, step = kind.shape[sliceable.axis], sliceable.step
    count = max(1, round(fraction * (extent // step))) * step
    return Channels(sliceable.axis, count) if count < extent else None


def _sliced(kind: TensorType, part: Channels | None) -> TensorType:
    if part is None:
        return kind
    shape = (*kind.shape[: part.axis], part.count, *kind.shape[part.axis + 1 :])
    return TensorType(shape, kind.dtype)


def _trains_nothing(scheme: Mapping[str, float]) -> SchemeError:
    return SchemeError(
        where="scheme",
        found=f"only parameters without a gradient: {', '.join(sorted(scheme)) or 'none'}",
        needed="at least one parameter that the loss depends on",
        remedy="Name a parameter that the model's forward pass uses",
    )
