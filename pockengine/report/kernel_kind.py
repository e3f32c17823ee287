"""What kind of kernel a kernel is: the form of its loops, and the op that they are there for."""

from __future__ import annotations

from torch.fx import Graph, Node

from pockengine.ir.graph import calls, kind_of, op_name
from pockengine.ir.ops import Kind
from pockengine.lower.kernel import form_of


def kernel_kind(graph: Graph) -> str:
    """The form of a kernel's loops and its main op, such as ``contract matmul``."""
    main, form = main_op(graph), form_of(graph)
    told = form in ("map", op_name(main))
    return form if told else f"{form} {op_name(main)}"


def main_op(graph: Graph) -> Node:
    """The op that a kernel is there for: a product, a reduction, or the last."""
    found = list(calls(graph))
    for kinds in ((Kind.CONTRACT, Kind.STENCIL), (Kind.REDUCE,)):
        for node in found:
            if kind_of(node) in kinds:
                return node
    return found[-1]
