"""Move eval-mode batch normalization into the convolution or linear layer ahead of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Any, TypeAlias, cast

from torch.fx import Graph, Node

from pockengine.ir.graph import Argument, calls, is_op, op_name, rebuild, type_of
from pockengine.passes.rewriter import Rewriter, as_node


def fold_batch_norm(graph: Graph) -> Graph:
    """Scale the weights instead of the activations, forward and backward.

    With s = gamma / sqrt(var + eps) and z = conv(x, W) + b, per output channel::

        batch_norm(z)                 = conv(x, W s) + (beta + (b - mean) s)
        batch_norm_input_grad(dy)     = dy s, where s moves on: into W for dx, behind dW and db
        batch_norm_weight_grad(dy, z) = (sum(W dW') + (b - mean) sum(dy)) / sqrt(var + eps),
                                        where dW' = conv_weight_grad(x, dy)

    so that nothing of the backward pass reads z (DESIGN.md, decision 10). Where W and gamma are
    frozen, ``fold_constants`` turns W s into one constant. Does not apply where z is not a
    convolution or a product of matrices, with or without a bias, or is read by anything else: such
    calls stay for ``decompose_batch_norm``.

    before::

        %w: f32[3x2x1x1] = param('w')
        %gamma: f32[3] = param('gamma')
        %beta: f32[3] = param('beta')
        %mean: f32[3] = const('mean')
        %var: f32[3] = const('var')
        %x: f32[1x2x4x4] = input('x')
        %z: f32[1x3x4x4] = conv2d(%x, %w, (1, 1), (0, 0, 0, 0), (1, 1), 1)
        %y: f32[1x3x4x4] = batch_norm(%z, %gamma, %beta, %mean, %var, 0.5)
        %dy: f32[1x3x4x4] = neg(%y)
        %dz: f32[1x3x4x4] = batch_norm_input_grad(%dy, %gamma, %var, 0.5)
        %dgamma: f32[3] = batch_norm_weight_grad(%dy, %z, %mean, %var, 0.5)
        %dw: f32[3x2x1x1] = conv2d_weight_grad(%x, %dz, (1, 1), (1, 1), (0, 0, 0, 0), (1, 1), 1)
        return loss=None, outputs=(%y,), gradients={'w': %dw, 'gamma': %dgamma}, updates=()

    after::

        %w: f32[3x2x1x1] = param('w')
        %gamma: f32[3] = param('gamma')
        %beta: f32[3] = param('beta')
        %mean: f32[3] = const('mean')
        %var: f32[3] = const('var')
        %x: f32[1x2x4x4] = input('x')
        %add: f32[3] = add(%var, 0.5)
        %rsqrt: f32[3] = rsqrt(%add)
        %mul: f32[3] = mul(%gamma, %rsqrt)
        %reshape: f32[3x1x1x1] = reshape(%mul, (3, 1, 1, 1))
        %mul_1: f32[3x2x1x1] = mul(%w, %reshape)
        %conv2d: f32[1x3x4x4] = conv2d(%x, %mul_1, (1, 1), (0, 0, 0, 0), (1, 1), 1)
        %mul_2: f32[3] = mul(%mean, %mul)
        %sub: f32[3] = sub(%beta, %mul_2)
        %reshape_1: f32[1x3x1x1] = reshape(%sub, (1, 3, 1, 1))
        %add_1: f32[1x3x4x4] = add(%conv2d, %reshape_1)
        %dy: f32[1x3x4x4] = neg(%add_1)
        %conv2d_weight_grad: f32[3x2x1x1] = conv2d_weight_grad(%x, %dy, (1, 1), (1, 1), (0, 0, 0, 0), (1, 1), 1)
        %mul_4: f32[3x2x1x1] = mul(%w, %conv2d_weight_grad)
        %sum_1: f32[3] = sum(%mul_4, (1, 2, 3))
        %sum_2: f32[3] = sum(%dy, (0, 2, 3))
        %mul_5: f32[3] = mul(%mean, %sum_2)
        %sub_1: f32[3] = sub(%sum_1, %mul_5)
        %mul_6: f32[3] = mul(%sub_1, %rsqrt)
        %mul_7: f32[3x2x1x1] = mul(%conv2d_weight_grad, %reshape)
        return loss=None, outputs=(%add_1,), gradients={'w': %mul_7, 'gamma': %mul_6}, updates=()
    """  # noqa: E501 - IR text has one line a value
    fold = _Fold(graph)
    return rebuild(graph, fold.visit)


@dataclass(frozen=True, slots=True)
class _Linear:
    """What a batch normalization reads: z = product + bias; nodes of the old graph.

    Args:
        product: a conv2d, or a matmul of matrices: (N, C, ...).
        bias: (1, C, 1, 1), (1, C) or (C,), if there is one.
    """

    product: Node
    bias: Node | None


def _match(norm: Node) -> _Linear | None:
    """The linear layer ahead of a batch normalization that nothing else reads."""
    z = as_node(norm.args[0])
    if any(user is not norm and not _reads_for_gamma(user, z) for user in z.users):
        return None
    inner = as_node(z.args[0]) if is_op(z, "reshape") and _is_narrowed(z) else z
    if inner is not z and len(inner.users) != 1:
        return None
    if _is_product(inner):
        return _Linear(inner, None)
    if not is_op(inner, "add"):
        return None
    a, b = (as_node(operand) for operand in inner.args)
    for product, bias in ((a, b), (b, a)):
        if _is_product(product) and len(product.users) == 1 and _is_bias(bias, product):
            return _Linear(product, bias)
    return None


def _reads_for_gamma(user: Node, z: Node) -> bool:
    return is_op(user, "batch_norm_weight_grad") and user.args[1] is z


def _is_narrowed(z: Node) -> bool:
    """Whether a reshape makes (N, C, L) of (N, C, 1, L), as a one-dimensional convolution does."""
    n, c, *rest = type_of(as_node(z.args[0])).shape
    return type_of(z).shape == (n, c, *rest[1:]) and rest[:1] == [1]


def _is_product(node: Node) -> bool:
    return is_op(node, "conv2d") or (is_op(node, "matmul") and len(type_of(node).shape) == 2)


def _is_bias(bias: Node, product: Node) -> bool:
    shape = type_of(product).shape
    wanted = [(1, shape[1], 1, 1)] if len(shape) == 4 else [(shape[1],), (1, shape[1])]
    return type_of(bias).shape in wanted


@dataclass(frozen=True, slots=True)
class _Scaled:
    """A value that is ``base`` times the vector ``scale`` along ``axis``; of the new graph."""

    base: Node
    scale: Node
    axis: int


class _Fold(Rewriter):
    """The visit of ``rebuild``.

    A scaled value is emitted at once; a reader that can do with its base finds that in ``scaled``,
    and what nobody reads in the end goes away.
    """

    def __init__(self, graph: Graph) -> None:
        super().__init__()
        self.scaled: dict[Node, _Scaled] = {}
        self._linear = {norm.args[0]: _match(norm) for norm in calls(graph, "batch_norm")}
        self._whole: dict[tuple[Argument, Argument], _Linear] = {}
        for grad in calls(graph, "batch_norm_weight_grad"):
            found = self._linear.get(grad.args[1])
            if found is not None:
                self._whole[found.product.args[0], grad.args[0]] = found

    def visit(self, graph: Graph, node: Node, moved: Callable[[Argument], Argument]) -> Node | None:
        """The folded form of a call, or its copy."""
        self.at(graph, node)
        made = self._folded(node, moved) or self._part(node, moved)
        if made is None and not node.kwargs and op_name(node) in _ABSORB:
            made = _ABSORB[op_name(node)](self, *moved(node.args))
        return made or self.keep(node, moved)

    def _folded(self, node: Node, moved: Callable[[Argument], Any]) -> Node | None:
        """A call of batch normalization in terms of its layer, if it has one."""
        if is_op(node, "batch_norm_input_grad"):
            grad, gamma, var, eps = moved(node.args)
            return self.times(grad, self._scale(gamma, var, eps), 1)
        if not is_op(node, "batch_norm", "batch_norm_weight_grad"):
            return None
        forward = is_op(node, "batch_norm")
        found = self._linear.get(node.args[0 if forward else 1])
        if found is None:
            return None
        bias = None if found.bias is None else self._vector(moved(found.bias))
        product = moved(found.product.args)
        if forward:
            folded = self._forward(found, product, bias, *moved(node.args[1:]))
            return self.reshape(folded, type_of(node).shape)
        return self._gamma_grad(found, product, bias, *moved((node.args[0], *node.args[2:])))

    def _vector(self, bias: Node) -> Node:
        return self.reshape(bias, (max(type_of(bias).shape),))

    def _root(self, var: Node, eps: float) -> Node:
        return self.emit("rsqrt", self.emit("add", var, eps))

    def _scale(self, gamma: Node, var: Node, eps: float) -> Node:
        return self.emit("mul", gamma, self._root(var, eps))

    def _forward(
        self,
        found: _Linear,
        product: tuple[Any, ...],
        bias: Node | None,
        gamma: Node,
        beta: Node,
        mean: Node,
        var: Node,
        eps: float,
    ) -> Node:
        """conv(x, W s) + shift."""
        x, weight, *geometry = product
        scale = self._scale(gamma, var, eps)
        scaled = self.weight(weight, scale, 0 if geometry else 1)
        made = self.emit(op_name(found.product), x, scaled, *geometry)
        if bias is None:
            shift = self.emit("sub", beta, self.emit("mul", mean, scale))
        else:
            centre = self.emit("sub", bias, mean)
            shift = self.emit("add", beta, self.emit("mul", centre, scale))
        return self.emit("add", made, self._along(shift, len(type_of(made).shape), 1))

    def _gamma_grad(
        self,
        found: _Linear,
        product: tuple[Any, ...],
        bias: Node | None,
        grad: Node,
        mean: Node,
        var: Node,
        eps: float,
    ) -> Node:
        """(sum(W dW') + (b - mean) sum(dy)) / sqrt(var + eps)."""
        weight = product[1] if is_op(found.product, "conv2d") else self.transpose(product[1])
        ahead = self._weight_grad(found, product, grad)
        axes = tuple(range(1, len(type_of(weight).shape)))
        inner = self.emit("sum", self.emit("mul", weight, ahead), axes)
        total = self.emit("sum", grad, tuple(a for a in range(len(type_of(grad).shape)) if a != 1))
        if bias is None:
            centred = self.emit("sub", inner, self.emit("mul", mean, total))
        else:
            centre = self.emit("sub", bias, mean)
            centred = self.emit("add", inner, self.emit("mul", centre, total))
        return self.emit("mul", centred, self._root(var, eps))

    def _weight_grad(self, found: _Linear, product: tuple[Any, ...], grad: Node) -> Node:
        """Make dW', the weight's gradient if y were conv(x, W): (O, I, R, S) or (C, K)."""
        x, weight, *geometry = product
        if not geometry:
            return self.emit("matmul", self.transpose(grad), x)
        kernel = type_of(weight).shape[2:]
        whole = self.reshape(grad, type_of(found.product).shape)
        return self.emit("conv2d_weight_grad", x, whole, kernel, *geometry)

    def _part(self, node: Node, moved: Callable[[Argument], Any]) -> Node | None:
        """A weight gradient of few channels, as part of the whole one where gamma's needs that."""
        if not is_op(node, "conv2d_weight_grad"):
            return None
        x, dz = _unsliced(node.args[0]), _unsliced(node.args[1])
        if (x, dz) == node.args[:2] or not is_op(dz, "batch_norm_input_grad"):
            return None
        grad, gamma, var, eps = dz.args
        found = self._whole.get((x, grad))
        if found is None:
            return None
        made = self._weight_grad(found, moved(found.product.args), moved(grad))
        for axis, count in enumerate(type_of(node).shape[:2]):
            made = self.leading(made, axis, count)
        scale = self._scale(moved(gamma), moved(var), eps)
        return self.times(made, self.leading(scale, 0, type_of(node).shape[0]), 0)

    def leading(self, x: Node, axis: int, count: int) -> Node:
        """The first indices of an axis."""
        whole = type_of(x).shape[axis] == count
        return x if whole else self.emit("slice", x, axis, 0, count)

    def transpose(self, x: Node) -> Node:
        """The transpose of a matrix; of a transpose, the matrix."""
        return as_node(x.args[0]) if is_op(x, "permute") else self.emit("permute", x, (1, 0))

    def times(self, base: Node, scale: Node, axis: int) -> Node:
        """A value times a vector along an axis, for readers to take apart."""
        made = self.emit("mul", base, self._along(scale, len(type_of(base).shape), axis))
        self.scaled[made] = _Scaled(base, scale, axis)
        return made

    def weight(self, weight: Node, scale: Node, axis: int) -> Node:
        """A weight times a vector along an axis; permutes stay outside, so both passes share it."""
        if is_op(weight, "permute"):
            source, order = cast("tuple[Node, tuple[int, ...]]", weight.args)
            return self.emit("permute", self.weight(source, scale, order[axis]), order)
        return self.emit("mul", weight, self._along(scale, len(type_of(weight).shape), axis))

    def _along(self, vector: Node, rank: int, axis: int) -> Node:
        shape = tuple(type_of(vector).size if place == axis else 1 for place in range(rank))
        return vector if axis == rank - 1 else self.reshape(vector, shape)


# --- readers of scaled values -------------------------------------------------------------------

_Absorb: TypeAlias = Callable[..., Node | None]


def _input_grad(to: _Fold, grad: Node, weight: Node, *geometry: Argument) -> Node | None:
    """conv_input_grad(dy s, W) = conv_input_grad(dy, W s)."""
    found = to.scaled.get(grad)
    if found is None or found.axis != 1:
        return None
    return to.emit("conv2d_input_grad", found.base, to.weight(weight, found.scale, 0), *geometry)


def _weight_grad(to: _Fold, x: Node, grad: Node, *geometry: Argument) -> Node | None:
    """conv_weight_grad(x, dy s) = conv_weight_grad(x, dy) s."""
    found = to.scaled.get(grad)
    if found is None or found.axis != 1:
        return None
    return to.times(to.emit("conv2d_weight_grad", x, found.base, *geometry), found.scale, 0)


def _matmul(to: _Fold, a: Node, b: Node) -> Node | None:
    """(dy s) W = dy (s W); (s dy^T) x = s (dy^T x); x^T (dy s) = (x^T dy) s."""
    if len(type_of(a).shape) != 2:
        return None
    left, right = to.scaled.get(a), to.scaled.get(b)
    if left is not None and left.axis == 1:
        return to.emit("matmul", left.base, to.weight(b, left.scale, 0))
    if left is not None:
        return to.times(to.emit("matmul", left.base, b), left.scale, 0)
    if right is not None and right.axis == 1:
        return to.times(to.emit("matmul", a, right.base), right.scale, 1)
    return None


def _sum(to: _Fold, x: Node, axes: tuple[int, ...], keep: bool = False) -> Node | None:
    """A sum over other axes keeps the scale."""
    found = to.scaled.get(x)
    if found is None or found.axis in axes:
        return None
    axis = found.axis if keep else found.axis - sum(a < found.axis for a in axes)
    return to.times(to.emit("sum", found.base, axes, keep), found.scale, axis)


def _permute(to: _Fold, x: Node, order: tuple[int, ...]) -> Node | None:
    """A permute moves the scale's axis."""
    found = to.scaled.get(x)
    if found is None:
        return None
    return to.times(to.emit("permute", found.base, order), found.scale, order.index(found.axis))


def _reshape(to: _Fold, x: Node, shape: tuple[int, ...]) -> Node | None:
    """A reshape that keeps the scale's axis keeps the scale."""
    found = to.scaled.get(x)
    if found is None:
        return None
    source = type_of(x).shape
    for axis, extent in enumerate(shape):
        if extent == source[found.axis] and prod(shape[:axis]) == prod(source[: found.axis]):
            return to.times(to.emit("reshape", found.base, shape), found.scale, axis)
    return None


def _slice(to: _Fold, x: Node, axis: int, start: int, stop: int, step: int = 1) -> Node | None:
    """A slice of the scale's axis slices the scale."""
    found = to.scaled.get(x)
    if found is None:
        return None
    same = axis != found.axis
    scale = found.scale if same else to.emit("slice", found.scale, 0, start, stop, step)
    return to.times(to.emit("slice", found.base, axis, start, stop, step), scale, found.axis)


_ABSORB: dict[str, _Absorb] = {
    "conv2d_input_grad": _input_grad,
    "conv2d_weight_grad": _weight_grad,
    "matmul": _matmul,
    "sum": _sum,
    "permute": _permute,
    "reshape": _reshape,
    "slice": _slice,
}


def _unsliced(value: Argument) -> Argument:
    """What a value is the leading channels of; itself if it is whole."""
    source = value.args[0] if is_op(value, "copy") else value
    return source.args[0] if is_op(source, "slice") and source.args[1] == 1 else value
