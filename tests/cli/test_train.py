"""`pockengine train`, `evaluate` and `predict`, from files of a user's."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from safetensors.torch import load_file
from torch import nn

from pockengine.cli import commands
from pockengine.errors import InputError
from pockengine.tasks import load_task

ROOT = Path(__file__).parents[2]

ENCODER = """\
import torch
from torch import nn


class Bag(nn.Module):
    def __init__(self, vocabulary, classes):
        super().__init__()
        self.words = nn.Embedding(vocabulary, 8)
        self.head = nn.Linear(8, classes)

    def forward(self, input_ids, attention_mask):
        mask = attention_mask.unsqueeze(2).float()
        return self.head((self.words(input_ids) * mask).sum(1) / mask.sum(1))


def make_model(vocabulary, classes):
    torch.manual_seed(0)
    return Bag(vocabulary, classes)
"""

REGRESSION = """\
from torch import nn


def model(features):
    return nn.Linear(features, 1), None, lambda output, target: (output - target).abs().mean()
"""


def run(*arguments: str) -> str:
    """What a command prints, of which JSON is asked for."""
    result = CliRunner().invoke(commands, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    """Forty rows of two classes, and five without."""
    random = np.random.default_rng(0)
    x = random.normal(size=(40, 6))
    np.savez(tmp_path / "new.npz", x=x[:5])
    np.savez(tmp_path / "rows.npz", x=x, y=(x.sum(axis=1) > 0).astype(np.int32))
    return tmp_path / "rows.npz"


def test_arrays(rows: Path) -> None:
    """A model learns rows; its weights evaluate as in training, predict, and load in PyTorch."""
    told = json.loads(
        run("train", "mlp", "--data", str(rows), "--lr", "0.1", "--out", "w.safetensors", "--json")
    )
    assert [row["epoch"] for row in told["rows"]] == [1, 2, 3]
    assert told["rows"][-1]["loss"] < told["rows"][0]["loss"]
    given = ("mlp", "--weights", "w.safetensors")
    found = json.loads(run("evaluate", *given, "--data", str(rows), "--json"))
    assert found["loss"] == pytest.approx(told["rows"][-1]["val_loss"], rel=1e-6)
    assert (found["examples"], found["classes"]) == (8, ["0", "1"])
    assert np.sum(found["confusion_matrix"]) == 8
    predicted = json.loads(run("predict", *given, "new.npz", "--top", "2", "--json"))
    model = nn.Sequential(
        *(nn.Linear(6, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 2))
    )
    model.load_state_dict(load_file("w.safetensors"))
    scores = model(torch.from_numpy(np.load("new.npz")["x"]).float()).softmax(1)
    for row, each in zip(scores, predicted, strict=True):
        by_class = {one["class"]: one["score"] for one in each["classes"]}
        assert [by_class["0"], by_class["1"]] == pytest.approx(row.tolist(), abs=1e-5)


def test_pictures(tmp_path: Path) -> None:
    """A folder of class folders; names of files come back with their class."""
    task = load_task("shapes", limit=10)
    for index, label in enumerate(task.train_labels):
        folder = tmp_path / "photos" / task.classes[label]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(task.train_inputs[index]).save(folder / f"{index}.png")
    options = ("--size", "16", "--epochs", "1", "--out", "w.safetensors")
    run("train", "small_cnn", "--data", "photos", *options)
    found = json.loads(
        run("predict", "small_cnn", "photos/cross", "--weights", "w.safetensors", "--json")
    )
    assert len(found) == 8
    assert all(Path(each["input"]).parent.name == "cross" for each in found)
    assert {each["classes"][0]["class"] for each in found} <= set(task.classes)


def test_texts_and_a_model_of_ones_own(tmp_path: Path) -> None:
    """The data tell the model its classes and tokens; the vocabulary comes back for new texts."""
    (tmp_path / "mine.py").write_text(ENCODER)
    words = {"positive": "good fine nice", "negative": "bad poor sad"}
    with (tmp_path / "reviews.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("text", "label"))
        for count in range(10):
            writer.writerows((f"{told} x{count}", label) for label, told in words.items())
    options = ("--length", "8", "--lr", "0.5", "--epochs", "6", "--out", "w.safetensors")
    table = run("train", "mine.py", "--data", "reviews.csv", *options)
    assert "val_accuracy" in table
    found = json.loads(
        run("predict", "mine.py", "--weights", "w.safetensors", "--json", "good fine", "sad bad")
    )
    assert [each["input"] for each in found] == ["good fine", "sad bad"]
    assert [each["classes"][0]["class"] for each in found] == ["positive", "negative"]
    (tmp_path / "new.txt").write_text("good fine\n\nsad bad\n")
    again = json.loads(run("predict", "mine.py", "--weights", "w.safetensors", "--json", "new.txt"))
    assert again == found


def test_numbers_and_a_custom_loss(tmp_path: Path) -> None:
    """The loss is the user's; predictions are the outputs; the last smaller batch counts too."""
    (tmp_path / "mine.py").write_text(REGRESSION)
    x = np.random.default_rng(0).normal(size=(50, 3))
    np.savez(tmp_path / "numbers.npz", x=x, y=x @ [[1.0], [2.0], [3.0]])
    given = ("mine.py", "--data", "numbers.npz")
    told = json.loads(run("train", *given, "--lr", "0.1", "--out", "w.safetensors", "--json"))
    weights = load_file("w.safetensors")
    found = json.loads(run("evaluate", *given, "--weights", "w.safetensors", "--json"))
    assert found["examples"] == 10  # of which eight make a batch
    assert found["loss"] == pytest.approx(told["rows"][-1]["val_loss"], rel=1e-6)
    np.savez(tmp_path / "new.npz", x=x[:3])
    given = ("mine.py", "--weights", "w.safetensors")
    outputs = json.loads(run("predict", *given, "new.npz", "--json"))
    wanted = torch.from_numpy(x[:3]).float() @ weights["weight"].T + weights["bias"]
    np.testing.assert_allclose([o["output"] for o in outputs], wanted, rtol=1e-5, atol=1e-6)


