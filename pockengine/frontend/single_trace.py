"""The joint graph of a module whose forward pass writes none of its tensors, in one trace.

PyTorch's tracer records the forward pass and autograd's backward pass in one run, on fake tensors
and made functional, as AOTAutograd does it; what AOTAutograd finds out ahead of that, in a run of
its own, is not needed where only the loss is differentiated and nothing is written.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch._dynamo  # make_fx would load it in the middle of the first capture
from torch import Tensor, nn
from torch._dispatch.python import enable_python_dispatcher
from torch._functorch._aot_autograd.descriptors import (
    BufferAOTInput,
    GradAOTOutput,
    ParamAOTInput,
    PlainAOTInput,
    PlainAOTOutput,
)
from torch._functorch._aot_autograd.functional_utils import from_fun, has_data_mutation, to_fun
from torch._guards import TracingContext, tracing
from torch._subclasses import FakeTensor, FakeTensorMode
from torch._subclasses.fake_tensor import DataDependentOutputException
from torch._subclasses.functional_tensor import FunctionalTensorMode
from torch.fx.experimental.proxy_tensor import make_fx
from torch.fx.experimental.symbolic_shapes import ShapeEnv
from torch.nn.utils.stateless import _reparametrize_module

from pockengine.errors import CaptureError


class _WrittenError(Exception):
    """The forward pass writes one of the tensors it is given."""


def single_trace(
    wrapper: nn.Module,
    batch: tuple[Tensor, ...],
    mode: FakeTensorMode,
    decompositions: Mapping[Any, Any],
) -> torch.fx.GraphModule | None:
    """The ATen graph of loss, outputs and gradients, or None where AOTAutograd has to find it.

    Placeholders and outputs carry AOTAutograd's descriptors in ``meta["desc"]``; the gradient of
    the loss, a placeholder too, has none.

    Args:
        wrapper: gives the loss, and outputs that are not differentiated.
        batch: what it is called with.
        mode: for the fake tensors.
        decompositions: of ops that are traced in terms of others.

    Raises:
        CaptureError: the model refused to be captured.
    """
    parameters = dict(wrapper.named_parameters(remove_duplicate=False))
    owned = {**parameters, **dict(wrapper.named_buffers(remove_duplicate=False))}
    real = [*owned.values(), *(tensor.detach() for tensor in batch)]  # given twice, it is two
    trace = make_fx(_joint(wrapper, tuple(owned)), decomposition_table=dict(decompositions))
    try:
        module = _traced(trace, real, mode)
    except CaptureError:
        raise
    except DataDependentOutputException:
        found = _traced_past_asserts(trace, real)
        if found is None:
            return None
        module = found
    except Exception:  # noqa: BLE001 - AOTAutograd can do more, and says better what it cannot do
        return None
    _describe(module, list(owned), frozenset(parameters), len(batch))
    return module


def _traced(
    trace: Callable[..., torch.fx.GraphModule], real: Sequence[Tensor], mode: FakeTensorMode
) -> torch.fx.GraphModule:
    """The graph of what a function does with tensors and a tangent."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(mode)
        fakes: list[Tensor] = [
            t if isinstance(t, FakeTensor) else mode.from_tensor(t) for t in real
        ]
        fakes.append(torch.ones(()))
        stack.enter_context(enable_python_dispatcher())
        stack.enter_context(FunctionalTensorMode())
        module = trace(*fakes)
    module.graph.eliminate_dead_code()
    return module


def _traced_past_asserts(
    trace: Callable[..., torch.fx.GraphModule], real: Sequence[Tensor]
) -> torch.fx.GraphModule | None:
    """The graph where numbers are taken out of tensors for ``assert`` alone, or None.

    What is asserted of them is left out, as the numbers are not known; PyTorch tells an ``assert``
    from an ``if`` by the caller's bytecode.
    """
    asserting = ShapeEnv(
        allow_scalar_outputs=True, allow_dynamic_output_shape_ops=False, trace_asserts=True
    )
    mode = FakeTensorMode(allow_non_fake_inputs=True, shape_env=asserting, static_shapes=True)
    try:
        with tracing(TracingContext(mode)):
            module = _traced(trace, real, mode)
    except Exception:  # noqa: BLE001 - AOTAutograd says what it is
        return None
    symbols = (torch.SymInt, torch.SymFloat, torch.SymBool)
    used = any(isinstance(node.meta.get("val"), symbols) for node in module.graph.nodes)
    return None if used else module


def _joint(wrapper: nn.Module, names: tuple[str, ...]) -> Callable[..., list[Any]]:
    """The forward and backward pass as a function of the owned tensors, the batch and a tangent.

    It yields the loss, the outputs and the gradient of each owned tensor, None where there is none.
    """

    def joint(*tensors: Tensor) -> list[Any]:
        with torch._C._ExcludeDispatchKeyGuard(  # noqa: SLF001 - AOTAutograd's way to wrap inputs
            torch._C.DispatchKeySet(torch._C.DispatchKey.Functionalize)  # noqa: SLF001
        ):
            *inputs, tangent = (to_fun(tensor) for tensor in tensors)
        owned = dict(zip(names, inputs, strict=False))
        with _reparametrize_module(wrapper, owned):
            loss, *outputs = wrapper(*inputs[len(owned) :])
        if any(has_data_mutation(tensor) for tensor in inputs):
            raise _WrittenError
        trained = {name: t for name, t in owned.items() if t.requires_grad}
        found: dict[str, Tensor] = {}
        if trained and loss.requires_grad:
            values = torch.autograd.grad(loss, [*trained.values()], tangent, allow_unused=True)
            found = dict(zip(trained, values, strict=True))
        return [from_fun(value) for value in (loss, *outputs, *map(found.get, names))]

    return joint


def _describe(
    module: torch.fx.GraphModule, names: list[str], parameters: frozenset[str], inputs: int
) -> None:
    owned = [ParamAOTInput(n) if n in parameters else BufferAOTInput(n) for n in names]
    described = [*owned, *map(PlainAOTInput, range(inputs)), None]
    for node, description in zip(module.graph.find_nodes(op="placeholder"), described, strict=True):
        node.meta["desc"] = description
    out = module.graph.output_node()
    values: Any = out.args[0]
    outputs = map(PlainAOTOutput, range(len(values) - len(owned)))
    out.meta["desc"] = [*outputs, *(GradAOTOutput(each) for each in owned)]
