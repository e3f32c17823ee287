"""TensorFlow: one tf.function step with the fused momentum update; images channels last."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

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


class _Operations:
    """Over the variables."""

    def __init__(self, task: Task, values: dict[str, Any]) -> None:
        self.shapes, self.length = shapes_of(task.parameters), task.inputs[0].shape[1]
        self.values, self.buffers = values, task.buffers

    def conv(self, x: Any, weight: str, *, stride: int = 1, depthwise: bool = False) -> Any:
        kernel = self.values[weight]
        half = self.shapes[weight][-1] // 2
        pads = [[0, 0], [half, half], [half, half], [0, 0]]
        steps = [1, stride, stride, 1]
        if depthwise:
            return tf.nn.depthwise_conv2d(x, kernel, steps, pads)
        return tf.nn.conv2d(x, kernel, steps, pads if half else "VALID")

    def batch_norm(self, x: Any, name: str) -> Any:
        y, *_ = tf.compat.v1.nn.fused_batch_norm(
            x,
            self.values[f"{name}.weight"],
            self.values[f"{name}.bias"],
            self.buffers[f"{name}.running_mean"],
            self.buffers[f"{name}.running_var"],
            epsilon=BATCH_NORM_EPS,
            is_training=False,
        )
        return y

    def relu(self, x: Any) -> Any:
        return tf.nn.relu(x)

    def relu6(self, x: Any) -> Any:
        return tf.nn.relu6(x)

    def max_pool(self, x: Any) -> Any:
        return tf.nn.max_pool2d(x, 3, 2, [[0, 0], [1, 1], [1, 1], [0, 0]])

    def mean_places(self, x: Any) -> Any:
        return tf.reduce_mean(x, [1, 2])

    def linear(self, x: Any, name: str) -> Any:
        outputs, width = self.shapes[f"{name}.weight"]
        rows = tf.reshape(x, [-1, width])  # one product of two matrices
        y = tf.matmul(rows, self.values[f"{name}.weight"], transpose_b=True)
        bias = self.values.get(f"{name}.bias")
        y = y if bias is None else tf.nn.bias_add(y, bias)
        return tf.reshape(y, [*x.shape[:-1], outputs])

    def add(self, x: Any, y: Any) -> Any:
        return x + y

    def mul(self, x: Any, y: Any) -> Any:
        return x * y

    def layer_norm(self, x: Any, name: str) -> Any:
        mean, variance = tf.nn.moments(x, -1, keepdims=True)
        scale, shift = self.values[f"{name}.weight"], self.values[f"{name}.bias"]
        return tf.nn.batch_normalization(x, mean, variance, shift, scale, LAYER_NORM_EPS)

    def rms_norm(self, x: Any, name: str) -> Any:
        rate = tf.math.rsqrt(tf.reduce_mean(tf.square(x), -1, keepdims=True) + RMS_NORM_EPS)
        return self.values[f"{name}.weight"] * (x * rate)

    def gelu(self, x: Any) -> Any:
        return tf.nn.gelu(x, approximate=False)

    def silu(self, x: Any) -> Any:
        return tf.nn.silu(x)

    def embed(self, name: str, ids: Any) -> Any:
        return tf.gather(self.values[name], ids)

    def rows(self, name: str, begin: int, end: int) -> Any:
        return self.values[name][begin:end]

    def heads(self, x: Any, count: int) -> Any:
        return tf.transpose(tf.reshape(x, [*x.shape[:2], count, -1]), [0, 2, 1, 3])

    def rotate(self, x: Any) -> Any:
        first, second = tf.split(x, 2, -1)
        turned = tf.concat([-second, first], -1)
        cos, sin = (self.buffers[name][: self.length] for name in ("cos", "sin"))
        return x * cos + turned * sin

    def attend(self, q: Any, k: Any, v: Any, bias: Any, scale: float) -> Any:
        scores = tf.matmul(q, k, transpose_b=True) * scale
        mixed = tf.transpose(tf.matmul(tf.nn.softmax(scores + bias), v), [0, 2, 1, 3])
        return tf.reshape(mixed, [*mixed.shape[:2], -1])

    def mask_bias(self, mask: Any) -> Any:
        return (1.0 - tf.cast(mask, tf.float32))[:, None, None, :] * MASKED

    def causal_bias(self) -> Any:
        return causal_bias(self.length)

    def mean_tokens(self, x: Any, mask: Any) -> Any:
        weights = tf.cast(mask, x.dtype)[:, :, None]
        return tf.reduce_sum(x * weights, 1) / tf.reduce_sum(weights, 1)


def prepare(task: Task) -> Peer:
    """The step as a tf.function."""
    tf.config.threading.set_intra_op_parallelism_threads(task.threads)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    values = {n: tf.Variable(weight_last(_spread(a))) for n, a in task.parameters.items()}
    momenta = {name: tf.Variable(tf.zeros_like(value)) for name, value in values.items()}
    inputs = tuple(tf.constant(image_last(array)) for array in task.inputs)
    labels, run = tf.constant(task.labels), network(task.case)

    @tf.function
    def updated(inputs: Any, labels: Any) -> Any:
        with tf.GradientTape() as tape:
            logits = run(_Operations(task, values), *inputs)
            losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
            loss = tf.reduce_mean(losses)
        gradients = tape.gradient(loss, list(values.values()))
        for name, gradient in zip(values, gradients, strict=True):
            tf.raw_ops.ResourceApplyMomentum(
                var=values[name].handle,
                accum=momenta[name].handle,
                lr=LR,
                grad=tf.convert_to_tensor(gradient),
                momentum=MOMENTUM,
            )
        return loss

    trained = sum(int(np.prod(value.shape)) for value in values.values())
    return Peer(
        step=lambda: float(updated(inputs, labels)), trained=trained, version=tf.__version__
    )


def _spread(array: Any) -> Any:
    """A depthwise weight (C, 1, H, W) -> (1, C, H, W), for the order of TensorFlow's."""
    depthwise = array.ndim == 4 and array.shape[1] == 1
    return array.transpose(1, 0, 2, 3) if depthwise else array


if __name__ == "__main__":
    serve(prepare)
