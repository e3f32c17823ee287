"""Say an ATen joint graph in the closed vocabulary, or name every op that cannot be said."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from torch.fx import Graph, Node

from pockengine.errors import CaptureError
from pockengine.frontend.rules import RULES, Legalizer, Value
from pockengine.ir.graph import Outputs, drop_dead, placeholder, set_outputs
from pockengine.ir.types import DType, Role, TensorType
from pockengine.ir.verify import verify


def legalize(
    module: torch.fx.GraphModule,
    inputs: Mapping[Node, str],
    gradients: Mapping[str, Sequence[Node]],
    outputs: Sequence[Node],
) -> Graph:
    """The IR graph of an ATen joint graph.

    Args:
        module: the joint graph of AOTAutograd.
        inputs: canonical name of each placeholder; tied ones share it; one without a name is the
            loss's tangent, one.
        gradients: the ATen values that add up to each parameter's gradient.
        outputs: the loss, then the model's outputs.

    Raises:
        NotImplementedError: an op, or a form of one, that the vocabulary lacks; says which.
    """
    missing = sorted(
        {_op_name(node) for node in module.graph.nodes if _unknown(node)} - {""},
    )
    if missing:
        raise NotImplementedError("; ".join(missing))
    to = Legalizer(Graph())
    values: dict[Node, Value] = {}
    named: dict[str, Node] = {}
    for node in module.graph.nodes:
        to.node = node
        if node.op == "placeholder":
            name = inputs.get(node)
            if name not in named:
                named[name or ""] = _placeholder(to, node, name)
            values[node] = named[name or ""]
        elif node.op == "get_attr":
            constant = torch.fx.graph_module._get_attr(module, str(node.target))  # noqa: SLF001
            typed = TensorType(tuple(constant.shape), DType.of(constant.dtype))
            values[node] = placeholder(to.graph, str(node.target), typed, Role.CONST)
        elif node.op == "call_function":
            values[node] = _call(to, node, values)
    loss, *rest = outputs
    found = Outputs(
        loss=values[loss],
        outputs=tuple(values[node] for node in rest),
        gradients={name: _total(to, [values[n] for n in ns]) for name, ns in gradients.items()},
    )
    set_outputs(to.graph, found)
    drop_dead(to.graph)
    _placeholders_first(to.graph)
    return verify(to.graph)


def _total(to: Legalizer, parts: Sequence[Node]) -> Node:
    """The sum of a tied parameter's gradients."""
    total = parts[0]
    for part in parts[1:]:
        total = to.emit("add", total, part)
    return total


def _placeholders_first(graph: Graph) -> None:
    """Constants found on the way move ahead of the calls."""
    first = next((node for node in graph.nodes if node.op == "call_function"), None)
    if first is not None:
        for node in list(graph.find_nodes(op="placeholder")):
            first.prepend(node)


def _placeholder(to: Legalizer, node: Node, name: str | None) -> Value:
    value = node.meta["val"]
    if name is None:
        return to.emit("full", tuple(value.shape), 1.0, "f32")
    typed = TensorType(tuple(value.shape), DType.of(value.dtype))
    return placeholder(to.graph, name, typed, _role(node, name))


def _role(node: Node, name: str) -> Role:
    if type(node.meta["desc"]).__name__ == "ParamAOTInput":
        return Role.PARAM
    if type(node.meta["desc"]).__name__ == "BufferAOTInput":
        return Role.CONST
    return Role.TARGET if name.split(".", maxsplit=1)[0] == "target" else Role.INPUT


def _call(to: Legalizer, node: Node, values: Mapping[Node, Value]) -> Value:
    args, kwargs = torch.fx.map_arg((node.args, dict(node.kwargs)), values.__getitem__)
    if getattr(node.target, "__name__", "") == "getitem":
        found, place = cast("tuple[tuple[Value, ...], int]", args)
        return found[place]
    return RULES[_op_name(node)](to, *args, **kwargs)


def _op_name(node: Node) -> str:
    """``aten.add.Tensor`` -> ``add.Tensor``."""
    target = node.target
    return target.__name__ if isinstance(target, torch._ops.OpOverload) else ""  # noqa: SLF001


def _unknown(node: Node) -> bool:
    return node.op == "call_function" and bool(_op_name(node)) and _op_name(node) not in RULES


def unknown_ops_error(
    wrapper: torch.nn.Module, batch: tuple[Any, ...], places: dict[str, str], *, detail: str
) -> CaptureError:
    """One error for all that the vocabulary lacks, with the module and source line of each op."""
    names = [part.strip() for part in detail.split(";")]
    places = {**_places(wrapper, batch), **places}
    listed = "; ".join(
        f"{name} ({places[name.split('.')[0]]})" if name.split(".")[0] in places else name
        for name in names
    )
    return CaptureError(
        where=f"capture of {type(getattr(wrapper, 'model', wrapper)).__name__}",
        found=f"what the vocabulary does not hold: {listed}",
        needed="ops of the vocabulary (docs/design.md lists them)",
        remedy="Rewrite those lines with supported ops, or add a rule (CONTRIBUTING.md says how)",
    )


def _places(wrapper: torch.nn.Module, batch: tuple[Any, ...]) -> dict[str, str]:
    """Module path and source line of each forward op, by the op's bare name."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.export.export(wrapper, batch, strict=False)
    except Exception:  # noqa: BLE001 - places are a courtesy; the error is raised without them
        return {}
    found: dict[str, str] = {}
    for node in program.graph.nodes:
        if node.op == "call_function":
            modules = [path for path, _ in node.meta.get("nn_module_stack", {}).values()]
            lines = (node.meta.get("stack_trace") or "").strip().splitlines()
            source = next((s.strip() for s in reversed(lines) if s.strip().startswith("File")), "")
            path = (modules[-1] if modules else "").removeprefix("model.").replace("L['self'].", "")
            found.setdefault(
                getattr(node.target, "__name__", "").split(".")[0],
                ", ".join(part for part in (path, source.replace('"', "")) if part),
            )
    return found
