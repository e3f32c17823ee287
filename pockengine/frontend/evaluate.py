"""Evaluate, at capture, what depends on no input, parameter or stored buffer: masks, positions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Node


class Evaluator:
    """Runs ATen nodes whose value is fixed once the model is built.

    What is evaluated here may use any op of PyTorch: none of it reaches the trainer.

    Args:
        module: the ATen graph.
        known: contents of placeholders that stay as they are, by node; ``used`` says which of them
            a value was made of.
    """

    def __init__(self, module: GraphModule, known: Mapping[Node, Tensor]) -> None:
        self.used: set[Node] = set()
        self._module = module
        self._known = known
        self._values: dict[Node, Any] = {}
        self._fixed: dict[Node, bool] = dict.fromkeys(known, True)
        for node in module.graph.nodes:
            if node not in known:
                self._fixed[node] = self._is_fixed(node)

    def _is_fixed(self, node: Node) -> bool:
        if node.op == "get_attr":
            return True
        if node.op != "call_function":
            return False
        target = node.target
        if isinstance(target, torch._ops.OpOverload):  # noqa: SLF001 - the type has no other name
            if torch.Tag.nondeterministic_seeded in target.tags or target._schema.is_mutable:  # noqa: SLF001
                return False
        elif getattr(target, "__name__", "") != "getitem":
            return False
        return all(self._fixed[operand] for operand in node.all_input_nodes)

    def is_fixed(self, node: Node) -> bool:
        """Whether a node has a value ahead of all inputs."""
        return self._fixed[node]

    def value(self, node: Node) -> Any:
        """The value of a fixed node: a tensor, or a tuple of them."""
        stack = [node]
        while stack:
            top = stack[-1]
            wanted = [n for n in top.all_input_nodes if n not in self._values]
            if wanted:
                stack += wanted
                continue
            self._values.setdefault(top, self._run(top))
            stack.pop()
        return self._values[node]

    def _run(self, node: Node) -> Any:
        if node in self._values:
            return self._values[node]
        if node in self._known:
            self.used.add(node)
            return self._known[node]
        if node.op == "get_attr":
            return torch.fx.graph_module._get_attr(self._module, str(node.target))  # noqa: SLF001
        args, kwargs = torch.fx.map_arg((node.args, dict(node.kwargs)), self._values.__getitem__)
        with torch.no_grad():
            return node.target(*args, **kwargs)  # type: ignore[operator]
