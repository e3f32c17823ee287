"""The graph that ``scheme_costs`` selects from: every gradient, whole and sliced."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import nn
from torch.fx import Graph, Node

from pockengine.ir.forward import batch_values
from pockengine.ir.graph import (
    Outputs,
    kind_of,
    outputs_of,
    rebuild,
    subgraph,
)
from pockengine.ir.ops import Kind
from pockengine.model_tree import channel_axes
from pockengine.passes.compress_masks import compress_masks
from pockengine.passes.decompose_batch_norm import decompose_batch_norm
from pockengine.passes.fold_batch_norm import fold_batch_norm
from pockengine.passes.pad_convolutions import pad_convolutions
from pockengine.passes.simplify import simplify
from pockengine.passes.slice_channels import slice_channels
from pockengine.scheme import Channels

SLICED = "[:]"
"""Ends the name of the gradient of a weight's slice."""


@dataclass(frozen=True, slots=True)
class Sliceable:
    """A weight that may be updated in part: ``count`` indices of ``axis`` stand for any number.

    Indices come in groups of ``step``, one group a channel.
    """

    axis: int
    step: int
    count: int


def scheme_graph(graph: Graph, model: nn.Module) -> tuple[Graph, Mapping[str, Sliceable]]:
    """The joint graph as ``choose_saved`` would meet it, with sliced gradients beside whole ones.

    Slices are taken after BatchNorm is folded, so that they share nothing with the whole gradient
    of the same weight, which the gradient of BatchNorm's scale may need.

    Args:
        graph: the joint graph of all parameters, as captured.
        model: the module that was captured.

    Returns:
        The graph, and by canonical name the weights whose sliced gradient it has.
    """
    yielded = outputs_of(graph)
    joint = subgraph(graph, Outputs(yielded.loss, (), yielded.gradients))
    joint = decompose_batch_norm(fold_batch_norm(joint))
    found = _sliceable(joint, model)
    joint = rebuild(joint, outputs=lambda outputs: _both(outputs, found))
    channels = {name + SLICED: Channels(x.axis, x.count) for name, x in found.items()}
    joint = slice_channels(joint, channels)
    return compress_masks(pad_convolutions(simplify(joint))), found


def _sliceable(graph: Graph, model: nn.Module) -> dict[str, Sliceable]:
    axes = channel_axes(model)
    gradients = outputs_of(graph).gradients
    found = {}
    for name, parameter in model.named_parameters():
        if name in gradients and id(parameter) in axes:
            axis, step = axes[id(parameter)]
            channels = parameter.shape[axis] // step
            if channels > 1:
                found[name] = Sliceable(axis, step, channels // 2 * step)
    return found


def _both(found: Outputs, sliceable: Mapping[str, Sliceable]) -> Outputs:
    """The loss and all gradients; those of sliceable weights once more, by calls of their own."""
    batch = batch_values(found.nodes[0].graph)

    def copied(node: Node) -> Node:
        if node not in batch:
            return node
        whole = kind_of(node) in (Kind.CONTRACT, Kind.INDEX)
        return node.graph.node_copy(node, _same if whole else copied)

    copies = {name + SLICED: copied(found.gradients[name]) for name in sliceable}
    return Outputs(found.loss, (), {**found.gradients, **copies})


def _same(node: Node) -> Node:
    return node
