"""A saved ``torch.export`` program as a module that can be captured in either mode, and trained."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.fx import Graph, Interpreter, Node, _pytree
from torch.fx.graph import CodeGen
from torch.utils import _pytree as pytree

from pockengine.errors import InputError

_MODE_ARGUMENT: Mapping[Any, int] = MappingProxyType(
    {
        torch.ops.aten.batch_norm.default: 5,
        torch.ops.aten.instance_norm.default: 5,
        torch.ops.aten.dropout.default: 2,
        torch.ops.aten.alpha_dropout.default: 2,
        torch.ops.aten.feature_dropout.default: 2,
        torch.ops.aten.feature_alpha_dropout.default: 2,
        torch.ops.aten.rrelu.default: 3,
    }
)
"""Where ops take whether the model trains."""

_COUNTED = "num_batches_tracked"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Code:
    """What an exported model runs, in train mode and in eval mode; copies of a model share it."""

    in_spec: pytree.TreeSpec
    out_spec: pytree.TreeSpec
    training: Graph
    evaluation: Graph

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self


class ExportedModel(nn.Module):
    """The tensors of an exported program under their names, and its graph in train and eval mode.

    What ``ExportedProgram.module()`` gives keeps the mode of the export and refuses ``eval()``.
    Here batch normalization, dropout and the like follow the module's mode, which is at first that
    of the export: train mode if any of them was.

    Args:
        program: of ``torch.export.export`` or ``torch.export.load``; nothing of it is changed.
    """

    def __init__(self, program: ExportedProgram) -> None:
        super().__init__()
        source = program.module(check_guards=False)
        _adopt(self, source)
        graph = _plain(source.graph)
        spec = program.call_spec
        self._code = _Code(
            in_spec=spec.in_spec,
            out_spec=spec.out_spec,
            training=_in_mode(graph, training=True),
            evaluation=_in_mode(graph, training=False),
        )
        trains = any(_mode(node) is True for node in graph.nodes)
        for module in self.modules():
            module.training = trains

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """As the model that was exported."""
        code = self._code
        graph = code.training if self.training else code.evaluation
        flat = _pytree.tree_flatten_spec((args, kwargs), code.in_spec)
        return pytree.tree_unflatten(Interpreter(self, graph=graph).run(*flat), code.out_spec)


def load_exported(path: str | Path) -> tuple[ExportedModel, Any]:
    """The model of a file that ``torch.export.save`` wrote, and its example inputs or None.

    Inputs are a tuple, or a dict where the model takes keywords alone.

    Raises:
        InputError: the file holds no exported program.
    """
    try:
        program = torch.export.load(str(path))
    except Exception as error:  # torch raises whatever its zip and JSON readers raise
        raise InputError(
            where=f"model {str(path)!r}",
            found=f"cannot be read as an exported program ({type(error).__name__}: {error})",
            needed="a file that torch.export.save wrote with this version of PyTorch",
            remedy="Write it with torch.export.save(torch.export.export(model, inputs), path)",
        ) from error
    args, kwargs = program.example_inputs or ((), {})
    if args and kwargs:
        raise InputError(
            where=f"model {str(path)!r}",
            found="it was exported with both positional and keyword inputs",
            needed="inputs of one kind",
            remedy="Export it with torch.export.export(model, (), {name: tensor, ...})",
        )
    return ExportedModel(program), kwargs or args or None


def _adopt(module: nn.Module, source: nn.Module) -> None:
    """Take over all tensors, those of submodules in plain modules of the same names."""
    for name, parameter in source.named_parameters(recurse=False, remove_duplicate=False):
        module.register_parameter(name, parameter)
    stored = source.state_dict(keep_vars=True)
    for name, buffer in source.named_buffers(recurse=False, remove_duplicate=False):
        module.register_buffer(name, buffer, persistent=name in stored)
    for name, value in vars(source).items():
        if isinstance(value, Tensor):  # a constant
            module.register_buffer(name, value, persistent=False)
    for name, child in source.named_children():
        if name != "_guards_fn":
            module.add_module(name, nn.Module())
            _adopt(getattr(module, name), child)


def _plain(source: Graph) -> Graph:
    """The graph as a function of flat inputs, without the checks of their shapes."""
    graph = Graph()
    outputs = graph.graph_copy(source, {})
    graph.output(outputs)
    graph.set_codegen(CodeGen())
    for node in graph.find_nodes(op="call_module", target="_guards_fn"):
        graph.erase_node(node)
    return graph


def _in_mode(source: Graph, *, training: bool) -> Graph:
    graph = Graph()
    graph.output(graph.graph_copy(source, {}))
    for node in list(graph.nodes):
        if _mode(node) is not None:
            node.update_arg(_MODE_ARGUMENT[node.target], training)
        elif not training and _counts_batches(node):
            graph.erase_node(node)
    return graph


def _mode(node: Node) -> bool | None:
    """Whether an op trains; None of one that knows no modes."""
    place = _MODE_ARGUMENT.get(node.target) if node.op == "call_function" else None
    return None if place is None else bool(node.args[place])


def _counts_batches(node: Node) -> bool:
    """Whether a call is batch normalization's count of its batches."""
    counter = node.args[0] if node.target is torch.ops.aten.add_.Tensor else None
    return isinstance(counter, Node) and str(counter.target).endswith(_COUNTED) and not node.users
