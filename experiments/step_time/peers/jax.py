"""JAX: one jitted step that is given its parameters and momenta to keep; images channels last."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from experiments.step_time.peers.networks import (
    BATCH_NORM_EPS,
    LAYER_NORM_EPS,
    MASKED,
    RMS_NORM_EPS,
    causal_bias,
    image_last,
    network,
    shapes_of,
    weight_last,
)
from experiments.step_time.peers.protocol import LR, MOMENTUM, Peer, Task, serve

_IMAGES = ("NHWC", "HWIO", "NHWC")


class _Operations:
    """Over the parameters of one call of the step."""

    def __init__(self, task: Task, values: dict[str, Any]) -> None:
        self.shapes, self.length = shapes_of(task.parameters), task.inputs[0].shape[1]
        self.values, self.buffers = values, task.buffers

    def conv(self, x: Any, weight: str, *, stride: int = 1, depthwise: bool = False) -> Any:
        kernel = self.values[weight]
        half = kernel.shape[0] // 2
        return lax.conv_general_dilated(
            x,
            kernel,
            (stride, stride),
            ((half, half), (half, half)),
            dimension_numbers=_IMAGES,
            feature_group_count=x.shape[-1] if depthwise else 1,
        )

    def batch_norm(self, x: Any, name: str) -> Any:
        rate = lax.rsqrt(self.buffers[f"{name}.running_var"] + BATCH_NORM_EPS)
        scale = self.values[f"{name}.weight"] * rate
        shift = self.values[f"{name}.bias"] - self.buffers[f"{name}.running_mean"] * scale
        return x * scale + shift

    def relu(self, x: Any) -> Any:
        return jax.nn.relu(x)

    def relu6(self, x: Any) -> Any:
        return jax.nn.relu6(x)

    def max_pool(self, x: Any) -> Any:
        pads = ((0, 0), (1, 1), (1, 1), (0, 0))
        return lax.reduce_window(x, -jnp.inf, lax.max, (1, 3, 3, 1), (1, 2, 2, 1), pads)

    def mean_places(self, x: Any) -> Any:
        return x.mean((1, 2))

    def linear(self, x: Any, name: str) -> Any:
        y = x @ self.values[f"{name}.weight"].T
        bias = self.values.get(f"{name}.bias")
        return y if bias is None else y + bias

    def add(self, x: Any, y: Any) -> Any:
        return x + y

    def mul(self, x: Any, y: Any) -> Any:
        return x * y

    def layer_norm(self, x: Any, name: str) -> Any:
        mean = x.mean(-1, keepdims=True)
        variance = jnp.square(x - mean).mean(-1, keepdims=True)
        normal = (x - mean) * lax.rsqrt(variance + LAYER_NORM_EPS)
        return normal * self.values[f"{name}.weight"] + self.values[f"{name}.bias"]

    def rms_norm(self, x: Any, name: str) -> Any:
        rate = lax.rsqrt(jnp.square(x).mean(-1, keepdims=True) + RMS_NORM_EPS)
        return self.values[f"{name}.weight"] * (x * rate)

    def gelu(self, x: Any) -> Any:
        return jax.nn.gelu(x, approximate=False)

    def silu(self, x: Any) -> Any:
        return jax.nn.silu(x)

    def embed(self, name: str, ids: Any) -> Any:
        return self.values[name][ids]

    def rows(self, name: str, begin: int, end: int) -> Any:
        return self.values[name][begin:end]

    def heads(self, x: Any, count: int) -> Any:
        return x.reshape(*x.shape[:2], count, -1).transpose(0, 2, 1, 3)

    def rotate(self, x: Any) -> Any:
        first, second = jnp.split(x, 2, -1)
        turned = jnp.concatenate([-second, first], -1)
        cos, sin = (self.buffers[name][: self.length] for name in ("cos", "sin"))
        return x * cos + turned * sin

    def attend(self, q: Any, k: Any, v: Any, bias: Any, scale: float) -> Any:
        scores = jnp.einsum("nhld,nhmd->nhlm", q, k) * scale
        mixed = jnp.einsum("nhlm,nhmd->nlhd", jax.nn.softmax(scores + bias, -1), v)
        return mixed.reshape(*mixed.shape[:2], -1)

    def mask_bias(self, mask: Any) -> Any:
        return (1.0 - mask.astype(jnp.float32))[:, None, None, :] * MASKED

    def causal_bias(self) -> Any:
        return causal_bias(self.length)

    def mean_tokens(self, x: Any, mask: Any) -> Any:
        weights = mask.astype(x.dtype)[:, :, None]
        return (x * weights).sum(1) / weights.sum(1)


def prepare(task: Task) -> Peer:
    """The jitted step."""
    run = network(task.case)

    def loss_of(values: dict[str, Any], inputs: tuple[Any, ...], labels: Any) -> Any:
        logits = run(_Operations(task, values), *inputs)
        shares = jax.nn.log_softmax(logits, -1)
        return -jnp.take_along_axis(shares, labels[..., None], -1).mean()

    @partial(jax.jit, donate_argnums=(0, 1))
    def updated(values: Any, momenta: Any, inputs: Any, labels: Any) -> tuple[Any, Any, Any]:
        loss, gradients = jax.value_and_grad(loss_of)(values, inputs, labels)
        momenta = jax.tree.map(lambda m, g: MOMENTUM * m + g, momenta, gradients)
        return jax.tree.map(lambda v, m: v - LR * m, values, momenta), momenta, loss

    held: list[Any] = [{n: jnp.array(weight_last(a)) for n, a in task.parameters.items()}]
    held.append(jax.tree.map(jnp.zeros_like, held[0]))
    inputs = tuple(jnp.array(image_last(array)) for array in task.inputs)
    labels = jnp.array(task.labels)

    def step() -> float:
        held[0], held[1], loss = updated(*held, inputs, labels)
        jax.block_until_ready(held)
        return float(loss)

    trained = sum(value.size for value in held[0].values())
    return Peer(step=step, trained=trained, version=jax.__version__)


if __name__ == "__main__":
    serve(prepare)
