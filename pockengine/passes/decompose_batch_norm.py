"""Say batch normalization, where it could not be folded, in elementwise ops and sums."""

from __future__ import annotations

from collections.abc import Callable

from torch.fx import Graph, Node

from pockengine.ir.graph import Argument, calls, op_name, rebuild, type_of
from pockengine.passes.rewriter import Rewriter


def decompose_batch_norm(graph: Graph) -> Graph:
    """Write eval-mode batch normalization and its gradients as sums, products and reductions.

    The forward pass is one product and one sum an element, as in PyTorch: x s + (beta - mean s)
    with s = gamma / sqrt(var + eps).

    before::

        %gamma: f32[3] = param('gamma')
        %beta: f32[3] = param('beta')
        %mean: f32[3] = const('mean')
        %var: f32[3] = const('var')
        %x: f32[1x3x4x4] = input('x')
        %y: f32[1x3x4x4] = batch_norm(%x, %gamma, %beta, %mean, %var, 0.5)
        %dy: f32[1x3x4x4] = neg(%y)
        %dgamma: f32[3] = batch_norm_weight_grad(%dy, %x, %mean, %var, 0.5)
        return loss=None, outputs=(%y,), gradients={'gamma': %dgamma}, updates=()

    after::

        %gamma: f32[3] = param('gamma')
        %beta: f32[3] = param('beta')
        %mean: f32[3] = const('mean')
        %var: f32[3] = const('var')
        %x: f32[1x3x4x4] = input('x')
        %add: f32[3] = add(%var, 0.5)
        %rsqrt: f32[3] = rsqrt(%add)
        %mul: f32[3] = mul(%gamma, %rsqrt)
        %mul_1: f32[3] = mul(%mean, %mul)
        %sub: f32[3] = sub(%beta, %mul_1)
        %reshape: f32[1x3x1x1] = reshape(%mul, (1, 3, 1, 1))
        %mul_2: f32[1x3x4x4] = mul(%x, %reshape)
        %reshape_1: f32[1x3x1x1] = reshape(%sub, (1, 3, 1, 1))
        %add_1: f32[1x3x4x4] = add(%mul_2, %reshape_1)
        %dy: f32[1x3x4x4] = neg(%add_1)
        %reshape_2: f32[1x3x1x1] = reshape(%mean, (1, 3, 1, 1))
        %sub_1: f32[1x3x4x4] = sub(%x, %reshape_2)
        %mul_3: f32[1x3x4x4] = mul(%dy, %sub_1)
        %sum_1: f32[3] = sum(%mul_3, (0, 2, 3))
        %mul_4: f32[3] = mul(%sum_1, %rsqrt)
        return loss=None, outputs=(%add_1,), gradients={'gamma': %mul_4}, updates=()
    """
    if not any(calls(graph, *_RULES)):
        return graph
    return rebuild(graph, _Decompose().visit)


class _Decompose(Rewriter):
    """The visit of ``rebuild``."""

    def visit(self, graph: Graph, node: Node, moved: Callable[[Argument], Argument]) -> Node | None:
        """The decomposed form of a call of batch normalization."""
        self.at(graph, node)
        rule = _RULES.get(op_name(node))
        return rule(self, *moved(node.args)) if rule else None

    def root(self, var: Node, eps: float) -> Node:
        """1 / sqrt(var + eps): (C,)."""
        return self.emit("rsqrt", self.emit("add", var, eps))

    def along(self, vector: Node, like: Node) -> Node:
        """(C,) as (1, C, 1, ...), to be broadcast with (N, C, ...)."""
        rank = len(type_of(like).shape)
        return self.reshape(vector, (1, type_of(vector).size, *(1,) * (rank - 2)))


def _forward(
    to: _Decompose, x: Node, gamma: Node, beta: Node, mean: Node, var: Node, eps: float
) -> Node:
    scale = to.emit("mul", gamma, to.root(var, eps))
    shift = to.emit("sub", beta, to.emit("mul", mean, scale))
    return to.emit("add", to.emit("mul", x, to.along(scale, x)), to.along(shift, x))


def _input_grad(to: _Decompose, grad: Node, gamma: Node, var: Node, eps: float) -> Node:
    scale = to.emit("mul", gamma, to.root(var, eps))
    return to.emit("mul", grad, to.along(scale, grad))


def _weight_grad(to: _Decompose, grad: Node, x: Node, mean: Node, var: Node, eps: float) -> Node:
    axes = tuple(axis for axis in range(len(type_of(x).shape)) if axis != 1)
    centred = to.emit("sub", x, to.along(mean, x))
    total = to.emit("sum", to.emit("mul", grad, centred), axes)
    return to.emit("mul", total, to.root(var, eps))


_RULES: dict[str, Callable[..., Node]] = {
    "batch_norm": _forward,
    "batch_norm_input_grad": _input_grad,
    "batch_norm_weight_grad": _weight_grad,
}
