"""The layers of a model as tiles, grouped by block: what a choice updates, and where it ends."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pockengine.contribution.by_layer import blocks_of
from pockengine.contribution.choice import Choice
from pockengine.contribution.layers import Layer
from pockengine.contribution.markup import Markup, tag
from pockengine.contribution.wording import counted, of_weight, part

_LEGEND = (
    ("tile off", "", 0.0, "not reached by the backward pass"),
    ("tile", "", 0.0, "frozen, gradients pass through"),
    ("tile bias", "", 0.0, "biases updated"),
    ("tile weight", "1/2", 0.5, "part of the weight updated"),
    ("tile weight bias", "all", 1.0, "whole weight and biases updated"),
)


def network(layers: Sequence[Layer], choice: Choice) -> Markup:
    """A list of blocks and their layers, and what the marks mean."""
    first = choice.first(len(layers))
    groups = [_block(block, indices, layers, choice) for block, indices in blocks_of(layers)]
    head = tag("li", tag("span", " ", class_="block"), tag("ol", *_of_head(first == len(layers))))
    drawing = tag(
        "ol",
        *groups,
        head,
        class_="network many" if len(layers) > 80 else "network",
        aria_label="The network, first layer first",
    )
    samples = [
        tag("li", tag("span", mark, class_=f"{kind} sample", style=_filled(ratio)), text)
        for kind, mark, ratio, text in _LEGEND
    ]
    return Markup(drawing + tag("ul", *samples, class_="legend"))


def reach_text(layers: Sequence[Layer], choice: Choice) -> str:
    """Where the backward pass of a choice ends, in a sentence."""
    first = choice.first(len(layers))
    if first == len(layers):
        return "The backward pass ends at the head: no gradient goes further."
    end = f"The backward pass ends at layer {first}, {layers[first].name}"
    return (
        f"{end}: {counted(first, 'layer')} before it only run forward."
        if first
        else f"{end}, the first."
    )


def _block(block: str, indices: Sequence[int], layers: Sequence[Layer], choice: Choice) -> Markup:
    tiles = [tile for index in indices for tile in _layer(index, layers, choice)]
    name = tag("span", block or " ", class_="block", title=block or None)
    return tag("li", name, tag("ol", *tiles))


def _layer(index: int, layers: Sequence[Layer], choice: Choice) -> Iterator[Markup]:
    first = choice.first(len(layers))
    if index == first:
        yield _end()
    ratio = choice.weights.get(index, 0.0)
    has_bias = index >= len(layers) - choice.biases and bool(layers[index].biases)
    kinds = ["tile", *["off"] * (index < first), *["weight"] * bool(ratio), *["bias"] * has_bias]
    told = [*["biases"] * has_bias, *([of_weight(ratio)] if ratio else [])]
    frozen = "not reached" if index < first else "frozen, gradients pass through"
    what = f"{' and '.join(told)} updated" if told else frozen
    hint = f"Layer {index}, {layers[index].name} ({layers[index].role}): {what}"
    mark = "" if not ratio else "all" if part(ratio) == "whole" else part(ratio)
    yield _tile(str(index), " ".join(kinds), hint, ratio, mark)


def _tile(number: str, kinds: str, hint: str, ratio: float, mark: str) -> Markup:
    shown = (
        tag("span", number, class_="number", aria_hidden="true"),
        tag("b", mark, aria_hidden="true"),
    )
    told = tag("span", hint, class_="unseen")
    return tag("li", *shown, told, class_=kinds, title=hint, style=_filled(ratio))


def _filled(ratio: float) -> str | None:
    return f"--part:{ratio:g}" if ratio else None


def _end() -> Markup:
    return tag("li", "backward ends", class_="end")


def _of_head(ends: bool) -> Iterator[Markup]:
    if ends:
        yield _end()
    yield _tile("head", "tile weight bias", "Head: updated as a whole", 1.0, "all")
