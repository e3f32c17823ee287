"""The networks of ``settings.CASES``, written once for all peers that are not PyTorch.

Each is a function of a peer's own operations (``Operations``) and its inputs. Names are those of
PyTorch's parameters; sizes are read off the parameters.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

BATCH_NORM_EPS = 1e-5
LAYER_NORM_EPS = 1e-12
RMS_NORM_EPS = 1e-6
MASKED = -1e9

_STRIDES = {2: 2, 4: 2, 7: 2, 14: 2}  # of MobileNetV2's blocks, by number; else 1
_MINI_LM_HEADS = 12
_LLAMA_HEADS = 8


class Operations(Protocol):
    """What a peer brings. Values are its own; ``shapes`` are those of PyTorch's parameters."""

    shapes: Mapping[str, tuple[int, ...]]
    length: int  # of a sequence

    def conv(self, x: Any, weight: str, *, stride: int = 1, depthwise: bool = False) -> Any:
        """Without bias; pads by half of the window."""

    def batch_norm(self, x: Any, name: str) -> Any:
        """By the running statistics."""

    def relu(self, x: Any) -> Any: ...  # noqa: D102

    def relu6(self, x: Any) -> Any: ...  # noqa: D102

    def max_pool(self, x: Any) -> Any:
        """Windows of 3 by 3, stride 2, padded by 1."""

    def mean_places(self, x: Any) -> Any:
        """The mean of an image: (N, C)."""

    def linear(self, x: Any, name: str) -> Any:
        """With a bias where there is one."""

    def add(self, x: Any, y: Any) -> Any: ...  # noqa: D102

    def mul(self, x: Any, y: Any) -> Any: ...  # noqa: D102

    def layer_norm(self, x: Any, name: str) -> Any: ...  # noqa: D102

    def rms_norm(self, x: Any, name: str) -> Any: ...  # noqa: D102

    def gelu(self, x: Any) -> Any:
        """The exact one."""

    def silu(self, x: Any) -> Any: ...  # noqa: D102

    def embed(self, name: str, ids: Any) -> Any:
        """Rows of a table."""

    def rows(self, name: str, begin: int, end: int) -> Any:
        """Neighbouring rows of a table."""

    def heads(self, x: Any, count: int) -> Any:
        """(N, L, D) -> (N, count, L, D / count)."""

    def rotate(self, x: Any) -> Any:
        """By the places' rotations ``cos`` and ``sin`` of the buffers."""

    def attend(self, q: Any, k: Any, v: Any, bias: Any, scale: float) -> Any:
        """Attention of all heads, joined: (N, L, D); ``bias`` is added to the scaled scores."""

    def mask_bias(self, mask: Any) -> Any:
        """(N, L) of ones and zeros -> (N, 1, 1, L), ``MASKED`` where there is a zero."""

    def causal_bias(self) -> Any:
        """(L, L), ``MASKED`` above the diagonal."""

    def mean_tokens(self, x: Any, mask: Any) -> Any:
        """(N, L, D) -> (N, D), where the mask has ones."""


def mobilenet_v2(ops: Operations, images: Any) -> Any:
    """Logits (N, classes); torchvision's names."""
    x = _normed(ops, images, "features.0", stride=2)
    for block in range(1, 18):
        x = _inverted_residual(ops, x, f"features.{block}.conv", _STRIDES.get(block, 1))
    return ops.linear(ops.mean_places(_normed(ops, x, "features.18")), "classifier.1")


def _normed(ops: Operations, x: Any, name: str, *, stride: int = 1, depthwise: bool = False) -> Any:
    y = ops.conv(x, f"{name}.0.weight", stride=stride, depthwise=depthwise)
    return ops.relu6(ops.batch_norm(y, f"{name}.1"))


def _inverted_residual(ops: Operations, x: Any, name: str, stride: int) -> Any:
    expands = f"{name}.3.weight" in ops.shapes
    y = _normed(ops, x, f"{name}.0") if expands else x
    y = _normed(ops, y, f"{name}.{int(expands)}", stride=stride, depthwise=True)
    last = 1 + expands
    y = ops.batch_norm(ops.conv(y, f"{name}.{last}.weight"), f"{name}.{last + 1}")
    inputs = ops.shapes[f"{name}.0.0.weight"][int(expands)]
    outputs = ops.shapes[f"{name}.{last}.weight"][0]
    return ops.add(x, y) if stride == 1 and inputs == outputs else y


def resnet18(ops: Operations, images: Any) -> Any:
    """Logits (N, classes); two basic blocks a stage."""
    x = ops.relu(ops.batch_norm(ops.conv(images, "features.0.0.weight", stride=2), "features.0.1"))
    x = ops.max_pool(x)
    for block in range(8):
        x = _basic_block(ops, x, f"features.{block + 2}", 2 if block in (2, 4, 6) else 1)
    return ops.linear(ops.mean_places(x), "classifier")


