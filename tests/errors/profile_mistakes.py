"""``profile`` and its report are asked for what they cannot do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

import pockengine as pe
from pockengine.contribution.choice import Choice
from pockengine.contribution.costs import CostTable, Place
from pockengine.contribution.measured import Gain, Sensitivity
from pockengine.contribution.report import Report
from pockengine.errors import CaptureError, InputError
from tests.errors.mistake import Mistakes, X, Y, network

mistakes = Mistakes()


def _profile(folder: Path, task: Any = ((X, Y), (X, Y)), **options: Any) -> object:
    model = options.pop("model", None) or network()
    return pe.profile(model, task, folder=folder, **options)


def _report() -> Report:
    gain = Gain(choice=Choice(0), mean=0, low=0, high=0, accuracy=0.5, steps=1, seeds=1)
    empty = Sensitivity(layers=(), head=("w",), baseline=gain, biases=(), weights={}, settings={})
    place = Place(layer=0, ratio=None, live_bytes=(4096,), amounts=())
    table = CostTable(layers=0, places=(place,), parts=(), biases=())
    return Report(empty, tables={"alignment 64, flash False": table})


@mistakes(CaptureError)
def profile_of_one_part(folder: Path) -> object:
    """There is no test part."""
    return _profile(folder, (X, Y))


@mistakes(InputError)
def profile_of_a_batch_too_few(folder: Path) -> object:
    """The training part has fewer samples than a batch."""
    return _profile(folder, batch=10_000)


@mistakes(InputError)
def profile_without_seeds(folder: Path) -> object:
    """No run is asked for."""
    return _profile(folder, seeds=0)


@mistakes(InputError)
def profile_with_a_whole_ratio(folder: Path) -> object:
    """A ratio is above 1."""
    return _profile(folder, ratios=(0.5, 4))


@mistakes(InputError)
def profile_of_short_runs(folder: Path) -> object:
    """No run goes to its end."""
    return _profile(folder, rungs=(0.25, 0.5))


@mistakes(InputError)
def profile_of_numbers(folder: Path) -> object:
    """The targets are numbers, and nothing says how right an output is."""
    data = (X, Y.float())
    return _profile(folder, (data, data), batch=4, loss="mse")


@mistakes(InputError)
def profile_of_a_head(folder: Path) -> object:
    """The model is its head alone."""
    return _profile(folder, model=nn.Linear(X.shape[1], 4), batch=4)


@mistakes(InputError)
def profile_into_another_file(folder: Path) -> object:
    """The folder has another file of the database's name."""
    (folder / "trials.sqlite").write_text("mine" * 1000)
    return _profile(folder, batch=4)


@mistakes(InputError)
def best_within_too_little(_: Path) -> object:
    """Even the head alone takes more."""
    return _report().best(memory_bytes=100)


@mistakes(InputError)
def best_without_a_rate(_: Path) -> object:
    """A limit on energy, on a machine of which none is known."""
    return _report().best(energy_joules=1.0)


@mistakes(InputError)
def check_without_a_model(_: Path) -> object:
    """A report that was read from a file is to fine-tune something."""
    return _report().check([Choice(0)])


@mistakes(InputError)
def report_of_something_else(folder: Path) -> object:
    """The file is a scheme."""
    pe.Scheme({"w": 1.0}).save(folder / "scheme.json")
    return Report.load(folder / "scheme.json")
