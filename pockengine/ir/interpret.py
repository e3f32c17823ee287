"""Run an IR graph in PyTorch, op by op: the oracle of every stage."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.fx import Graph, Node

from pockengine.ir.graph import is_op, name_of, outputs_of, placeholders


@dataclass(frozen=True, slots=True)
class Result:
    """Values of a graph's outputs; ``updates`` maps a canonical name to its new contents."""

    loss: Tensor | None
    outputs: tuple[Tensor, ...]
    gradients: Mapping[str, Tensor]
    updates: Mapping[str, Tensor]


def interpret(graph: Graph, values: Mapping[str, Tensor]) -> Result:
    """Run a graph on tensors given by canonical placeholder name.

    Floating-point inputs may be float64 throughout: the ops follow, and so does what is made of
    integers and numbers.

    Raises:
        KeyError: a placeholder has no value.
    """
    places: dict[Node, Tensor] = {node: values[name_of(node)] for node in placeholders(graph)}

    double = are_double(values.values())
    for node in graph.nodes:
        if node.op == "call_function":
            places[node] = run(node, places, double=double)
    found = outputs_of(graph)
    return Result(
        loss=None if found.loss is None else places[found.loss],
        outputs=tuple(places[node] for node in found.outputs),
        gradients={name: places[node] for name, node in found.gradients.items()},
        updates=_updated(found.updates, places),
    )


def are_double(values: Iterable[Tensor]) -> bool:
    """Whether all floating-point values are float64, as an oracle's."""
    return {value.dtype for value in values if value.is_floating_point()} == {torch.float64}


def run(node: Node, places: Mapping[Node, Tensor], *, double: bool) -> Tensor:
    """A call's result; where ``double`` says so, float64 for float32."""

    def look_up(argument: Any) -> Any:
        if double and argument == "f32":
            return "f64"
        return torch.fx.map_arg(argument, places.__getitem__)

    kwargs = {key: look_up(value) for key, value in node.kwargs.items()}
    result: Tensor = node.target(*map(look_up, node.args), **kwargs)  # type: ignore[operator]
    return result


def _updated(updates: tuple[Node, ...], places: Mapping[Node, Tensor]) -> dict[str, Tensor]:
    """New contents of whole placeholders: an update of a slice writes into a copy of its base."""
    fresh: dict[Node, Tensor] = {}
    for node in updates:
        chain: list[Node] = []
        base = node.args[0]
        while is_op(base, "slice"):
            assert isinstance(base, Node)
            chain.append(base)
            base = base.args[0]
        assert isinstance(base, Node)
        whole = fresh.setdefault(base, places[base].clone())
        window = whole
        for view in reversed(chain):
            window = view.target(window, *view.args[1:], **view.kwargs)  # type: ignore[operator]
        window.copy_(places[node])
    return {name_of(base): value for base, value in fresh.items()}