def _basic_block(ops: Operations, x: Any, name: str, stride: int) -> Any:
    first, second, shortcut = (f"{name}.{part}" for part in ("layers.0", "layers.1", "shortcut"))
    y = ops.conv(x, f"{first}.0.weight", stride=stride)
    y = ops.relu(ops.batch_norm(y, f"{first}.1"))
    y = ops.batch_norm(ops.conv(y, f"{second}.0.weight"), f"{second}.1")
    if f"{shortcut}.0.weight" in ops.shapes:
        x = ops.conv(x, f"{shortcut}.0.weight", stride=stride)
        x = ops.batch_norm(x, f"{shortcut}.1")
    return ops.relu(ops.add(y, x))


def mini_lm(ops: Operations, ids: Any, mask: Any) -> Any:
    """Logits (N, classes); BERT's names."""
    tables = "embeddings.{}_embeddings"
    x = ops.add(
        ops.embed(tables.format("word") + ".weight", ids),
        ops.add(
            ops.rows(tables.format("position") + ".weight", 0, ops.length),
            ops.rows(tables.format("token_type") + ".weight", 0, 1),
        ),
    )
    x = ops.layer_norm(x, "embeddings.LayerNorm")
    bias = ops.mask_bias(mask)
    layer = 0
    while f"encoder.layer.{layer}.output.dense.weight" in ops.shapes:
        x = _bert_layer(ops, x, bias, f"encoder.layer.{layer}")
        layer += 1
    return ops.linear(ops.mean_tokens(x, mask), "classifier")


def _bert_layer(ops: Operations, x: Any, bias: Any, name: str) -> Any:
    q, k, v = (
        ops.heads(ops.linear(x, f"{name}.attention.self.{part}"), _MINI_LM_HEADS)
        for part in ("query", "key", "value")
    )
    scale = _scale(ops, f"{name}.attention.self.query", _MINI_LM_HEADS)
    y = ops.linear(ops.attend(q, k, v, bias, scale), f"{name}.attention.output.dense")
    x = ops.layer_norm(ops.add(y, x), f"{name}.attention.output.LayerNorm")
    y = ops.gelu(ops.linear(x, f"{name}.intermediate.dense"))
    return ops.layer_norm(
        ops.add(ops.linear(y, f"{name}.output.dense"), x), f"{name}.output.LayerNorm"
    )


def _scale(ops: Operations, query: str, heads: int) -> float:
    """Of attention scores."""
    return float((ops.shapes[f"{query}.weight"][0] / heads) ** -0.5)


def llama(ops: Operations, ids: Any) -> Any:
    """Logits (N, L, vocabulary)."""
    x = ops.embed("words.weight", ids)
    bias = ops.causal_bias()
    layer = 0
    while f"layers.{layer}.q.weight" in ops.shapes:
        x = _llama_layer(ops, x, bias, f"layers.{layer}")
        layer += 1
    return ops.linear(ops.rms_norm(x, "norm"), "head")


def _llama_layer(ops: Operations, x: Any, bias: Any, name: str) -> Any:
    y = ops.rms_norm(x, f"{name}.first")
    q, k, v = (ops.heads(ops.linear(y, f"{name}.{part}"), _LLAMA_HEADS) for part in "qkv")
    scale = _scale(ops, f"{name}.q", _LLAMA_HEADS)
    y = ops.attend(ops.rotate(q), ops.rotate(k), v, bias, scale)
    x = ops.add(x, ops.linear(y, f"{name}.o"))
    y = ops.rms_norm(x, f"{name}.second")
    gate = ops.silu(ops.linear(y, f"{name}.gate"))
    return ops.add(x, ops.linear(ops.mul(gate, ops.linear(y, f"{name}.up")), f"{name}.down"))


def network(case: str) -> Callable[..., Any]:
    """The network of a case, by the name ahead of its batch."""
    found: dict[str, Callable[..., Any]] = {
        "mobilenet_v2": mobilenet_v2,
        "mobilenet_v2-035": mobilenet_v2,
        "resnet18": resnet18,
        "mini_lm": mini_lm,
        "llama": llama,
    }
    return found[case.rpartition("-")[0]]


def shapes_of(parameters: Mapping[str, NDArray[Any]]) -> dict[str, tuple[int, ...]]:
    """Shapes by name."""
    return {name: array.shape for name, array in parameters.items()}


def causal_bias(length: int) -> NDArray[Any]:
    """(L, L), ``MASKED`` above the diagonal."""
    return np.triu(np.full((length, length), MASKED, np.float32), 1)


def weight_last(array: NDArray[Any]) -> NDArray[Any]:
    """A convolution's weight (O, I, H, W) -> (H, W, I, O); others as they are."""
    return np.ascontiguousarray(array.transpose(2, 3, 1, 0)) if array.ndim == 4 else array


def image_last(array: NDArray[Any]) -> NDArray[Any]:
    """Images (N, C, H, W) -> (N, H, W, C); others as they are, whole numbers in 32 bits."""
    if array.ndim == 4:
        return np.ascontiguousarray(array.transpose(0, 2, 3, 1))
    return array.astype(np.int32) if array.dtype == np.int64 else array
