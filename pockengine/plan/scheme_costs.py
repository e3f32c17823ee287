"""What schemes cost, without compiling them: memory and work of any scheme from one capture.

The joint graph of all parameters is brought once to where ``choose_saved`` would meet it, with the
gradient of every channel-sliced weight beside that of the whole one, and laid out as arrays. A scheme
then selects gradients: what they need stays, what only frozen parameters feed is constant, and a
minimum cut over the forward values that are still read says which of them are kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import nn
from torch.fx import Graph, Node

from pockengine.errors import SchemeError
from pockengine.ir.forward import forward_values
from pockengine.ir.graph import (
    ancestors,
    name_of,
    op_name,
    outputs_of,
    placeholders,
    role_of,
    type_of,
)
from pockengine.ir.ops import Kind
from pockengine.ir.types import Role, TensorType
from pockengine.optimizer import Optimizer
from pockengine.passes.choose_saved import SavingCosts, _again, _keep, _source_side
from pockengine.plan.flops import node_flops
from pockengine.plan.memory import ALIGNMENT
from pockengine.plan.scheme_graph import SLICED, scheme_graph
from pockengine.scheme import Channels
from pockengine.ir.graph import kind_of
from pockengine.ir.verify import base_of

_FOREVER = 2**30


@dataclass(frozen=True, slots=True, kw_only=True)
class SchemeCost:
    """What a scheme costs a step.

    Args:
        const_bytes: frozen values, folded.
        param_bytes: updated parameters, whole.
        state_bytes: the optimizer's state.
        saved_bytes: forward values that are kept for the backward pass.
        forward_flops: of the forward pass.
        backward_flops: of what is left of the backward pass, but for updates.
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
class _Selection:
    """A scheme over the arrays: which nodes stay, which are constant, and how much of each is left."""

    alive: NDArray[np.bool_]
    const: NDArray[np.bool_]
    scale: NDArray[np.float64]


