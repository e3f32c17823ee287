"""Say an ATen joint graph in the closed vocabulary, or name every op that cannot be said."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

import torch
from torch import Tensor
from torch.fx import Graph, Node

from pockengine.errors import CaptureError
from pockengine.frontend.evaluate import Evaluator
from pockengine.frontend.places import place_of
from pockengine.frontend.rules import RULES, Legalizer, Value
from pockengine.frontend.rules.places import bind_parts
from pockengine.ir.graph import Outputs, drop_dead, placeholder, set_outputs
from pockengine.ir.types import DType, Role, TensorType
from pockengine.ir.verify import verify


def legalize(
    module: torch.fx.GraphModule,
    inputs: Mapping[Node, str],
    gradients: Mapping[str, Sequence[Node]],
    outputs: Sequence[Node],
    buffers: Mapping[str, Node],
    evaluator: Evaluator,
    prefix: str = "",
) -> tuple[Graph, dict[str, Tensor]]:
    """The IR graph of an ATen joint graph, and the contents of constants made on the way.

    Args:
        module: the joint graph of AOTAutograd.
        inputs: canonical name of each placeholder; tied ones share it; one without a name is the
            loss's tangent, one.
        gradients: the ATen values that add up to each parameter's gradient.
        outputs: the loss, then the model's outputs.
        buffers: the new contents of each buffer that the model writes.
        evaluator: of what the vocabulary cannot say, but nothing at run time changes.
        prefix: of the names of constants made on the way.

    Raises:
        UnsupportedError: ops, or forms of them, that the vocabulary lacks; lists all of them.
    """
    to = Legalizer(Graph())
    written = buffers
    values: dict[Node, Value] = {}
    walk = _Walk(to, values, evaluator, prefix)
    named: dict[str, Node] = {}
    for node in module.graph.nodes:
        to.node = node
        if node.op == "placeholder":
            name = inputs.get(node)
            if name not in named:
                named[name or ""] = _placeholder(to, node, name, written)
            values[node] = named[name or ""]
        elif node.op == "get_attr":
            constant = torch.fx.graph_module._get_attr(module, str(node.target))  # noqa: SLF001
            typed = TensorType(tuple(constant.shape), DType.of(constant.dtype))
            values[node] = placeholder(to.graph, str(node.target), typed, Role.CONST)
        elif node.op == "call_function":
            values[node] = walk.value(node)
    if walk.missing:
        raise UnsupportedError(walk.missing)
    loss, *rest = outputs
    updates = [to.emit("update", named[name], values[node]) for name, node in written.items()]
    found = Outputs(
        loss=values[loss],
        outputs=tuple(values[node] for node in rest),
        gradients={name: _total(to, [values[n] for n in ns]) for name, ns in gradients.items()},
        updates=(*updates, *to.advanced()),
    )
    set_outputs(to.graph, found)
    drop_dead(to.graph)
    bind_parts(to)
    _placeholders_first(to.graph)
    return verify(to.graph), walk.constants


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


def _placeholder(to: Legalizer, node: Node, name: str | None, written: Mapping[str, Node]) -> Value:
    value = node.meta["val"]
    if name is None:
        return to.emit("full", tuple(value.shape), 1.0, "f32")
    typed = TensorType(tuple(value.shape), DType.of(value.dtype))
    return placeholder(to.graph, name, typed, Role.STATE if name in written else _role(node, name))


def _role(node: Node, name: str) -> Role:
    if type(node.meta["desc"]).__name__ == "ParamAOTInput":
        return Role.PARAM
    if type(node.meta["desc"]).__name__ == "BufferAOTInput":
        return Role.CONST
    return Role.TARGET if name.split(".", maxsplit=1)[0] == "target" else Role.INPUT


class UnsupportedError(Exception):
    """What the vocabulary lacks: ATen nodes, and what each asked for."""

    def __init__(self, missing: Sequence[tuple[Node, str]]) -> None:
        super().__init__("; ".join(what for _, what in missing))
        self.missing = tuple(missing)


_LISTED = object()  # stands for a value without a type here, whose cause is listed
_UNTYPED = object()  # stands for a constant without a type here, such as a complex one


class _Walk:
    """Gives each call its value; where the vocabulary lacks it, lists it and goes on.

    Args:
        to: the graph in the making.
        values: of the nodes so far.
        evaluator: of constants.
        prefix: of their names.
    """

    def __init__(
        self, to: Legalizer, values: Mapping[Node, Value], evaluator: Evaluator, prefix: str
    ) -> None:
        self.missing: list[tuple[Node, str]] = []
        self.constants: dict[str, Tensor] = {}
        self._to = to
        self._values = values
        self._evaluator = evaluator
        self._prefix = prefix

    def value(self, node: Node) -> Value:
        """A node's value in the IR."""
        operands = [self._values[operand] for operand in node.all_input_nodes]
        known = not any(operand is _LISTED or operand is _UNTYPED for operand in operands)
        try:
            if known:
                return _call(self._to, node, self._values)
            lacking = f"{_op_name(node)} of {_dtype_name(node)}"
        except NotImplementedError as error:
            lacking = str(error)
        if self._evaluator.is_fixed(node):
            return self._constant(node)
        if known or not any(operand is _LISTED for operand in operands):
            self.missing.append((node, lacking))
        return self._stand_in(node)

    def _constant(self, node: Node) -> Value:
        """The value of a fixed node as a constant of the graph."""
        value = self._evaluator.value(node)
        parts = value if isinstance(value, (tuple, list)) else (value,)
        found = []
        for place, (part, typed) in enumerate(zip(parts, _types(value), strict=True)):
            if typed is None:
                return _UNTYPED
            name = f"{self._prefix}constant.{node.name}.{place}"
            self.constants[name] = part.contiguous()
            found.append(placeholder(self._to.graph, name, typed, Role.CONST))
        return tuple(found) if isinstance(value, (tuple, list)) else found[0]

    def _stand_in(self, node: Node) -> Value:
        found = [
            placeholder(self._to.graph, f"absent.{node.name}.{place}", typed, Role.CONST)
            if typed is not None
            else _LISTED
            for place, typed in enumerate(_types(node.meta.get("val")))
        ]
        return tuple(found) if isinstance(node.meta["val"], (tuple, list)) else found[0]