def test_an_exported_program(rows: Path) -> None:
    """It trains with the batch it was exported for."""
    model = nn.Sequential(nn.Linear(6, 4), nn.Tanh(), nn.Linear(4, 2))
    torch.export.save(torch.export.export(model, (torch.ones(5, 6),)), "net.pt2")
    told = json.loads(
        run("train", "net.pt2", "--data", str(rows), "--epochs", "2", "--lr", "0.1", "--json",
            "--out", "w.safetensors")
    )  # fmt: skip
    assert told["rows"][0]["step"] == 7  # 32 rows by five
    assert load_file("w.safetensors").keys() == model.state_dict().keys()
    assert len(json.loads(run("predict", "net.pt2", "new.npz", "--weights", "w.safetensors",
                              "--json"))) == 5  # fmt: skip


def test_interrupted_and_resumed(rows: Path, tmp_path: Path) -> None:
    """Ctrl-C ends with 130 and a checkpoint; the same command goes on to the same end."""
    command = [sys.executable, "-m", "pockengine.cli", "train", "mlp", "--data", str(rows)]
    command += ["--schedule", "constant", "--checkpoint", "run.ckpt", "--out", "w.safetensors"]
    command += ["--epochs", "100000"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
    try:
        while not (tmp_path / "run.ckpt").exists() and process.poll() is None:
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=200)
    finally:
        process.kill()
    assert (process.returncode, "Interrupted." in errors) == (130, True), errors
    assert not (tmp_path / "w.safetensors").exists()
    known = json.loads(
        run("train", "mlp", "--data", str(rows), "--schedule", "constant", "--epochs", "1",
            "--checkpoint", "run.ckpt", "--resume", "--json")
    )  # fmt: skip
    assert len(known["rows"]) >= 1  # those of the run that was interrupted
    begun = json.loads(
        run("train", "mlp", "--data", str(rows), "--schedule", "constant", "--epochs", "1",
            "--checkpoint", "run.ckpt", "--restart", "--json")
    )  # fmt: skip
    assert [row["epoch"] for row in begun["rows"]] == [1]
    assert begun["rows"][0]["loss"] == known["rows"][0]["loss"]


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": np.ones(3)}, "holds x; an .npz file with x and y"),
        ({"x": np.ones((3, 2)), "y": np.ones(4)}, "its arrays differ in length, or are empty"),
        ({"x": np.ones((0, 2)), "y": np.ones(0)}, "its arrays differ in length, or are empty"),
        ({"x": np.array([{}, {}]), "y": np.ones(2)}, "cannot be read"),
        ({"y": np.ones(3)}, "holds y; an .npz"),
    ],
)
def test_arrays_that_are_no_data(arrays: dict[str, np.ndarray], message: str) -> None:
    """Each mistake names the file and what it should hold."""
    np.savez("rows.npz", **arrays)
    with pytest.raises(InputError, match=message):
        run("train", "mlp", "--data", "rows.npz")


