"""A tiny PockEngine, from capture to step, in one file that runs: ``python docs/tutorial.py``.

PockEngine turns a model and a *scheme* - which parameters a fine-tuning run updates - into a
program whose kernels, memory and order of work are fixed before the first step. Here is all of
that for multi-layer perceptrons, with NumPy expressions in the place of machine code:

    capture -> legalize -> prune -> append the optimizer -> fuse -> order -> plan -> lower -> run

Each part is named as in the real package, which docs/design.md describes. At the end the tiny
compiler, the real one and PyTorch train the same model, and their losses agree.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.fx import Graph, Node
from torch.fx.experimental.proxy_tensor import make_fx

import pockengine as pe

# 1. CAPTURE ---------------------------------------------------------------------------------------
# PyTorch writes down what it does. We let it run forward *and* backward pass on an example, so the
# graph is the joint graph of both: the loss and the gradients of all parameters. Nothing is left of
# the module's Python code, nor of autograd. The scheme has no say yet: one capture serves them all.


def loss_of(output: Tensor, target: Tensor) -> Tensor:
    """Mean squared error; output and target (N, C)."""
    return ((output - target) ** 2).mean()


def capture(model: nn.Module, x: Tensor, y: Tensor) -> tuple[Graph, list[str]]:
    """The joint graph, its placeholders parameters, x and y, and the parameters' names."""
    names = [name for name, _ in model.named_parameters()]

    def step(params: list[Tensor], x: Tensor, y: Tensor) -> tuple[Tensor, ...]:
        output = functional_call(model, dict(zip(names, params, strict=True)), (x,))
        loss = loss_of(output, y)
        return loss, *torch.autograd.grad(loss, params)

    return make_fx(step)(list(model.parameters()), x, y).graph, names


# 2. LEGALIZE --------------------------------------------------------------------------------------
# PyTorch has two thousand ops; a compiler wants few. Ours are ten, each with its meaning in NumPy,
# which is the oracle of everything after. A value knows its op, operands and shape.


@dataclass(frozen=True, eq=False)
class Value:
    """A node of the graph: a placeholder (op is its role), or an op on other values."""

    op: str
    args: tuple[Value, ...]
    shape: tuple[int, ...]
    name: str = ""  # of a placeholder
    option: object = None  # axes of a sum, the number of a full, ...


# what each op means, as NumPy source: what "lowering" writes down, and what it is checked against
VIEWS = {  # no work: only another way to look at bytes
    "transpose": "{0}.T",
    "reshape": "{0}.reshape({shape})",
    "full": "np.float32({option})",
}
MAPS = {  # element by element
    "add": "({0} + {1})",
    "sub": "({0} - {1})",
    "mul": "({0} * {1})",
    "relu": "np.maximum({0}, 0)",
    "relu_grad": "np.where({1} > 0, {0}, 0)",
}
HEADS = {  # loops of their own
    "matmul": "({0} @ {1})",
    "sum": "{0}.sum({option})",
}


def legalize(graph: Graph, names: list[str]) -> tuple[Value, dict[str, Value]]:
    """The loss and the gradients by parameter, in our vocabulary."""
    roles = iter([*(("param", name) for name in names), ("input", "x"), ("target", "y")])
    made: dict[Node, Value] = {}
    for node in graph.nodes:
        if node.op == "placeholder":
            role, name = next(roles)
            made[node] = Value(role, (), tuple(node.meta["val"].shape), name)
        elif node.op == "call_function":
            args = [made[a] if isinstance(a, Node) else a for a in node.args]
            rule = RULES[str(node.target).removeprefix("aten.")]
            made[node] = rule(tuple(node.meta["val"].shape), *args)
        else:
            loss, *gradients = (made[result] for result in node.args[0])
    return loss, dict(zip(names, gradients, strict=True))


def full(shape: tuple[int, ...], number: float) -> Value:
    """A constant."""
    return Value("full", (), shape, option=number)