class SchemeCosts:
    """Costs of any scheme of one captured model.

    Args:
        graph: the joint graph of all parameters, as captured.
        model: the module that was captured; it names the channels of its weights.
        optimizer: decides the state.
        costs: what keeping and recomputing cost.
    """

    def __init__(
        self, graph: Graph, model: nn.Module, *, optimizer: Optimizer, costs: SavingCosts
    ) -> None:
        joint, self._nominal = scheme_graph(graph, model)
        self._optimizer = optimizer
        self._nodes = [node for node in joint.nodes if node.op != "output"]
        self._place = {node: index for index, node in enumerate(self._nodes)}
        found = outputs_of(joint)
        assert found.loss is not None
        self._heads = {name: column for column, name in enumerate(found.gradients, start=1)}
        self._params = {
            name_of(node): column for column, node in enumerate(placeholders(joint, Role.PARAM))
        }
        self._types = {name_of(node): type_of(node) for node in placeholders(joint)}
        self._lay_out(joint, costs)
        self._needed = self._reach([found.loss, *found.gradients.values()])
        self._depends = self._spread()
        whole = [0, *(c for name, c in self._heads.items() if not name.endswith(SLICED))]
        self._only_sliced = ~self._needed[:, whole].any(axis=1)
        self._products = {name: self._weight_products(found.gradients[name]) for name in self._nominal}

    def _lay_out(self, joint: Graph, costs: SavingCosts) -> None:
        """One array per property of a node, and the edges from operands to readers."""
        nodes, place = self._nodes, self._place
        forward = forward_values(joint)
        self._forward = np.array([node in forward for node in nodes])
        self._bytes = np.array([type_of(node).nbytes for node in nodes], np.float64)
        self._flops = np.array([node_flops(node) for node in nodes], np.float64)
        self._calls = np.array([node.op == "call_function" for node in nodes])
        self._contracts = np.array([kind_of(node) is Kind.CONTRACT for node in nodes])
        needed = ancestors((outputs_of(joint).loss,))
        self._keep = np.array([_keep(n, costs, extra=n not in needed) for n in nodes], np.float64)
        self._again = np.array([_again(node, costs) for node in nodes], np.float64)
        self._generated = np.array([op_name(node) in ("full", "iota") for node in nodes])
        self._base = np.array([place[base_of(node)] for node in nodes])
        self._operands = [[place[x] for x in node.all_input_nodes] for node in nodes]
        edges = [(source, index) for index, all_ in enumerate(self._operands) for source in all_]
        self._sources, self._readers = np.array(edges).T
        self._bits = {
            index: self._operands[index][0]
            for index, node in enumerate(nodes)
            if op_name(node) == "unpack_bits"
        }

    def _reach(self, heads: list[Node]) -> NDArray[np.bool_]:
        """Which nodes each head is computed from: (nodes, heads)."""
        needed = np.zeros((len(self._nodes), len(heads)), np.bool_)
        for column, head in enumerate(heads):
            needed[self._place[head], column] = True
        for index in range(len(self._nodes) - 1, -1, -1):
            for source in self._operands[index]:
                needed[source] |= needed[index]
        return needed

    def _weight_products(self, gradient: Node) -> list[int]:
        """The contractions that a weight's whole gradient ends in."""
        found, stack = [], [self._place[gradient]]
        while stack:
            index = stack.pop()
            if self._contracts[index]:
                found.append(index)
            else:
                stack += [x for x in self._operands[index] if not self._forward[x]]
        return found

    def _spread(self) -> NDArray[np.bool_]:
        """Which parameters each node is computed from, and in the last column whether a batch."""
        depends = np.zeros((len(self._nodes), len(self._params) + 1), np.bool_)
        for index, node in enumerate(self._nodes):
            if role_of(node) is Role.PARAM:
                depends[index, self._params[name_of(node)]] = True
            elif role_of(node) in (Role.INPUT, Role.TARGET):
                depends[index, -1] = True
            for source in self._operands[index]:
                depends[index] |= depends[source]
        return depends

    def cost(self, scheme: Mapping[str, float]) -> SchemeCost:
        """The cost of a scheme.

        Args:
            scheme: fraction by canonical name of parameter (``Scheme.resolve``).

        Raises:
            SchemeError: the loss depends on none of the parameters.
        """
        parts = {name: self._part(name, r) for name, r in scheme.items() if name in self._heads}
        if not parts:
            raise _trains_nothing(scheme)
        chosen = self._select(parts)
        work = self._flops * chosen.scale * (chosen.alive & ~chosen.const)
        backward = work * ~self._forward
        saved, again = self._saved(chosen)
        return SchemeCost(
            const_bytes=self._const_bytes(chosen),
            param_bytes=sum(_aligned(self._types[name].nbytes) for name in parts),
            state_bytes=self._state_bytes(parts),
            saved_bytes=saved,
            forward_flops=float(work[self._forward].sum()),
            backward_flops=float(backward.sum()),
            contraction_flops=float(backward[self._contracts].sum()),
            recompute_flops=again,
        )

    def _part(self, name: str, fraction: float) -> Channels | None:
        """The updated channels of a weight; None for all of them."""
        found = self._nominal.get(name)
        if found is None or fraction == 1:
            return None
        extent = self._types[name].shape[found.axis]
        count = max(1, round(fraction * (extent // found.step))) * found.step
        return Channels(found.axis, count) if count < extent else None

    def _select(self, parts: Mapping[str, Channels | None]) -> _Selection:
        whole = [self._heads[name] for name, part in parts.items() if part is None]
        alive = self._needed[:, [0, *whole]].any(axis=1)
        scale = np.ones(len(alive))
        for name, part in parts.items():
            if part is None:
                continue
            if alive[self._products[name]].all():  # BatchNorm's scale needs it whole
                alive = alive | self._needed[:, self._heads[name]]
            else:
                needed = self._needed[:, self._heads[name + SLICED]]
                share = part.count / self._nominal[name].count
                own = needed & self._only_sliced
                scale[own] = np.where(alive[own], np.maximum(scale[own], share), share)
                alive = alive | needed
        updated = np.zeros(len(self._params) + 1, np.bool_)
        updated[[self._params[name] for name in parts]] = True
        updated[-1] = True
        return _Selection(alive, ~(self._depends & updated).any(axis=1), scale)

    def _saved(self, chosen: _Selection) -> tuple[int, float]:
        """Bytes kept for the backward pass, and operations to compute again what is not kept."""
        computed = chosen.alive & ~chosen.const
        inside = self._forward & computed
        read = np.unique(
            self._sources[(inside[self._sources]) & (computed & ~self._forward)[self._readers]]
        )
        again = self._cut(inside, read, chosen.scale) if read.size else set()
        stack, seen, bytes_, flops = list(read), set(read), 0.0, 0.0
        while stack:
            index = stack.pop()
            if index in again:
                flops += self._flops[index] * chosen.scale[index]
                stack += [x for x in self._sources_of(index, again) if inside[x] and x not in seen]
                seen.update(self._sources_of(index, again))
            elif self._calls[index]:
                bytes_ += self._bytes[index] * chosen.scale[index]
        return round(bytes_), float(flops)

    def _sources_of(self, index: int, again: set[int]) -> list[int]:
        """What a value is computed again from; no bits are needed in between."""
        bits = self._bits.get(index)
        return self._operands[bits if bits in again else index]

    def _cut(
        self, inside: NDArray[np.bool_], read: NDArray[np.intp], scale: NDArray[np.float64]
    ) -> set[int]:
        """The forward nodes to compute again: ``choose_saved`` on what can reach a read value."""
        wanted, stack = set(read.tolist()), read.tolist()
        while stack:
            for source in self._operands[stack.pop()]:
                if inside[source] and source not in wanted:
                    wanted.add(source)
                    stack.append(source)
        ordered = sorted(wanted)
        place = {index: number for number, index in enumerate(ordered)}
        source, sink = 2 * len(ordered), 2 * len(ordered) + 1
        edges: dict[tuple[int, int], int] = {}
        for index, number in place.items():
            edges[2 * number, 2 * number + 1] = self._capacity(self._keep, index, scale)
            edges[source, 2 * number] = self._capacity(self._again, index, scale)
            for operand in self._operands[index]:
                if operand in place:
                    edges[2 * place[operand] + 1, 2 * number] = _FOREVER
        for index in read.tolist():
            edges[2 * place[index] + 1, sink] = _FOREVER
        reachable = _source_side(edges, source, sink)
        return {index for index, number in place.items() if 2 * number not in reachable}

    def _capacity(
        self, of: NDArray[np.float64], index: int, scale: NDArray[np.float64]
    ) -> int:
        return int(of[index]) if of[index] >= _FOREVER else int(max(of[index] * scale[index], 0))

    def _const_bytes(self, chosen: _Selection) -> int:
        """What constants the computed nodes read, each stored once."""
        computed = chosen.alive & ~chosen.const
        edge = (chosen.const & ~self._generated)[self._sources] & computed[self._readers]
        return sum(_aligned(int(self._bytes[x])) for x in np.unique(self._base[self._sources[edge]]))

    def _state_bytes(self, parts: Mapping[str, Channels | None]) -> int:
        updated = {name: _sliced(self._types[name], part) for name, part in parts.items()}
        return sum(_aligned(kind.nbytes) for kind in self._optimizer.state(updated).values())


def _sliced(kind: TensorType, part: Channels | None) -> TensorType:
    if part is None:
        return kind
    shape = (*kind.shape[: part.axis], part.count, *kind.shape[part.axis + 1 :])
    return TensorType(shape, kind.dtype)


def _aligned(nbytes: int) -> int:
    return -(-nbytes // ALIGNMENT) * ALIGNMENT


def _trains_nothing(scheme: Mapping[str, float]) -> SchemeError:
    return SchemeError(
        where="scheme",
        found=f"only parameters without a gradient: {', '.join(sorted(scheme)) or 'none'}",
        needed="at least one parameter that the loss depends on",
        remedy="Name a parameter that the model's forward pass uses",
    )
