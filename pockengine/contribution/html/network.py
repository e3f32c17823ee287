"""The layers of a model as tiles, grouped by block: what a choice updates, and where it ends."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pockengine.contribution.choice import Choice
from pockengine.contribution.html.by_layer import blocks_of
from pockengine.contribution.html.markup import Markup, joined, tag
from pockengine.contribution.layers import Layer
from pockengine.contribution.wording import counted, of_weight, part

_MANY = 80
"""Above so many layers, tiles are smaller."""


@dataclass(frozen=True, slots=True)
class _Tile:
    """A layer: what of it is updated, and whether the backward pass comes there.

    Args:
        ratio: part of its weight.
        biases: whether its biases are updated.
        reached: by the backward pass.
    """

    ratio: float = 0.0
    biases: bool = False
    reached: bool = True

    @property
    def mark(self) -> str:
        """The part of the weight, as short as can be."""
        text = part(self.ratio) if self.ratio else ""
        return "all" if text == "whole" else text

    @property
    def told(self) -> str:
        """The same in words."""
        updated = ["biases"] * self.biases + ([of_weight(self.ratio)] if self.ratio else [])
        if updated:
            return f"{' and '.join(updated)} updated"
        return "frozen, gradients pass through" if self.reached else "not reached"

    def drawn(self, name: str, *more: str, kind: str = "") -> Markup:
        """A list item or, with another tag, a sample of one."""
        flags = {"off": not self.reached, "weight": self.ratio > 0, "bias": self.biases}
        classes = " ".join(["tile", *(flag for flag, is_set in flags.items() if is_set), kind])
        style = f"--part:{self.ratio:g}" if self.ratio else None
        mark = tag("b", self.mark, aria_hidden="true")
        return tag(name, *more, mark, class_=classes.strip(), style=style)


def network(layers: Sequence[Layer], choice: Choice) -> Markup:
    """A list of blocks and their layers, and what the marks mean."""
    tiles = [_tile(index, layers, choice) for index in range(len(layers))]
    blocks = [_group(block, _items(indices, layers, tiles)) for block, indices in blocks_of(layers)]
    ends = [_end()] if choice.first(len(layers)) == len(layers) else []
    head = _Tile(1.0, biases=True).drawn("li", *_words("head", "Head: updated as a whole"))
    kind = "network many" if len(layers) > _MANY else "network"
    label = "The network, first layer first"
    drawing = tag("ol", *blocks, _group("", [*ends, head]), class_=kind, aria_label=label)
    return joined([drawing, tag("ul", *_legend(tiles), class_="legend")])


def reach_text(layers: Sequence[Layer], choice: Choice) -> str:
    """Where the backward pass of a choice ends, in a sentence."""
    first = choice.first(len(layers))
    if first == len(layers):
        return "The backward pass ends at the head: no gradient goes further."
    end = f"The backward pass ends at layer {first}, {layers[first].name}"
    if first == 0:
        return f"{end}, the first."
    return f"{end}; {counted(first, 'layer')} before it only run forward."


def _tile(index: int, layers: Sequence[Layer], choice: Choice) -> _Tile:
    count = len(layers)
    return _Tile(
        ratio=choice.weights.get(index, 0.0),
        biases=index >= count - choice.biases and bool(layers[index].biases),
        reached=index >= choice.first(count),
    )


def _items(
    indices: Sequence[int], layers: Sequence[Layer], tiles: Sequence[_Tile]
) -> Iterator[Markup]:
    for index in indices:
        if tiles[index].reached and (index == 0 or not tiles[index - 1].reached):
            yield _end()
        layer, tile = layers[index], tiles[index]
        hint = f"Layer {index}, {layer.name} ({layer.role}): {tile.told}"
        yield tile.drawn("li", *_words(str(index), hint))


def _words(number: str, hint: str) -> list[Markup]:
    """What is seen of a tile, and what is read aloud or pointed at."""
    seen = tag("span", number, class_="number", aria_hidden="true", title=hint)
    return [seen, tag("span", hint, class_="unseen")]


def _group(block: str, items: Sequence[Markup] | Iterator[Markup]) -> Markup:
    name = tag("span", block or " ", class_="block", title=block or None)
    return tag("li", name, tag("ol", *items))


def _end() -> Markup:
    return tag("li", "backward ends", class_="end")


def _legend(tiles: Sequence[_Tile]) -> Iterator[Markup]:
    """The kinds of tiles that there are; the head is always one of the last."""
    plain = _Tile()
    entries = (
        (
            _Tile(reached=False),
            "not reached by the backward pass",
            any(not tile.reached for tile in tiles),
        ),
        (plain, "frozen, gradients pass through", plain in tiles),
        (_Tile(biases=True), "biases updated", True),
        (_Tile(0.5), "part of the weight updated", any(0 < tile.ratio < 1 for tile in tiles)),
        (_Tile(1.0), "whole weight updated", True),
    )
    for tile, text, is_there in entries:
        if is_there:
            yield tag("li", tile.drawn("span", kind="sample"), text)
