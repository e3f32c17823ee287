"""The profiler measures what it says, stops and goes on, and runs anywhere."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import pockengine as pe
from pockengine.contribution.choice import Choice
from pockengine.contribution.fronts import Front, choose_cuts
from pockengine.contribution.intervals import pooled, spread_over
from pockengine.contribution.measured import Sensitivity
from pockengine.contribution.report import Report
from pockengine.contribution.store import Store
from pockengine.contribution.trial import largest_is_label
from pockengine.errors import InputError

SILENT: dict[str, Any] = {"progress": lambda _done, _total: None}


class Inline(Executor):
    """Runs everything where it is submitted, and after some calls is interrupted."""

    def __init__(self, calls: int = 10**6) -> None:
        self.left = calls

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """A future that is done."""
        future: Future[Any] = Future()
        if self.left:
            self.left -= 1
            future.set_result(fn(*args, **kwargs))
        else:
            future.set_exception(KeyboardInterrupt())
        return future


def network() -> nn.Sequential:
    """Two layers and a head, of fixed values."""
    torch.manual_seed(0)
    layers = (nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3))
    return nn.Sequential(*layers).eval()


def task() -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Classes that two comparisons decide: the layers have to learn them."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(96, 6, generator=generator)
    y = (x[:, 0] > x[:, 1]).long() + (x[:, 2] > 0).long()
    return (x[:64], y[:64]), (x[64:], y[64:])


def profiled(folder: Path, **options: Any) -> Sensitivity:
    """A profile in seconds."""
    return reported(folder, **options).sensitivity


def reported(folder: Path, **options: Any) -> Report:
    """The whole report of one."""
    halving = {"ratios": (0.5, 1), "rungs": (0.5, 1), "keep": 0.5}
    usual = {"lr": 0.4, "epochs": 12, "seeds": 2, **halving}
    more = {**usual, **SILENT, "executor": Inline(), **options}
    model = more.pop("model", None) or network()
    return pe.profile(model, task(), folder=folder, **more)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Sensitivity]:
    """A profile that nothing disturbed."""
    folder = tmp_path_factory.mktemp("profile")
    return folder, profiled(folder)


def test_every_candidate_has_a_gain(whole: tuple[Path, Sensitivity]) -> None:
    """Of biases one for each count, of weights one for each ratio; half are trained to the end.

    Those that were given up at half of a run had half of the seeds.
    """
    _, found = whole
    assert [gain.choice for gain in found.biases] == [Choice(1), Choice(2)]
    assert list(found.weights) == [(0, 0.5), (0, 1.0), (1, 0.5), (1, 1.0)]
    trained = sorted((gain.steps, gain.seeds) for gain in found.weights.values())
    assert trained == [(48, 1), (48, 1), (96, 2), (96, 2)]
    assert found.baseline.steps == 96
    assert [gain.steps for gain in found.biases] == [96, 96]
    assert all(gain.low <= gain.mean <= gain.high for gain in found.weights.values())
    assert found.rank_correlation is not None


def test_what_everything_gains_is_measured(whole: tuple[Path, Sensitivity]) -> None:
    """All weights beside all biases; predictions of them end there, or where their sum does."""
    _, found = whole
    everything = Choice(2, {0: 1.0, 1: 1.0})
    with_weights, biases = (
        np.mean([by_hand(choice, found, seed) for seed in range(2)])
        for choice in (everything, Choice(2))
    )
    together = found.settings["all weights"]
    assert together == pytest.approx(with_weights - biases)
    gain = found.predicted(everything) - found.bias_gain(2)
    added = sum(found.weights[part].counted for part in everything.weights.items())
    assert min(together, added) - 1e-9 <= gain <= added + 1e-9


def test_gains_are_those_of_plain_trainers(whole: tuple[Path, Sensitivity]) -> None:
    """A trial behind a frozen front gives what a trainer of the whole model gives."""
    _, found = whole
    gain = next(gain for gain in found.weights.values() if gain.steps == 96)
    accuracy = np.mean([by_hand(gain.choice, found, seed) for seed in range(2)])
    assert gain.accuracy == pytest.approx(accuracy)
    behind = np.mean([by_hand(Choice(gain.choice.biases), found, seed) for seed in range(2)])
    assert gain.mean == pytest.approx(accuracy - behind)


def by_hand(choice: Choice, found: Sensitivity, seed: int) -> float:
    """Test accuracy of a choice, trained by ``compile`` on the same batches."""
    (x, y), (test_x, test_y) = task()
    model = network()
    bound, generator = 8**-0.5, torch.Generator().manual_seed(seed)
    for tensor in model[4].parameters():
        tensor.data.uniform_(-bound, bound, generator=generator)
    trainer = pe.compile(
        model,
        (x[:8], y[:8]),
        loss="cross_entropy",
        optimizer=pe.SGD(momentum=0.9),
        scheme=choice.scheme(found.layers, found.head),
    )
    random, step = np.random.default_rng(seed), 0
    for _ in range(12):
        order = random.permutation(64)
        for start in range(0, 64, 8):
            at = np.sort(order[start : start + 8])
            trainer.step(x[at], y[at], lr=0.4 * (1 - step / 96))
            step += 1
    outputs = [trainer.predict(test_x[k : k + 8]) for k in range(0, 32, 8)]
    return float((torch.cat(outputs).argmax(1) == test_y).float().mean())


def test_a_killed_profile_goes_on(tmp_path: Path, whole: tuple[Path, Sensitivity]) -> None:
    """Stopped after every few trials, it ends with the same table, and runs nothing twice."""
    calls = 0
    for _ in range(20):
        executor = Inline(3)
        try:
            found = profiled(tmp_path, executor=executor)
        except KeyboardInterrupt:
            calls += 3
            continue
        calls += 3 - executor.left
        break
    assert found == whole[1]
    undisturbed = Inline(100)
    profiled(tmp_path / "other", executor=undisturbed)
    assert calls == 100 - undisturbed.left


def test_the_same_profile_again_runs_nothing(whole: tuple[Path, Sensitivity]) -> None:
    """All trials are in the database."""
    folder, found = whole
    assert profiled(folder, executor=Inline(0)) == found


def test_processes_give_the_same_table(tmp_path: Path, whole: tuple[Path, Sensitivity]) -> None:
    """As one process does, two that are begun for it."""
    assert profiled(tmp_path, executor=None, jobs=2) == whole[1]


def test_without_room_for_fronts(tmp_path: Path, whole: tuple[Path, Sensitivity]) -> None:
    """Where nothing may be kept, the trials compute the frozen layers themselves."""
    found = profiled(tmp_path, cache_bytes=0)
    assert [g.accuracy for g in found.weights.values()] == pytest.approx(
        [g.accuracy for g in whole[1].weights.values()], abs=0.04
    )


def test_a_model_in_train_mode(tmp_path: Path) -> None:
    """Dropout and statistics of batches are computed anew by every trial: nothing is kept."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.2), nn.Linear(8, 3)
    )
    report = pe.profile(
        model.train(),
        task(),
        folder=tmp_path,
        executor=Inline(),
        seeds=1,
        ratios=(1,),
        **SILENT,
    )
    layers = report.sensitivity.layers
    assert [layer.biases for layer in layers] == [("0.bias", "1.bias")]
    assert not list(tmp_path.rglob("*.cut0.*"))


