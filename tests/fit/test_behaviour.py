"""Workers that fork, threads, event loops, notebooks, copies, pickles and other processes."""

from __future__ import annotations

import asyncio
import copy
import gc
import multiprocessing
import pickle
import signal
import threading
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import pockengine as pe
from pockengine.errors import InputError, TrainError
from pockengine.fit.callbacks import Status
from tests.fit.nets import BATCH, classifier, data

X, Y = data(12)


def _wide() -> tuple[pe.Trainer, Any]:
    """A trainer that really uses two threads, and data for it."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 256), nn.Linear(256, 8))
    x, y = torch.randn(192, 64), torch.randint(8, (192,))
    options: dict[str, Any] = {"loss": "cross_entropy", "optimizer": pe.SGD(), "threads": 2}
    return pe.compile(model, (x[:64], y[:64]), **options), (x, y)


def test_workers_fork_beside_threads() -> None:
    """A loader's workers fork while the trainer's threads are there; the run is that of arrays."""
    trainer, (x, y) = _wide()
    loader = DataLoader(TensorDataset(x, y), 64, num_workers=1)
    twin = copy.copy(trainer)
    with trainer, twin:
        trainer.step(x[:64], y[:64], lr=0.1)  # starts the threads
        twin.step(x[:64], y[:64], lr=0.1)
        found = trainer.fit(loader, validation=loader, epochs=2).rows
        wanted = twin.fit((x, y), validation=(x, y), epochs=2, shuffle=False).rows
    assert [row["loss"] for row in found] == [row["loss"] for row in wanted]
    assert [row["val_loss"] for row in found] == [row["val_loss"] for row in wanted]


def _losses(trainer: pe.Trainer, seed: int) -> list[float]:
    loader = DataLoader(TensorDataset(X, Y), BATCH, shuffle=True)
    return [row["loss"] for row in trainer.fit(loader, epochs=4, seed=seed).rows]


def test_two_at_once() -> None:
    """Trainers in threads give what each gives alone; fit leaves signals alone there."""
    with classifier() as one, classifier() as other:
        alone = [_losses(one, 0), _losses(other, 1)]
    found: dict[int, list[float]] = {}
    with classifier() as one, classifier() as other:
        threads = [
            threading.Thread(target=lambda t=t, s=s: found.__setitem__(s, _losses(t, s)))
            for s, t in enumerate((one, other))
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert [found[0], found[1]] == alone


def test_inside_an_event_loop() -> None:
    """As in a notebook, whose loop runs while a cell does."""

    async def cell() -> list[float]:
        with classifier() as trainer:
            return _losses(trainer, 0)

    with classifier() as trainer:
        assert asyncio.run(cell()) == _losses(trainer, 0)


@pytest.mark.slow
def test_in_a_notebook() -> None:
    """In a kernel the bar is shown, and the run ends like any other."""
    nbformat = pytest.importorskip("nbformat")
    client = pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    source = (
        "from tests.fit.nets import classifier, data\n"
        "with classifier() as trainer:\n"
        "    print(len(trainer.fit(data(12), epochs=2).rows))"
    )
    made = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source)])
    root = str(Path(__file__).parents[2])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the notebook's own packages
        run = client.NotebookClient(made, timeout=200, resources={"metadata": {"path": root}})
        outputs = run.execute().cells[0].outputs
    assert [each["text"] for each in outputs if each["name"] == "stdout"] == ["2\n"]
    said = "".join(each["text"] for each in outputs if each["name"] == "stderr")
    assert "epoch 2/2: 100%" in said


def test_closed_after_with() -> None:
    """After its block a trainer trains no more, but its weights can be had."""
    with classifier() as trainer:
        trainer.fit((X, Y))
    with pytest.raises(InputError, match="the engine is closed"):
        trainer.fit((X, Y))
    assert trainer.state_dict()


def _pickled(trainer: pe.Trainer) -> pe.Trainer:
    found: pe.Trainer = pickle.loads(pickle.dumps(trainer))  # noqa: S301 - our own bytes
    return found


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, _pickled])
def test_copies(duplicate: Any, tmp_path: Path) -> None:
    """A copy goes on by itself from the same state, and takes over state dicts and checkpoints."""
    with classifier(partial=True, accumulate=2) as trainer:
        trainer.step(X[:4], Y[:4], lr=0.1)
        with duplicate(trainer) as twin:
            losses = _losses(trainer, 3)
            assert _losses(twin, 3) == losses
            trainer.step(X[:4], Y[:4], lr=0.1)
            trainer.save(tmp_path / "a.ckpt")
            twin.load(tmp_path / "a.ckpt")
            twin.load_state_dict(trainer.state_dict())
            assert torch.equal(twin.predict(X[:3]), trainer.predict(X[:3]))


def test_folded_constants_of_a_pickled_trainer() -> None:
    """What is computed from frozen values is computed anew from others."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Linear(4, 2)).eval()
    batch = torch.randn(3, 4), torch.randn(3, 2)
    options: dict[str, Any] = {"loss": "mse", "optimizer": pe.SGD(), "threads": 1}
    scheme = pe.Scheme({"2.weight": 1.0})
    other = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(0.5)
    with pe.compile(model, batch, **options, scheme=scheme) as trainer:
        twin = _pickled(trainer)
        twin.load_state_dict(other.state_dict())
        torch.testing.assert_close(twin.predict(batch[0]), other(batch[0]).detach())
        torch.testing.assert_close(trainer.predict(batch[0]), model(batch[0]).detach())
        twin.close()


def test_torn_trainer_is_not_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    """Broken parameters stay where they are."""
    with classifier() as trainer:
        monkeypatch.setattr(type(trainer.engine), "torn", True)
        with pytest.raises(TrainError, match="a step failed between updates; whole parameters"):
            pickle.dumps(trainer)


def _train_there(trainer: pe.Trainer, channel: Any) -> None:
    channel.send(_losses(trainer, 5))


@pytest.mark.parametrize("method", ["fork", pytest.param("spawn", marks=pytest.mark.slow)])
def test_other_processes(method: str) -> None:
    """A trainer goes to another process, forked or new, and gives the same there."""
    context: Any = multiprocessing.get_context(method)
    mine, theirs = context.Pipe()
    with classifier(threads=2) as trainer:
        child = context.Process(target=_train_there, args=(trainer, theirs))
        child.start()
        theirs.close()
        found = mine.recv()
        child.join()
        assert found == _losses(trainer, 5)


def test_nothing_stays_behind() -> None:
    """Handles, threads and the handler of SIGINT are after many runs what they were."""

    def usage() -> tuple[int, int, Any]:
        gc.collect()
        handles = len(list(Path("/proc/self/fd").iterdir()))
        return handles, threading.active_count(), signal.getsignal(signal.SIGINT)

    def run() -> None:
        with classifier(threads=2) as trainer:
            trainer.fit(DataLoader(TensorDataset(X, Y), BATCH, num_workers=1), progress=False)

    run()
    before = usage()
    for _ in range(3):
        run()
    assert usage() == before


def test_callback_may_evaluate() -> None:
    """What callbacks draw and evaluate does not change the run."""

    def busy(status: Status) -> None:
        torch.rand(3)
        status.trainer.evaluate(X[:4], Y[:4])

    with classifier() as trainer:
        wanted = _losses(trainer, 0)
    with classifier() as trainer:
        loader = DataLoader(TensorDataset(X, Y), BATCH, shuffle=True)
        rows = trainer.fit(loader, epochs=4, callbacks=[busy]).rows
    assert [row["loss"] for row in rows] == wanted