def _dtype_name(node: Node) -> str:
    """The first dtype of an operand or result that the vocabulary lacks."""
    for each in (*node.all_input_nodes, node):
        value = each.meta.get("val")
        if isinstance(value, Tensor) and not _has_type(value):
            return str(value.dtype).removeprefix("torch.")
    return "such values"


def _types(value: object) -> list[TensorType | None]:
    parts = value if isinstance(value, (tuple, list)) else (value,)
    return [
        TensorType(tuple(part.shape), DType.of(part.dtype)) if _has_type(part) else None
        for part in parts
    ]


def _has_type(value: object) -> bool:
    if not isinstance(value, Tensor):
        return False
    try:
        DType.of(value.dtype)
    except KeyError:
        return False
    return True


def _call(to: Legalizer, node: Node, values: Mapping[Node, Value]) -> Value:
    args, kwargs = torch.fx.map_arg((node.args, dict(node.kwargs)), values.__getitem__)
    if getattr(node.target, "__name__", "") == "getitem":
        found, place = cast("tuple[tuple[Value, ...], int]", args)
        return found[place]
    name = _op_name(node)
    if name not in RULES:
        raise NotImplementedError(name)
    value = node.meta.get("val")  # checks have none
    if isinstance(value, Tensor) and not _has_type(value):
        raise NotImplementedError(f"{name} of {_dtype_name(node)}")
    return RULES[name](to, *args, **kwargs)


def _op_name(node: Node) -> str:
    """``aten.add.Tensor`` -> ``add.Tensor``; ops of other libraries keep their library's name."""
    target = node.target
    if not isinstance(target, torch._ops.OpOverload):  # noqa: SLF001
        return str(getattr(target, "__name__", target))
    return target.__name__ if target.namespace in ("aten", "prims") else str(target)


def unsupported_error(model: torch.nn.Module, missing: Sequence[tuple[Node, str]]) -> CaptureError:
    """One error for all that the vocabulary lacks, with the module and source line of each."""
    places: dict[str, dict[str, None]] = {}
    for node, what in missing:
        places.setdefault(what, {})[place_of(node)] = None
    listed = "; ".join(_listed(what, [p for p in found if p]) for what, found in places.items())
    return CaptureError(
        where=f"capture of {type(model).__name__}",
        found=f"what the vocabulary does not hold: {listed}",
        needed="ops of the vocabulary (docs/design.md lists them)",
        remedy="Rewrite those lines with supported ops, or add a rule (CONTRIBUTING.md says how)",
    )


def _listed(what: str, places: Sequence[str]) -> str:
    if not places:
        return what
    more = f", and at {len(places) - 1} more places" if len(places) > 1 else ""
    return f"{what} ({places[0]}{more})"
