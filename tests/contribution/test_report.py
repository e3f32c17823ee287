"""The report's answers: a scheme within limits that compiles to what was promised."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

import pockengine as pe
from pockengine.contribution.candidates import plain_choices
from pockengine.contribution.choice import Choice
from pockengine.contribution.report import Report
from pockengine.contribution.saturation import ADDITIVE
from pockengine.contribution.shown import Checked
from pockengine.contribution.surrogate import refined
from pockengine.errors import InputError
from tests.contribution.test_profile import Inline, network, reported, task


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Report:
    """A profile of two layers."""
    return reported(tmp_path_factory.mktemp("report"))


def working_bytes(report: Report, choice: Choice, micro_batches: int = 1) -> int:
    """What a trainer of a choice takes, as compiled."""
    (x, y), _ = task()
    trainer = pe.compile(
        network(),
        (x[:8], y[:8]),
        loss="cross_entropy",
        optimizer=pe.SGD(momentum=0.9),
        scheme=report.scheme(choice),
        micro_batches=micro_batches,
    )
    plan = trainer.plan
    return plan.arena_bytes + plan.param_bytes + plan.state_bytes + plan.const_bytes


def test_the_best_choice_compiles_within_its_limit(report: Report) -> None:
    """What the search promises is what the trainer takes."""
    free = report.best()
    assert free.gain == pytest.approx(report.sensitivity.predicted(free.choice))
    assert free.bound >= free.gain
    limit = free.memory_bytes - 1
    found = report.best(memory_bytes=limit)
    assert found.memory_bytes <= limit
    assert working_bytes(report, found.choice) == found.memory_bytes
    assert found.gain <= free.gain


def test_the_best_choice_in_micro_batches(report: Report, tmp_path: Path) -> None:
    """Memory is that of a step in parts, which a report from a file cannot tell."""
    found = report.best(micro_batches=4)
    assert found.memory_bytes == working_bytes(report, found.choice, 4)
    assert found.memory_bytes != working_bytes(report, found.choice)
    assert found.gain == report.best().gain
    report.save(tmp_path / "report.json")
    with pytest.raises(InputError, match=r"micro_batches=...\): .*the model that was profiled"):
        Report.load(tmp_path / "report.json").best(micro_batches=4)


def test_no_choice_within_limits(report: Report) -> None:
    """The smallest possible is told."""
    with pytest.raises(InputError, match="bytes"):
        report.best(memory_bytes=100)


def test_no_choice_within_a_time(report: Report) -> None:
    """Without a limit on memory too, while the model is at hand."""
    with pytest.raises(InputError, match=r"no choice within 1e-09 ms a step; at least .* ms"):
        report.best(step_ms=1e-9)


def test_time_needs_a_target_with_rates(report: Report) -> None:
    """A limit on energy needs to know what an operation takes."""
    with pytest.raises(InputError, match="host"):
        report.best(energy_joules=1.0)
    found = report.best(target="nrf52840", energy_joules=1.0)
    assert found.energy_joules is not None
    assert found.energy_joules <= 1.0


def test_a_saved_report_is_searched_without_the_model(report: Report, tmp_path: Path) -> None:
    """A file knows the costs that were asked for, and says what it does not know."""
    report.costs()
    report.save(tmp_path / "report.json")
    read = Report.load(tmp_path / "report.json")
    assert read.sensitivity == report.sensitivity
    assert read.best().choice == report.best().choice
    assert read.table() == report.table()
    with pytest.raises(InputError, match="the model that was profiled"):
        read.check([Choice(1)])
    with pytest.raises(InputError, match=r"report.finalists: .*the model that was profiled"):
        read.finalists()


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"format": "pockengine.report"}', "[" * 9999])
def test_other_files_are_no_reports(tmp_path: Path, content: str) -> None:
    """One message for whatever else a file holds."""
    (tmp_path / "x.json").write_text(content)
    with pytest.raises(InputError, match="a report of this version"):
        Report.load(tmp_path / "x.json")
    with pytest.raises(InputError, match="cannot be read"):
        Report.load(tmp_path / "missing.json")


def test_choices_are_checked_for_real(report: Report) -> None:
    """A whole choice's gain is measured with the seeds of the profile, and shown on the page."""
    whole = Choice(2, {0: 1.0, 1: 1.0})
    (checked,) = report.check([whole])
    assert checked.choice == whole
    assert checked.predicted == pytest.approx(report.sensitivity.predicted(whole))
    assert checked.low <= checked.measured <= checked.high
    found = report.best()
    page = report.page(found, command="pockengine compile x", title="a <title>")
    assert "a &lt;title&gt;" in page
    assert "pockengine compile x" in page
    assert "Predicted against measured" in page


