"""The page of a sensitivity: its figures, its escapes, and how it behaves in a browser."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from math import nan
from pathlib import Path

import pytest

from pockengine.contribution.choice import Choice
from pockengine.contribution.html.page import page
from pockengine.contribution.layers import Layer
from pockengine.contribution.shown import FrontPoint
from pockengine.contribution.table import table
from pockengine.contribution.wording import bytes_text, points, with_interval
from pockengine.errors import InputError
from tests.browser import Browser, find_browser
from tests.contribution import synthetic
from tests.contribution.synthetic import (
    alone,
    bert_layers,
    mobilenet_layers,
    plain_layers,
    sensitivity,
)

BROWSER = find_browser()
COMMAND = 'pockengine compile model.py --scheme "<mine> & yours.json" --target raspberry-pi-4'
VOID = {"meta", "link", "br", "input"}


class Parsed(HTMLParser):
    """The elements of a page by tag, its text, and whether each is closed by its own end."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note it."""
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        """Ends must nest."""
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        """Note what is not a style or a script."""
        if self.open and self.open[-1] not in ("style", "script"):
            self.words.append(data)

    @property
    def text(self) -> str:
        """All words."""
        return " ".join(self.words)

    def ids(self) -> set[str]:
        """Of its sections."""
        return {str(found["id"]) for tag, found in self.elements if tag == "section"}