def addmm(shape: tuple[int, ...], bias: Value, a: Value, b: Value) -> Value:
    """PyTorch's fused layer is two ops to us; *we* decide what is fused."""
    return Value("add", (Value("matmul", (a, b), shape), bias), shape)


def scale(shape: tuple[int, ...], value: Value, factor: float) -> Value:
    """A product with a number; of a constant, another one."""
    if value.op == "full":
        return full(shape, value.option * factor)
    return Value("mul", (value, full((), factor)), shape)


def mean(shape: tuple[int, ...], value: Value) -> Value:
    """A sum, scaled."""
    return scale(shape, Value("sum", (value,), shape), 1 / math.prod(value.shape))


def power(shape: tuple[int, ...], value: Value, exponent: float) -> Value:
    """A square, or the value itself: what the derivative of a square leaves."""
    return value if exponent == 1 else Value("mul", (value, value), shape)


# a rule is a row: PyTorch's op -> ours
RULES: dict[str, Callable[..., Value]] = {
    "t.default": lambda shape, a: Value("transpose", (a,), shape),
    "view.default": lambda shape, a, _: Value("reshape", (a,), shape),
    "detach.default": lambda _, a: a,
    "addmm.default": addmm,
    "mm.default": lambda shape, a, b: Value("matmul", (a, b), shape),
    "relu.default": lambda shape, a: Value("relu", (a,), shape),
    "threshold_backward.default": lambda shape, g, y, _: Value("relu_grad", (g, y), shape),
    "sub.Tensor": lambda shape, a, b: Value("sub", (a, b), shape),
    "mul.Tensor": lambda shape, a, b: Value("mul", (a, b), shape),
    "mul.Scalar": scale,
    "div.Scalar": lambda shape, a, by: scale(shape, a, 1 / by),
    "pow.Tensor_Scalar": power,
    "mean.default": mean,
    "ones_like.default": lambda shape, _: full(shape, 1.0),
    "expand.default": lambda shape, a, _: full(shape, a.option),
    "sum.dim_IntList": lambda shape, a, axes, _: Value("sum", (a,), shape, option=tuple(axes)),
}


# 3. PRUNE BACKWARD, APPEND THE OPTIMIZER ----------------------------------------------------------
# Here the scheme comes in, and this is all it takes: gradients that nobody asked for are dropped
# from the results, and with them every value that only they needed. A frozen layer saves no input,
# and the backward pass ends at the first updated layer, because nothing before it is reachable.
# Then the optimizer becomes part of the graph: an update is a value that is written to a parameter.


def updates(gradients: dict[str, Value], scheme: Collection[str]) -> list[Value]:
    """SGD's updates of the parameters of a scheme: parameter - lr * gradient."""
    rate = Value("hyper", (), (), "lr")
    return [
        Value("update", (Value("mul", (g, rate), g.shape),), g.shape, name)
        for name, g in gradients.items()
        if name in scheme
    ]


def reachable(roots: list[Value]) -> list[Value]:
    """All values that some depend on, operands first."""
    found: dict[Value, None] = {}

    def visit(value: Value) -> None:
        for operand in value.args:
            visit(operand)
        found.setdefault(value)

    for root in roots:
        visit(root)
    return list(found)


# 4. FUSE ------------------------------------------------------------------------------------------
# A kernel computes one value into memory. What only one kernel reads need not be in memory at all:
# maps move into the kernel that reads them, and a matmul or sum takes the maps that follow it. So a
# layer's product, its bias and its ReLU are one kernel, and so are a gradient and its update.


def materialized(values: list[Value]) -> list[Value]:
    """The values that kernels write: results, what is read twice, and what loops read."""

    def uses(value: Value) -> list[Value]:
        """Who reads a value, directly or through views."""
        readers = [reader for reader in values for operand in reader.args if operand is value]
        return [u for r in readers for u in (uses(r) if r.op in VIEWS else [r])]

    def is_written(value: Value) -> bool:
        if value.op in VIEWS or not value.args:
            return False
        found = uses(value)
        return len(found) != 1 or found[0].op in HEADS

    return [value for value in values if is_written(value)]


