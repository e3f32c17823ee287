"""Which calls of a joint graph belong to the forward pass, and which depend on the batch."""

from __future__ import annotations

from torch.fx import Graph, Node

from pockengine.ir.graph import ancestors, calls, outputs_of, placeholders
from pockengine.ir.types import Role
from pockengine.ir.verify import base_of

_SMALL = ("pack_bits", "max_pool2d_index")  # made of forward values, and smaller


def forward_values(graph: Graph) -> set[Node]:
    """What the forward pass computes.

    The loss and the outputs with all that they need; and what is made out of it so that the
    backward pass keeps less: packed masks, the taps that pooling chose, and copies of slices of
    forward values.
    """
    found = outputs_of(graph)
    head = () if found.loss is None else (found.loss,)
    forward = ancestors((*head, *found.outputs, *calls(graph, *_SMALL)))
    kept = [node for node in calls(graph, "copy") if base_of(node.args[0]) in forward]
    return forward | ancestors(tuple(kept))


def batch_values(graph: Graph) -> set[Node]:
    """The calls that depend on the batch, not on parameters alone."""
    inputs = set(placeholders(graph, Role.INPUT, Role.TARGET))
    found: set[Node] = set()
    for node in calls(graph):
        if any(operand in found or operand in inputs for operand in node.all_input_nodes):
            found.add(node)
    return found