def test_finalists_are_measured_and_the_best_comes_first(report: Report) -> None:
    """The search's choice beside plain ones, all within the limits; none is run twice."""
    fresh = Report(report.sensitivity, report._profiled)
    limit = report.best().memory_bytes - 1
    found = fresh.finalists(memory_bytes=limit, rounds=3)
    choices = [each.choice for each in found]
    assert report.best(memory_bytes=limit).choice in choices
    plain = [choice for choice in choices if not choice.weights]
    assert plain
    assert all(each.memory_bytes <= limit for each in found)
    gains = fresh.refined().sensitivity
    assert [each.gain for each in found] == [gains.predicted(choice) for choice in choices]
    assert [each.gain for each in found] == sorted((x.gain for x in found), reverse=True)
    assert all(each.bound >= each.gain for each in found)
    assert sorted(map(str, choices)) == sorted(str(each.choice) for each in fresh.checked)
    again = fresh.finalists(memory_bytes=limit, rounds=1)
    assert len(fresh.checked) == len(found)
    assert [each.choice for each in again] == [choices[0]]


def test_one_round_measures_what_best_finds(report: Report) -> None:
    """No other choice is trained."""
    fresh = Report(report.sensitivity, report._profiled)
    (found,) = fresh.finalists(rounds=1)
    (checked,) = fresh.checked
    assert found.choice == checked.choice == report.best().choice


def test_no_round_is_no_search(report: Report) -> None:
    """Nothing is trained before that is said."""
    with pytest.raises(InputError, match=r"rounds=\.\.\.\): 0; a whole number of at least 1"):
        report.finalists(rounds=0)


def test_plain_choices_are_the_largest_that_fit(report: Report) -> None:
    """Layers count from the output, each with the largest part of its weight."""
    found = report.sensitivity
    count = len(found.layers)
    tails, wholes = plain_choices(found, lambda choice: choice.biases <= count - 1)
    assert tails == Choice(count - 1)
    assert wholes.biases == count - 1
    assert wholes.weights == {
        index: max(ratio for layer, ratio in found.weights if layer == index)
        for index in range(1, count)
    }
    assert plain_choices(found, lambda choice: not choice.biases) == [Choice(0), Choice(0)]


def test_refined_gains_explain_what_was_measured(report: Report) -> None:
    """What choices did not show is taken from their parts, most from the least certain."""
    found = report.sensitivity
    choice = Choice(2, {0: 1.0, 1: 1.0})
    before = found.predicted(choice)
    certain = replace(found.weights[1, 1.0], low=found.weights[1, 1.0].mean - 1e-9)
    certain = replace(certain, high=certain.mean + 1e-9)
    found = replace(found, weights={**found.weights, (1, 1.0): certain})
    half = Checked(
        choice=choice, predicted=before, measured=before / 2, low=before / 2, high=before / 2
    )
    new = refined(found, [half])
    assert new.predicted(choice) == pytest.approx(before / 2, abs=1e-3)
    assert new.weights[1, 1.0].mean == pytest.approx(certain.mean, abs=1e-3)
    assert new.part_amount(0, 0.5) == pytest.approx(found.part_amount(0, 0.5))
    straight = refined(replace(found, saturation=ADDITIVE), [half])
    ours, theirs = (
        (gain.mean, gain.low, gain.high, gain.counted)
        for gain in (straight.weights[0, 0.5], found.weights[0, 0.5])
    )
    assert ours == pytest.approx(theirs, abs=1e-12)
    assert refined(found, []) is found


def test_a_profile_leaves_the_model_alone(tmp_path: Path) -> None:
    """Neither values nor mode change."""
    model = network()
    before = {name: t.clone() for name, t in model.state_dict().items()}
    (x, y), test = task()
    pe.profile(
        model,
        ((x, y), test),
        folder=tmp_path,
        executor=Inline(),
        seeds=1,
        ratios=(1,),
        rungs=(1,),
        progress=lambda _done, _total: None,
    )
    assert not model.training
    assert all(torch.equal(before[name], t) for name, t in model.state_dict().items())