def test_weights_of_something_else(rows: Path, tmp_path: Path) -> None:
    """Another model, other data, no reading, no file of tensors: each is one message."""
    run("train", "mlp", "--data", str(rows), "--epochs", "1", "--out", "w.safetensors")
    with pytest.raises(InputError, match=r"missing: 8.bias, 8.weight; of another shape: 0.bias, "):
        run("predict", "small_cnn", "new.npz", "--weights", "w.safetensors")
    with pytest.raises(InputError, match="its kind: image; what the model was trained for: arrays"):
        run("evaluate", "mlp", "--data", "shapes", "--weights", "w.safetensors")
    np.savez("three.npz", x=np.ones((9, 6)), y=np.arange(9) % 3)
    with pytest.raises(InputError, match="its classes: 0, 1, 2; what the model was trained for"):
        run("evaluate", "mlp", "--data", "three.npz", "--weights", "w.safetensors")
    with pytest.raises(InputError, match="--data shapes: data of the kind image; text, which"):
        run("train", "mini_lm", "--data", "shapes")
    with pytest.raises(InputError, match=r"new\.jpg: no \.npz file; one, for these weights"):
        run("predict", "mobilenet_v2", "new.jpg", "--weights", "w.safetensors")
    (tmp_path / "bad.npz").write_bytes(b"PK no archive")
    with pytest.raises(InputError, match=r"bad\.npz: is no whole \.npz file"):
        run("predict", "mlp", "bad.npz", "--weights", "w.safetensors")
    (tmp_path / "bad.safetensors").write_bytes(b"no")
    with pytest.raises(InputError, match=r"bad\.safetensors: cannot be read"):
        run("predict", "mlp", "new.npz", "--weights", "bad.safetensors")


@pytest.mark.slow
def test_a_disk_without_room_for_the_weights(rows: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is told before anything is trained; nothing is written."""
    usage = shutil.disk_usage(rows.parent)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
    arguments = ["train", "mlp", "--data", str(rows), "--out", "w.safetensors"]
    result = CliRunner().invoke(commands, arguments)
    assert result.exit_code == 2
    assert "--out w.safetensors: . has room for 0.0 MB, the file needs 0." in result.output
    assert not Path("w.safetensors").exists()


def test_demo_without_a_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What cannot be fetched is said, and a built-in task is learnt instead."""
    kernels = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "pockengine"
    (tmp_path / "cache" / "pockengine").mkdir(parents=True)
    for kept in ("kernels", "runtime", "probe"):
        (kernels / kept).mkdir(parents=True, exist_ok=True)
        (tmp_path / "cache" / "pockengine" / kept).symlink_to(kernels / kept)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("POCKENGINE_OFFLINE", "1")
    result = CliRunner().invoke(commands, ["demo", "--task", "openclipart", "--quick", "--json"])
    (row,) = json.loads(result.stdout)
    assert (row["task"], row["model"]) == ("shapes", "small_cnn")
    assert "Using the built-in task 'shapes'" in result.stderr
