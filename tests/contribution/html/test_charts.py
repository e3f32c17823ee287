"""Charts: marks are where their values are."""

from __future__ import annotations

import re

import pytest

from pockengine.contribution.choice import Choice
from pockengine.contribution.html.by_layer import contribution_chart, cost_charts, gains_hint
from pockengine.contribution.html.charts import bias_chart, checked_chart, front_chart
from pockengine.contribution.html.drawing import BOTTOM, TOP
from pockengine.contribution.html.network import network
from pockengine.contribution.shown import Checked, FrontPoint, LayerCost
from pockengine.contribution.wording import with_interval
from tests.contribution.synthetic import plain_layers, sensitivity


def dots(drawing: str, kind: str) -> list[tuple[float, float]]:
    """Places of the points of a kind: percent from the left, pixels from the top."""
    places = r'cx="([\d.]+)%" cy="([\d.]+)" r="[\d.]+" class="' + kind
    return [(float(x), float(y)) for x, y in re.findall(places, drawing)]


def ticks(drawing: str) -> dict[str, float]:
    """Pixels from the top of each label upwards."""
    found = re.findall(r'<text x="44" y="([\d.]+)"[^>]*>([^<]*)<', drawing)
    return {text: float(y) for y, text in found}


def test_gains_are_at_their_layers_and_heights() -> None:
    """A mark lies within its layer's column, and as high as its gain by the labels."""
    found = sensitivity(plain_layers(4))
    drawing = contribution_chart(found)
    labels = ticks(drawing)
    places = dots(drawing, "part")
    assert len(places) == len(found.weights)
    top = next(text for text in reversed(labels) if text.startswith("+"))
    per_point = (labels["0"] - labels[top]) / float(top)
    assert per_point > 0
    for (index, _), gain, (x, y) in zip(found.weights, found.weights.values(), places, strict=True):
        assert index < x / 25 < index + 1
        assert y == pytest.approx(labels["0"] - 100 * gain.mean * per_point, abs=0.2)


def test_what_is_told_of_a_layer() -> None:
    """Its biases are those from there to the end."""
    found = sensitivity(plain_layers(4))
    told = gains_hint(found, 1)
    assert told.startswith("Layer 1: layer1 (linear, ")
    assert f"(last 3): {with_interval(found.biases[2])} points" in told
    assert f"1/4: {with_interval(found.weights[1, 0.25])} points" in told


def test_biases_and_the_chosen_count() -> None:
    """From none at the left to all at the right; the chosen one is ringed."""
    found = sensitivity(plain_layers(4))
    drawing = bias_chart(found, Choice(3))
    places = dots(drawing, "bias")
    assert len(places) == 5
    assert places == sorted(places)
    assert dots(drawing, "chosen") == [places[3]]


def test_costs() -> None:
    """Twice the memory is twice as high; biases are apart from weights."""
    layers = plain_layers(2)
    costs = [
        LayerCost(layer=0, ratio=0.0, memory_bytes=3000),
        LayerCost(layer=0, ratio=1.0, memory_bytes=2048),
        LayerCost(layer=1, ratio=1.0, memory_bytes=4096),
    ]
    _, drawing = cost_charts(layers, costs)
    (_, low), (_, high) = dots(drawing, "part")
    zero = ticks(drawing)["0"]
    assert zero - high == pytest.approx(2 * (zero - low), abs=0.3)
    assert drawing.count('class="biases"') == 1


def test_a_front_rises() -> None:
    """More memory is further right, more gain higher; the chosen point is ringed."""
    layers = plain_layers(2)
    points = [FrontPoint(choice=Choice(k), gain=0.01 * k, memory_bytes=999 * k) for k in (2, 1)]
    drawing = front_chart(points, points[0], layers)
    (x1, y1), (x2, y2) = dots(drawing, "bias")
    assert x1 < x2
    assert y1 > y2
    assert dots(drawing, "chosen") == [(x2, y2)]


def test_what_came_true_is_on_the_diagonal() -> None:
    """Equal places on both axes where measured is predicted; above it where more was measured."""
    values = ((0.02, 0.02), (0.03, 0.04))
    checked = [
        Checked(choice=Choice(0), predicted=a, measured=b, low=b - 0.01, high=b + 0.01)
        for a, b in values
    ]
    (x1, y1), (x2, y2) = dots(checked_chart(checked, plain_layers(1)), "bias")
    height = 380 - TOP - BOTTOM
    assert 100 - x1 == pytest.approx(100 * (y1 - TOP) / height, abs=0.1)
    assert 100 - x2 > 100 * (y2 - TOP) / height + 1


def test_the_backward_pass_ends_before_the_first_updated_layer() -> None:
    """The mark of the end stands between what is not reached and what is."""
    kinds = re.findall(
        r'<li class="(tile[^"]*|end)"', network(plain_layers(4), Choice(1, {2: 0.5}))
    )
    assert kinds == ["tile off", "tile off", "end", "tile weight", "tile bias", "tile weight bias"]
    alone = re.findall(r'<li class="(tile[^"]*|end)"', network(plain_layers(1), Choice(0)))
    assert alone == ["tile off", "end", "tile weight bias"]