def operands(value: Value, written: Collection[Value]) -> list[Value]:
    """What a kernel reads from memory: other kernels' values and placeholders."""
    found: dict[Value, None] = {}
    for operand in value.args:
        inside = operand not in written and operand.args
        found.update(dict.fromkeys(operands(operand, written) if inside else [operand]))
    return [operand for operand in found if operand.op != "full"]


# 5. ORDER -----------------------------------------------------------------------------------------
# An update overwrites its parameter in place, so whoever reads the old value has to run before it:
# the gradient of layer 1 reads the weight of layer 2. Everything else runs as soon as it can; an
# early update is an early end for its gradient.


def order(written: list[Value]) -> list[Value]:
    """The kernels in an order that respects operands, and readers of what is updated."""
    done: list[Value] = []
    left = list(written)
    while left:
        ready = [kernel for kernel in left if not blocked(kernel, left, written)]
        chosen = next((kernel for kernel in ready if kernel.op == "update"), ready[0])
        done.append(chosen)
        left.remove(chosen)
    return done


def blocked(kernel: Value, left: list[Value], written: list[Value]) -> bool:
    """Whether an operand is still to come, or a reader of the parameter that it overwrites."""
    if any(operand in left for operand in operands(kernel, written)):
        return True
    others = (other for other in left if kernel.op == "update" and other is not kernel)
    return any(o.name == kernel.name for k in others for o in operands(k, written) if o.name)


# 6. PLAN MEMORY -----------------------------------------------------------------------------------
# With the order fixed, every value has a lifetime, and the arena is a packing of rectangles: time
# across, bytes up. Large ones first, each at the lowest place that is free while it lives. A plan
# is checked and not trusted: the checker shares no code with the planner.


def lifetimes(kernels: list[Value]) -> dict[Value, tuple[int, int]]:
    """First and last step of each transient value."""
    kept = {kernel: [step] for step, kernel in enumerate(kernels) if kernel.op != "update"}
    for step, kernel in enumerate(kernels):
        for operand in operands(kernel, kernels):
            if operand in kept:
                kept[operand].append(step)
    return {value: (min(steps), max(steps)) for value, steps in kept.items()}


def plan(lives: dict[Value, tuple[int, int]]) -> dict[Value, int]:
    """Bytes from the arena's start at which each value lies: first fit, largest first."""
    offsets: dict[Value, int] = {}
    for value in sorted(lives, key=nbytes, reverse=True):
        others = [v for v in offsets if overlap(lives[v], lives[value])]
        place = 0
        for other in sorted(others, key=offsets.__getitem__):
            if place + nbytes(value) <= offsets[other]:
                break
            place = max(place, offsets[other] + nbytes(other))
        offsets[value] = place
    return offsets


def nbytes(value: Value) -> int:
    """Of float32."""
    return 4 * math.prod(value.shape)


def overlap(a: tuple[int, int], b: tuple[int, int]) -> bool:
    """Whether two lifetimes share a step."""
    return a[0] <= b[1] and b[0] <= a[1]


def check(lives: dict[Value, tuple[int, int]], offsets: dict[Value, int]) -> int:
    """The arena's size; an error if two values share a byte while both live."""
    size = max(offsets[value] + nbytes(value) for value in lives)
    owner: dict[tuple[int, int], Value] = {}
    for value, (first, last) in lives.items():
        for step in range(first, last + 1):
            for byte in range(offsets[value], offsets[value] + nbytes(value), 4):
                assert owner.setdefault((step, byte), value) is value, "two values share a byte"
    return size


# 7. LOWER AND RUN ---------------------------------------------------------------------------------
# A kernel becomes code: here a line of NumPy, in PockEngine a loop nest and then machine code. The
# trainer is a table of them with addresses. A step walks the table; it decides nothing.


def source(value: Value, local: dict[Value, str]) -> str:
    """The expression that computes a value from the kernel's operands."""
    if value in local:
        return local[value]
    written = [source(operand, local) for operand in value.args]
    form = {**VIEWS, **MAPS, **HEADS}[value.op]
    axes = value.option if value.op != "sum" else value.option or ""
    return form.format(*written, shape=value.shape, option=axes)