def test_other_room_for_fronts_is_the_same_study(tmp_path: Path) -> None:
    """A profile that keeps fronts takes over the trials of one that had no room for them."""
    found = profiled(tmp_path, cache_bytes=0)
    report = reported(tmp_path, executor=Inline(1))
    assert report.sensitivity == found
    (checked,) = report.check([Choice(0, {1: 0.5})])  # the only one that is run
    assert checked.low <= checked.measured <= checked.high


def test_numbers_need_a_score(tmp_path: Path) -> None:
    """Where targets are no classes, the user says how right an output is."""
    (x, _), (test_x, _) = task()
    data = ((x, x[:, :3]), (test_x, test_x[:, :3]))
    options: dict[str, Any] = {"loss": "mse", "seeds": 1, "ratios": (1,), "rungs": (1,), **SILENT}
    with pytest.raises(InputError, match="targets of float32; how right an output is"):
        pe.profile(network(), data, folder=tmp_path, **options)
    report = pe.profile(
        network(), data, folder=tmp_path, executor=Inline(), score=nearness, **options
    )
    assert 0 < report.sensitivity.baseline.accuracy < 1


def nearness(outputs: Sequence[Any], targets: Sequence[Any]) -> Any:
    """1 where an output is its target, less the farther it is."""
    return np.exp(-np.square(outputs[0] - targets[0]).mean(1))


def test_fast_shares_measured_gains_out(tmp_path: Path) -> None:
    """Three candidates are measured; the shares of all weights are what they gain together."""
    executor = Inline(100)
    found = profiled(tmp_path, fast=True, executor=executor)
    assert 100 - executor.left == 4  # and the estimate
    whole = [gain.mean for (_, ratio), gain in found.weights.items() if ratio == 1]
    assert sum(whole) == pytest.approx(max(found.settings["all weights"], 1e-3))
    assert found.weights[0, 0.5].mean <= found.weights[0, 1.0].mean