def whole_page(layers: tuple[Layer, ...]) -> str:
    """A page with all that it can show."""
    found, costs = sensitivity(layers), synthetic.costs(layers)
    front = synthetic.front(costs, found)
    return page(
        found, costs=costs, front=front, chosen=front[len(front) // 3],
        checked=synthetic.checked(front[::2]), command=COMMAND, title="A <model> & its layers",
    )  # fmt: skip


@pytest.mark.parametrize(
    "layers",
    [mobilenet_layers(), bert_layers(), plain_layers(1), plain_layers(200)],
    ids=["mobilenet", "bert", "one", "many"],
)
def test_a_whole_page(layers: tuple[Layer, ...]) -> None:
    """It parses, fetches nothing, and has a column and a tile a layer."""
    text = whole_page(layers)
    found = Parsed(text)
    assert found.ids() == {"chosen", "front", "weights", "biases", "costs", "checked", "settings"}
    assert not re.search(r"https?:|@import|url\(", text)
    assert not [e for e in found.elements if e[1].get("src") or e[0] in ("img", "iframe")]
    classes = [str(attributes.get("class")) for _, attributes in found.elements]
    assert classes.count("hit") == 4 * len(layers)  # gains and three costs
    assert (
        sum(name.split()[0] == "tile" and "sample" not in name for name in classes)
        == len(layers) + 1
    )
    assert classes.count("end") == 1
    assert COMMAND in found.words


def test_figures() -> None:
    """Gains with intervals, costs, the chosen choice and what was checked are in its text."""
    layers = mobilenet_layers()
    measured, costs = sensitivity(layers), synthetic.costs(layers)
    front = synthetic.front(costs, measured)
    checked = synthetic.checked(front)
    text = Parsed(page(measured, costs=costs, front=front, chosen=front[5], checked=checked)).text
    for gain in (*measured.biases, *measured.weights.values()):
        assert with_interval(gain) in text
    assert f"chosen: {points(front[5].gain)}, {bytes_text(front[5].memory_bytes)}" in text
    assert all(bytes_text(cost.memory_bytes) in text for cost in costs)
    assert all(points(each.measured) in text for each in checked)
    assert "The biases and weights of 52 layers" in text
    assert "63.4\N{NO-BREAK SPACE}%" in text


def test_nothing_given_is_nothing_shown() -> None:
    """Sections without data are left out, down to the settings alone."""
    found = sensitivity(plain_layers(4))
    assert Parsed(page(found)).ids() == {"weights", "biases", "settings"}
    bare = replace(found, weights={}, biases=(), settings={}, rank_correlation=None)
    assert Parsed(page(bare)).ids() == {"settings"}
    assert Parsed(page(bare, command="pockengine compile mlp")).ids() == {"chosen", "settings"}


def test_a_model_that_is_a_head() -> None:
    """Without layers there is a page and a table still."""
    found = replace(
        sensitivity(plain_layers(1)), layers=(), biases=(), weights={}, rank_correlation=nan
    )
    chosen = FrontPoint(choice=Choice(0), gain=0.0, memory_bytes=1000)
    text = Parsed(page(found, chosen=chosen)).text
    assert "The backward pass ends at the head" in text
    assert "nan" not in text
    assert "0 layers" in table(found)


def test_one_seed_has_no_interval() -> None:
    """Of a single run, no line is drawn and nothing is called clear."""
    found = sensitivity(plain_layers(3))
    weights = {key: alone(gain) for key, gain in found.weights.items()}
    biases = tuple(alone(gain) for gain in found.biases)
    text = page(replace(found, weights=weights, biases=biases))
    assert 'class="whisker"' in page(found)
    assert 'class="whisker"' not in text
    assert 'unclear"' not in text
    assert "clearly above zero" in page(found)
    assert "clearly above zero" not in text
    assert "A single seed says nothing" in text


def test_costs_that_are_not_known() -> None:
    """A target without rates has a chart of memory alone."""
    layers = plain_layers(3)
    costs = [replace(cost, step_ms=None, joules=None) for cost in synthetic.costs(layers)]
    found = Parsed(page(sensitivity(layers), costs=costs))
    labels = [str(e.get("aria-label")) for tag, e in found.elements if tag == "svg"]
    assert [label for label in labels if "of updating parts" in label and "Gain" not in label] == [
        "Memory of updating parts of each of 3 weights"
    ]


def test_the_network_shows_the_choice() -> None:
    """Where the backward pass ends, and what of each layer is updated."""
    layers = bert_layers(2)
    chosen = FrontPoint(choice=Choice(3, {5: 0.25, 7: 1.0, 10: 0.5}), gain=0.1, memory_bytes=9)
    found = Parsed(page(sensitivity(layers), chosen=chosen))
    told = {word.split(",")[0]: word for word in found.words if word.startswith("Layer ")}
    assert told["Layer 4"].endswith("not reached")
    assert told["Layer 5"].endswith(": 1/4 of the weight updated")
    assert told["Layer 6"].endswith("frozen, gradients pass through")
    assert told["Layer 7"].endswith(": the whole weight updated")
    assert told["Layer 9"].endswith(": biases updated")
    assert told["Layer 10"].endswith(": biases and 1/2 of the weight updated")
    assert "The backward pass ends at layer 5, bert.encoder.layer.0.output.dense" in found.text
    assert "5 layers before it only run forward" in found.text
    alone = Parsed(page(sensitivity(layers), chosen=replace(chosen, choice=Choice(0))))
    assert "ends at the head" in alone.text


def test_what_is_of_another_model() -> None:
    """A cost or a choice of a layer that was not measured is one clear message."""
    found, costs = sensitivity(plain_layers(2)), synthetic.costs(plain_layers(3))
    with pytest.raises(InputError, match="a cost of layer 2; one of the 2 layers"):
        page(found, costs=costs)
    for choice, what in ((Choice(3), "biases of layer 2"), (Choice(0, {9: 1.0}), "of layer 9")):
        with pytest.raises(InputError, match=what):
            page(found, chosen=FrontPoint(choice=choice, gain=0.0, memory_bytes=1))


def test_names_are_text() -> None:
    """What a model, a task or a setting is called is no markup, wherever it is shown."""
    evil = '"><script>alert(1)</script>'
    plain = Layer(
        name=evil, weight=evil, biases=(evil,), role=evil, block=evil, shape=(2, 2), sliceable=True
    )
    found = replace(sensitivity((plain, plain)), settings={evil: evil})
    costs = synthetic.costs(found.layers)
    point = FrontPoint(choice=Choice(1, {1: 0.5}), gain=0.1, memory_bytes=10)
    text = page(
        found, costs=costs, front=[point], chosen=point, checked=synthetic.checked([point]),
        command=evil, title=evil,
    )  # fmt: skip
    parsed = Parsed(text)
    assert [tag for tag, _ in parsed.elements].count("script") == 1
    assert text.count(evil) == 0
    assert parsed.words.count(evil) > 4


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """A headless browser without a network."""
    if BROWSER is None:
        pytest.skip("no Chromium is installed")
    with Browser(BROWSER, tmp_path_factory.mktemp("profile")) as found:
        yield found


SMALLEST_TEXT = """Math.min(...[...document.querySelectorAll('body *')]
  .filter(e => e.textContent.trim() && e.getBoundingClientRect().width > 2)
  .map(e => parseFloat(getComputedStyle(e).fontSize)))"""


@pytest.mark.parametrize(
    ("layers", "width", "dark"),
    [
        pytest.param(mobilenet_layers(), 1280, True, id="blocks-wide-dark"),
        pytest.param(mobilenet_layers(), 390, False, id="blocks-phone"),
        pytest.param(plain_layers(200), 1280, False, id="many-wide"),
        pytest.param(plain_layers(200), 390, True, id="many-phone-dark"),
        pytest.param(plain_layers(1), 390, False, id="one-phone"),
    ],
)
def test_in_a_browser(
    browser: Browser, tmp_path: Path, layers: tuple[Layer, ...], width: int, dark: bool
) -> None:
    """No complaints, no page wider than its window, no small text; keys tell of each layer."""
    path = tmp_path / "page.html"
    path.write_text(whole_page(layers), encoding="utf-8")
    browser.complaints.clear()
    browser.open(path, width=width, dark=dark)
    assert browser.value("document.documentElement.scrollWidth") <= width
    assert browser.value(SMALLEST_TEXT) >= 11
    assert browser.value("[...document.querySelectorAll('svg.area')].every(s => s.ariaLabel)")
    told = "document.querySelector('#weights .told')"
    first = int(browser.value(f"{told}.dataset.layer"))
    assert browser.value(f"{told}.textContent").startswith(f"Layer {first}: ")
    browser.value("document.querySelector('#weights .chart .scroll').focus()")
    browser.press("ArrowLeft")
    assert browser.value(f"{told}.textContent").startswith(f"Layer {max(0, first - 1)}: ")
    browser.value("document.querySelectorAll('details').forEach(each => each.open = true)")
    assert browser.value("document.documentElement.scrollWidth") <= width
    browser.value("document.querySelector('.copy').click()")
    assert browser.value("!document.querySelector('.copy').hidden")
    assert browser.complaints == []