class TinyTrainer:
    """A model and a scheme as a table of kernels over one arena."""

    def __init__(self, model: nn.Module, x: Tensor, y: Tensor, scheme: Collection[str]) -> None:
        loss, gradients = legalize(*capture(model, x, y))
        values = reachable([loss, *updates(gradients, scheme)])
        self.kernels = order(materialized(values))
        lives = lifetimes(self.kernels)
        lives[loss] = lives[loss][0], len(self.kernels)  # it is a result
        offsets = plan(lives)
        self.arena = np.zeros(check(lives, offsets), np.uint8)
        self.params = {n: p.detach().numpy().copy() for n, p in model.named_parameters()}
        self.places = {v: self._view(v, offset) for v, offset in offsets.items()}
        self.loss = self.places[loss]
        self.table = [self._entry(kernel) for kernel in self.kernels]

    def _view(self, value: Value, offset: int) -> np.ndarray:
        bytes_ = self.arena[offset : offset + nbytes(value)]
        return bytes_.view(np.float32).reshape(value.shape)

    def _entry(self, kernel: Value) -> tuple[str, Callable[..., None], list[Value]]:
        """A kernel's text, its code, and its operands."""
        read = operands(kernel, self.kernels)
        local = {value: f"a{place}" for place, value in enumerate(read)}
        body = source(kernel.args[0], local) if kernel.op == "update" else source(kernel, local)
        assign = "-=" if kernel.op == "update" else "="
        text = f"def kernel({', '.join(['out', *local.values()])}): out[...] {assign} {body}"
        names: dict[str, object] = {"np": np}
        exec(text, names)  # noqa: S102 - our compiler's back end
        return text, names["kernel"], read  # type: ignore[return-value]

    def step(self, x: Tensor, y: Tensor, lr: float) -> float:
        """One step of training; the loss ahead of it."""
        given = {**self.params, "x": x.numpy(), "y": y.numpy(), "lr": np.float32(lr)}
        for kernel, (_, run, read) in zip(self.kernels, self.table, strict=True):
            out = self.params[kernel.name] if kernel.op == "update" else self.places[kernel]
            run(out, *(given[v.name] if v.name else self.places[v] for v in read))
        return float(self.loss)


# 8. THREE TRAINERS, ONE RUN -----------------------------------------------------------------------


def eager(model: nn.Module, scheme: Collection[str], x: Tensor, y: Tensor) -> Iterator[float]:
    """PyTorch's losses."""
    model = copy.deepcopy(model)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in scheme)
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    while True:
        optimizer.zero_grad()
        loss = loss_of(model(x), y)
        loss.backward()
        optimizer.step()
        yield loss.item()


def main() -> None:
    """Train by all three, with everything updated and by a sparse scheme."""
    torch.manual_seed(0)
    model = nn.Sequential(
        *(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 4))
    )
    x, y = torch.randn(32, 8), torch.randn(32, 4)
    everything = [name for name, _ in model.named_parameters()]
    for title, scheme in {"full": everything, "the last layer": ["4.weight", "4.bias"]}.items():
        tiny = TinyTrainer(model, x, y, scheme)
        chosen = pe.Scheme(dict.fromkeys(scheme, 1.0))
        trainer = pe.compile(model, (x, y), loss="mse", optimizer=pe.SGD(), scheme=chosen)
        print(f"{title}: {len(tiny.table)} kernels, an arena of {tiny.arena.nbytes} bytes")
        for text, _, _ in tiny.table:
            print("   ", text)
        reference = eager(model, scheme, x, y)
        for _ in range(5):
            losses = [tiny.step(x, y, 0.1), trainer.step(x, y, lr=0.1), next(reference)]
            print("    loss: tiny {:.6f}, PockEngine {:.6f}, PyTorch {:.6f}".format(*losses))
            assert np.allclose(losses, losses[-1], rtol=1e-5)


if __name__ == "__main__":
    main()