def test_another_head_is_the_same_study(whole: tuple[Path, Sensitivity]) -> None:
    """The head's values do not count, as each seed draws its own."""
    folder, found = whole
    model = network()
    *_, head = model.children()
    torch.nn.init.zeros_(head.weight)  # type: ignore[arg-type]
    assert profiled(folder, model=model, executor=Inline(0)) == found


def test_another_model_has_its_own_trials(tmp_path: Path) -> None:
    """Other values of a weight are another study in the same folder."""
    profiled(tmp_path, ratios=(1,), rungs=(1,), seeds=1)
    model = network()
    next(model.parameters()).data.add_(0.5)
    executor = Inline(100)
    pe.profile(
        model, task(), folder=tmp_path, executor=executor, lr=0.1, seeds=1, ratios=(1,), **SILENT
    )
    assert executor.left < 100


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seeds": 0}, r"profile\(seeds=...\).*at least 1"),
        ({"ratios": (0.5, 2)}, r"profile\(ratios=...\).*at most 1"),
        ({"rungs": (0.5,)}, r"profile\(rungs=...\).*1 as the last"),
        ({"keep": 0}, r"profile\(keep=...\)"),
        ({"lr": -1}, r"profile\(lr=...\)"),
        ({"epochs": 0}, r"profile\(epochs=...\)"),
        ({"batch": 0}, r"profile\(batch=...\)"),
        ({"warmup": 10**6}, r"profile\(warmup=...\).*less than all"),
    ],
)
def test_bad_options(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    """Each option is checked ahead of everything."""
    with pytest.raises(InputError, match=message):
        profiled(tmp_path, **options)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (None, "test_inputs"),
        ((task()[0], (torch.zeros(3, 6), torch.zeros(2))), "as many inputs as targets"),
        (((torch.zeros(3, 6), torch.zeros(3)), task()[1]), "at least 8"),
    ],
)
def test_bad_tasks(tmp_path: Path, data: Any, message: str) -> None:
    """A task is two parts of as many targets as inputs."""
    with pytest.raises(InputError, match=message):
        pe.profile(network(), data, folder=tmp_path, **SILENT)


def test_a_foreign_database(tmp_path: Path) -> None:
    """What is no database is left as it is."""
    (tmp_path / "trials.sqlite").write_text("mine" * 1000)
    with pytest.raises(InputError, match="no database of trials"):
        Store(tmp_path / "trials.sqlite")
    assert (tmp_path / "trials.sqlite").read_text() == "mine" * 1000


def test_cuts_fit_their_limit() -> None:
    """The front that saves least for its bytes is given up first; an earlier one stands in."""
    fronts = [
        Front(),
        Front(("a",), ("x",), sample_bytes=10, flops=10.0),
        Front(("b",), ("x",), sample_bytes=1000, flops=20.0),
        Front(("c",), ("x",), sample_bytes=10, flops=30.0),
    ]
    assert choose_cuts(fronts, 2, 10**6) == [-1, 1, 2, 3]
    assert choose_cuts(fronts, 2, 100) == [-1, 1, 1, 3]
    assert choose_cuts(fronts, 2, 20) == [-1, -1, -1, 3]
    assert choose_cuts(fronts, 2, 0) == [-1, -1, -1, -1]


def test_intervals_are_pooled() -> None:
    """The spread is that of all candidates together; of one seed each, at most how these differ."""
    spread = pooled([[0.0, 0.2], [0.1, 0.1]], samples=50)
    assert spread.variance == pytest.approx(0.01)
    assert spread.freedom == 2
    assert spread.half_width(2) == pytest.approx(4.302653 * (0.01 / 2) ** 0.5)
    assert pooled([[0.1], [0.2]], samples=50).half_width(1) == pytest.approx(1.96 * 0.1, rel=1e-3)
    assert spread_over([0.1, 0.3]).half_width(1) == pytest.approx(12.7062 * 0.02**0.5)


def test_tokens_count_alone() -> None:
    """The part of a sequence's labels that is right; what the loss leaves out does not count."""
    outputs = [np.eye(3, dtype=np.float32)[[[0, 1], [2, 2]]]]
    labels = (np.array([[0, 2], [-100, 2]]),)
    assert largest_is_label(outputs, labels).tolist() == [0.5, 1.0]
