"""The sensitivity as a table for a terminal, as CSV and as JSON."""

from __future__ import annotations

import csv
import io
from dataclasses import replace

import pytest

from pockengine.contribution.choice import RATIOS, Choice
from pockengine.contribution.html.page import page
from pockengine.contribution.measured import ALL_WEIGHTS, Sensitivity
from pockengine.contribution.saturation import Saturation
from pockengine.contribution.shown import FrontPoint
from pockengine.contribution.table import table, to_csv
from tests.contribution.synthetic import (
    alone,
    bert_layers,
    mobilenet_layers,
    plain_layers,
    sensitivity,
)

POINT = FrontPoint(choice=Choice(1), gain=0.01, memory_bytes=1, step_ms=None, joules=None)


def line_of(text: str, name: str) -> str:
    """The only line with a name."""
    (found,) = [line for line in text.splitlines() if name in line]
    return found


def test_a_line_holds_a_layers_figures() -> None:
    """Name, role, shape, the gain of biases from there on, and each part with its interval."""
    found = sensitivity(mobilenet_layers())
    line = line_of(table(found), "features.17.conv.2.0")
    layer = next(i for i, each in enumerate(found.layers) if each.name == "features.17.conv.2.0")
    assert "second point-wise" in line
    assert "320x960x1x1" in line
    biases = found.biases[len(found.layers) - layer - 1]
    for gain in (biases, *(found.weights[layer, ratio] for ratio in RATIOS)):
        assert f"{100 * gain.mean:+.1f} [{100 * gain.low:+.1f}, {100 * gain.high:+.1f}]" in line
    assert f"{found.weights[layer, 1.0].estimate:.3g}" in line


def test_the_head_tells_what_was_measured() -> None:
    """Accuracy of the head alone, layers, seeds, steps and the rank correlation."""
    found = sensitivity(bert_layers())
    head = table(found).split("\n\n", maxsplit=1)[0]
    assert "63.4%" in head
    assert "36 layers, 3 seeds, up to 400 steps" in head
    assert f"{found.rank_correlation:.2f}" in head


def test_early_stops_are_marked() -> None:
    """The star and its meaning are there where something was stopped early, and only there."""
    found = sensitivity(plain_layers(3))
    weights = {key: replace(gain, steps=400) for key, gain in found.weights.items()}
    assert "*" not in table(replace(found, weights=weights))
    weights[1, 0.25] = replace(weights[1, 0.25], steps=100)
    text = table(replace(found, weights=weights))
    assert line_of(text, "layer1").count("]*") == 1
    assert "* stopped early" in text


def test_long_names_lose_their_middle() -> None:
    """The table stays narrow, and both ends of a name are seen."""
    found = sensitivity(plain_layers(2))
    layers = replace(found.layers[0], name="start." + "x" * 100 + ".end"), found.layers[1]
    text = table(replace(found, layers=layers))
    assert "x" * 40 not in text
    line = line_of(text, "start.")
    assert ".end" in line


def test_gains_that_do_not_add_up_are_told() -> None:
    """What all weights gained together, where that is less than their sum."""
    found = sensitivity(plain_layers(2))
    assert "All weights together" not in table(found)
    together = replace(
        found, saturation=Saturation(0.05), settings={**found.settings, ALL_WEIGHTS: 0.05}
    )
    assert "All weights together gained +5.0 points beside all biases" in table(together)
    assert "All weights together gained +5.0 points" in page(together, front=[POINT])
    lost = replace(together, settings={**found.settings, ALL_WEIGHTS: -0.05, "lr": 1e-3})
    assert "a learning rate of 0.001 is too high" in table(lost)
    assert "such as 0.00025" in page(lost, front=[POINT])


def test_one_seed_has_no_interval() -> None:
    """A single run says nothing of its spread, and no ends of one are told."""
    found = sensitivity(plain_layers(1))
    weights = {key: alone(gain) for key, gain in found.weights.items()}
    single = replace(found, weights=weights)
    assert line_of(table(single), "layer0").count("[") == 1  # that of the biases
    rows = list(csv.DictReader(to_csv(single).splitlines()))
    assert {row["kind"] for row in rows if row["gain_low95_fraction"]} == {"biases"}


@pytest.mark.parametrize("count", [0, 1])
def test_what_is_missing_is_left_empty(count: int) -> None:
    """Without weights, or with biases of fewer layers than there are, there is a table still."""
    found = sensitivity(plain_layers(3))
    small = replace(found, weights={}, biases=found.biases[:count], rank_correlation=None)
    assert len(line_of(table(small), "layer0").split()) == 4
    assert ("[" in line_of(table(small), "layer2")) is bool(count)
    assert len(to_csv(small).splitlines()) == 2 + count


def test_csv_has_a_row_a_candidate() -> None:
    """All candidates, with names of columns that tell their units, and exact figures."""
    found = sensitivity(mobilenet_layers())
    rows = list(csv.DictReader(io.StringIO(to_csv(found))))
    assert len(rows) == 1 + len(found.biases) + len(found.weights)
    assert [row["kind"] for row in rows[:2]] == ["head", "biases"]
    assert float(rows[0]["accuracy_fraction"]) == found.baseline.accuracy
    for row in rows[1 + len(found.biases) :]:
        gain = found.weights[int(row["layer_index"]), float(row["weight_ratio"])]
        assert row["layer_name"] == found.layers[int(row["layer_index"])].name
        figures = [float(row[f"{name}_fraction"]) for name in ("gain", "gain_low95", "gain_high95")]
        assert figures == [gain.mean, gain.low, gain.high]
        assert row["stopped_early"] == str(int(gain.steps < 400))
        assert float(row["estimate"]) == gain.estimate
        assert float(row["expected_fraction"]) == gain.counted
    biases = rows[3]
    assert (biases["biases_of_last_layers"], biases["layer_index"]) == ("3", "49")
    assert biases["weight_shape"] == "960x1x3x3"


def test_json_gives_the_same_reports() -> None:
    """A sensitivity that was saved and read again is reported alike."""
    found = sensitivity(bert_layers())
    again = Sensitivity.from_json(found.to_json())
    assert table(again) == table(found)
    assert to_csv(again) == to_csv(found)
