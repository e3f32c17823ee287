"""The IR as text, and back: ``parse(text(graph))`` is the same graph."""

from __future__ import annotations

import ast
import re

from torch.fx import Graph, Node

from pockengine.ir.graph import (
    Argument,
    Bounds,
    Outputs,
    bounds_of,
    emit,
    name_of,
    op_name,
    outputs_of,
    placeholder,
    role_of,
    scope_of,
    set_bounds,
    set_outputs,
    set_type,
    type_of,
)
from pockengine.ir.types import DType, Role, TensorType

_LINE = re.compile(r"^%(?P<name>\w+): (?P<type>\S+) = (?P<call>.*?)(?:  # (?P<scope>.*))?$")
_TYPE = re.compile(r"^(?P<dtype>\w+)\[(?P<shape>[\dx]*)\](?:@(?P<order>[\d.]+))?$")


def text(graph: Graph) -> str:
    """One line a value: ``%name: type = op(arguments)``, then ``return``."""
    lines = [_line(node) for node in graph.nodes if node.op != "output"]
    found = outputs_of(graph)
    parts = [
        f"loss={_format(found.loss)}",
        f"outputs={_format(found.outputs)}",
        f"gradients={_format(dict(found.gradients))}",
        f"updates={_format(found.updates)}",
    ]
    return "\n".join([*lines, f"return {', '.join(parts)}", ""])


def _line(node: Node) -> str:
    role = role_of(node)
    if role is not None:
        bounds = bounds_of(node)
        limits = f", {bounds.low}, {bounds.high}, {bounds.ignore}" if bounds else ""
        call = f"{role.value}({name_of(node)!r}{limits})"
    else:
        items = [_format(argument) for argument in node.args]
        items += [f"{key}={_format(value)}" for key, value in node.kwargs.items()]
        call = f"{op_name(node)}({', '.join(items)})"
    scope = f"  # {scope_of(node)}" if scope_of(node) else ""
    return f"%{node.name}: {type_of(node)} = {call}{scope}"


def _format(argument: Argument) -> str:
    if isinstance(argument, Node):
        return f"%{argument.name}"
    if isinstance(argument, dict):
        return "{" + ", ".join(f"{k!r}: {_format(v)}" for k, v in argument.items()) + "}"
    if isinstance(argument, (tuple, list)):
        inner = ", ".join(_format(item) for item in argument)
        return f"({inner},)" if len(argument) == 1 else f"({inner})"
    if isinstance(argument, float) and not abs(argument) < float("inf"):
        return f"'{argument}'"  # nan and inf have no literal
    return repr(argument)


def parse(source: str) -> Graph:
    """The graph a text stands for.

    Raises:
        ValueError: a line that is not of the form that ``text`` writes; it names the line's number.
    """
    graph = Graph()
    values: dict[str, Node] = {}
    for number, line in enumerate(source.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            if line.startswith("return "):
                set_outputs(graph, _outputs(line[len("return ") :], values))
            else:
                _parse_line(graph, line, values)
        except (SyntaxError, KeyError, ValueError, TypeError, AttributeError) as error:
            raise ValueError(f"line {number}: {line.strip()!r}: {error}") from error
    return graph


def _parse_line(graph: Graph, line: str, values: dict[str, Node]) -> None:
    match = _LINE.match(line)
    if match is None:
        raise ValueError("is not `%name: type = op(arguments)`")
    call = ast.parse(match["call"].replace("%", "__v_"), mode="eval").body
    if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name):
        raise TypeError("has no call")
    value_type = _parse_type(match["type"])
    if call.func.id in {role.value for role in Role}:
        name, *limits = (_value(argument, values) for argument in call.args)
        node = placeholder(graph, name, value_type, Role(call.func.id))
        if limits:
            set_bounds(node, Bounds(*limits))
    else:
        args = [_value(argument, values) for argument in call.args]
        kwargs = {str(k.arg): _value(k.value, values) for k in call.keywords}
        node = emit(graph, call.func.id, *args, scope=match["scope"] or "", **kwargs)
        _check_type(value_type, type_of(node))
        set_type(node, value_type)
    node.name = match["name"]
    values[match["name"]] = node


def _check_type(written: TensorType, inferred: TensorType) -> None:
    if (written.shape, written.dtype) != (inferred.shape, inferred.dtype):
        raise ValueError(f"has type {written}, its op gives {inferred}")


def _parse_type(source: str) -> TensorType:
    match = _TYPE.match(source)
    if match is None:
        raise ValueError(f"{source!r} is not a type")
    shape = tuple(int(extent) for extent in match["shape"].split("x") if extent)
    order = tuple(int(axis) for axis in (match["order"] or "").split(".") if axis)
    return TensorType(shape, DType(match["dtype"]), order)


def _value(node: ast.expr, values: dict[str, Node]) -> Argument:
    if isinstance(node, ast.Name) and node.id.startswith("__v_"):
        return values[node.id.removeprefix("__v_")]
    if isinstance(node, ast.Tuple):
        return tuple(_value(item, values) for item in node.elts)
    if isinstance(node, ast.Dict):
        return {
            ast.literal_eval(k): _value(v, values)
            for k, v in zip(node.keys, node.values, strict=True)
            if k is not None
        }
    literal = ast.literal_eval(node)
    return float(literal) if literal in ("inf", "-inf", "nan") else literal


def _outputs(source: str, values: dict[str, Node]) -> Outputs:
    call = ast.parse(f"f({source.replace('%', '__v_')})", mode="eval").body
    assert isinstance(call, ast.Call)
    return Outputs(**{str(k.arg): _value(k.value, values) for k in call.keywords})
