"""The page of a trainer: its figures, and how it behaves in a browser."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

from pockengine.errors import InputError
from pockengine.optimizer import SGD
from pockengine.report.inspect_graph import Inspection, inspect_graph
from pockengine.report.page import page, write_page
from pockengine.report.page.content import content
from pockengine.report.page.layers import UNOWNED
from pockengine.report.workloads import Workload
from pockengine.scheme import Scheme
from pockengine.targets import get_target
from tests.browser import Browser, find_browser

BROWSER = find_browser()


def inspection(target: str = "host") -> Inspection:
    """Three layers, of which the first is frozen and the last two are updated."""
    model = nn.Sequential(
        nn.Linear(6, 8), nn.Sequential(nn.Linear(8, 8), nn.ReLU()), nn.Linear(8, 3)
    )
    batch = (torch.ones(4, 6), torch.zeros(4, dtype=torch.int64))
    workload = Workload(model=model, batch=batch, loss="cross_entropy", optimizer=SGD())
    scheme = Scheme({"1.0.weight": 0.5, "1.0.bias": 1.0, "2.weight": 1.0})
    return inspect_graph(workload, scheme=scheme, target=get_target(target))


def test_layers_and_what_is_pruned() -> None:
    """Products are counted where they belong, and the frozen layer's backward pass is gone."""
    found = content(inspection(), model="three", scheme="mine")
    layers = {layer["name"]: layer for layer in found["layers"]}
    assert list(layers) == ["", "0", "1", "1.0", "1.1", "2", UNOWNED]
    assert layers["1.0"]["kind"] == "Linear"
    assert layers["0"]["forward"] >= 2 * 4 * 6 * 8
    assert layers["0"]["backward"] >= 2 * 4 * 6 * 8  # its weight's gradient, were it wanted
    assert layers["0"]["kept"] == 0
    weight = 2 * 4 * 8 * 8
    assert layers["1.0"]["backward"] >= 2 * weight  # of the input as well
    assert weight / 2 <= layers["1.0"]["kept"] < weight
    assert [tensor["updated"] for tensor in layers["1.0"]["tensors"]] == [0.5, 1.0]


def test_kernels_and_values_name_their_layers() -> None:
    """All values of the plan are there, inside the arena, each of a layer or of none."""
    inspected = inspection()
    found = content(inspected, model="three", scheme=None)
    assert found["scheme"] == "requires_grad"
    names = [layer["name"] for layer in found["layers"]]
    for name, entry in found["entries"].items():
        plan = inspected.prepared.plan.entries[name]
        assert len(entry["kernels"]) == len(plan.order)
        assert len(entry["values"]) == len(plan.values)
        assert all(offset + size <= entry["arena"] for *_, offset, size, _ in entry["values"])
        assert all(kernel[4] > 0 for kernel in entry["kernels"])
    owned = {names[kernel[1]] for kernel in found["entries"]["predict"]["kernels"]}
    assert owned == {"0", "1.0", "2"}


def test_a_page_holds_all_it_needs(tmp_path: Path) -> None:
    """No address is fetched, text of a model ends no script, and a bad place is one message."""
    text = page(inspection(), model="</script><b>", scheme="a & b")
    assert text.count("</script>") == 2
    assert "<title>&lt;/script&gt;&lt;b&gt; - PockEngine</title>" in text
    assert "http:" not in text.replace("http://www.w3.org/2000/svg", "")
    assert "https:" not in text
    start = text.index('id="data">') + len('id="data">')
    data = json.loads(text[start : text.index("</script>", start)])
    assert (data["model"], data["scheme"]) == ("</script><b>", "a & b")
    with pytest.raises(InputError, match=r"--html .*nowhere"):
        write_page(inspection(), tmp_path / "nowhere" / "a.html", model="m", scheme=None)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """A headless browser without a network."""
    if BROWSER is None:
        pytest.skip("no Chromium is installed")
    with Browser(BROWSER, tmp_path_factory.mktemp("profile")) as found:
        yield found


@pytest.mark.parametrize("target", ["host", "stm32f746"])
@pytest.mark.parametrize("width", [1280, 390])
def test_in_a_browser(browser: Browser, tmp_path: Path, width: int, target: str) -> None:
    """It draws itself without complaints and as wide as its window, and answers keys and clicks."""
    path = tmp_path / "page.html"
    write_page(inspection(target), path, model="three", scheme="mine")
    browser.complaints.clear()
    browser.open(path, width=width)
    assert browser.value("document.querySelectorAll('#map-box svg g rect').length") > 8
    top = browser.value("document.querySelector('.live').getBBox().y")  # downwards
    bound = browser.value("+document.querySelector('.bound').getAttribute('y1')")
    assert top >= bound - 0.5  # the bound is what is live at most, in whole units of alignment
    assert browser.value("document.querySelectorAll('#roof-box circle').length") > 4
    assert browser.value("document.querySelectorAll('#tree details').length") >= 5
    assert browser.value("document.querySelector('.roof') !== null") is (target == "host")
    assert browser.value("document.documentElement.scrollWidth") <= width
    assert browser.value("[...document.querySelectorAll('svg')].every(s => s.ariaLabel)")
    browser.value("document.querySelector('#map-box svg').focus()")
    for _ in range(2):
        browser.press("ArrowRight")
    assert " at offset " in browser.value("document.getElementById('map-told').textContent")
    browser.value("document.getElementById('open-all').click()")
    browser.value("document.querySelector('#kernel-table tbody button').click()")
    assert "return loss=" in browser.value("document.getElementById('kernel-text').textContent")
    browser.value("document.querySelector('input[value=predict]').click()")
    assert browser.value("document.querySelectorAll('#kernel-table tbody tr').length") == 3
    assert browser.value("document.documentElement.scrollWidth") <= width
    assert browser.complaints == []
