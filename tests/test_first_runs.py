"""docs/guides/first-runs.md: each run works as it stands, in a folder with what it names.

Pretrained models are too large for a test: small ones without pretraining stand in their places.
"""

from __future__ import annotations

import ast
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from pockengine import tasks
from tests.documents import DOCS, blocks

PICTURES, TEXTS, OWN, RESUMED, LORA = blocks(DOCS / "guides" / "first-runs.md")
LINES = 10


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty folder, from which Python imports as from a script's."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)


def _run(code: str) -> dict[str, Any]:
    names: dict[str, Any] = {}
    exec(code, names)  # noqa: S102 - that it runs is what is tested
    return names


def test_runs_are_short() -> None:
    """At most ten statements each."""
    for code in (PICTURES, TEXTS, OWN, RESUMED, LORA):
        assert len(ast.parse(code).body) <= LINES


@pytest.mark.slow
def test_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder of red and blue pictures is told apart."""
    for name, colour in {"blue": (20, 30, 200), "red": (200, 30, 20)}.items():
        (tmp_path / "photos" / name).mkdir(parents=True)
        for number in range(20):
            noise = np.random.default_rng(number).integers(0, 40, (64, 64, 3))
            picture = Image.fromarray((np.array(colour) + noise).astype(np.uint8))
            picture.save(tmp_path / "photos" / name / f"{number}.jpg")
    small = partial(tasks.mobilenet_v2, 0.1)
    monkeypatch.setattr(tasks, "mobilenet_v2", _untrained(small))
    losses = _losses(_run(PICTURES))
    assert losses[-1] < losses[0]


@pytest.mark.slow
def test_texts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A CSV of reviews is read, and learnt from."""
    rows = [f"{word} thing {i},{label}" for i in range(20) for word, label in _WORDS.items()]
    (tmp_path / "reviews.csv").write_text("\n".join(["text,label", *rows]))
    words = tasks.word_vocabulary(rows)
    shape = tasks.EncoderShape(
        layers=2, width=32, heads=4, intermediate=64, vocabulary=len(words), positions=32
    )
    monkeypatch.setattr(tasks, "bert_vocabulary", lambda: words)
    monkeypatch.setattr(tasks, "mini_lm", _untrained(partial(tasks.mini_lm, shape=shape)))
    losses = _losses(_run(TEXTS))
    assert losses[-1] < losses[0]


_WORDS = {"good": "yes", "awful": "no"}


def test_own_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model out of a file, with its own loss; its weights go back into it."""
    monkeypatch.delitem(sys.modules, "net", raising=False)  # of another test
    (tmp_path / "net.py").write_text(
        "from torch import nn\n\n\ndef build():\n"
        "    return nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 2))\n"
    )
    names = _run(OWN)
    losses = _losses(names)
    assert losses[-1] < losses[0]
    names["net"].build().load_state_dict(torch.load(tmp_path / "net.pt"))


@pytest.mark.slow
def test_resumed(tmp_path: Path) -> None:
    """After SIGKILL the same command goes on; the losses are those of one that ran through."""
    for name in ("whole", "killed"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "train.py").write_text(RESUMED)
    whole = _said(tmp_path / "whole")
    checkpoint = tmp_path / "killed" / "run.ckpt"
    with _command(tmp_path / "killed") as first:
        while not checkpoint.exists() and first.poll() is None:
            time.sleep(0.002)
        first.send_signal(signal.SIGKILL)
    assert first.returncode == -signal.SIGKILL
    assert _said(tmp_path / "killed") == whole
    assert len(ast.literal_eval(whole)) == 20


def _command(folder: Path) -> subprocess.Popen[str]:
    """``python train.py``, with this checkout's package."""
    path = {"PYTHONPATH": str(DOCS.parent)}
    return subprocess.Popen(
        [sys.executable, "train.py"],
        cwd=folder,
        env={**os.environ, **path},
        stdout=subprocess.PIPE,
        text=True,
    )


def _said(folder: Path) -> str:
    with _command(folder) as process:
        said = process.communicate(timeout=200)[0]
    assert process.returncode == 0
    return said


@dataclass
class _Words:
    """A tokenizer: a token for each word."""

    ids: list[int] = field(default_factory=list)

    def encode(self, text: str) -> _Words:
        """Numbers of the words."""
        known = {word: index for index, word in enumerate(sorted(set(text.split())))}
        return _Words([known[word] for word in text.split()])


@pytest.mark.slow
def test_lora(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Adapters learn a text, and are worked into the weights."""
    (tmp_path / "notes.txt").write_text("the cat sat on the mat and the dog lay down " * 60)
    shape = tasks.DecoderShape(
        layers=1, width=32, heads=4, key_heads=2, intermediate=64, vocabulary=16
    )
    monkeypatch.setattr(tasks, "smol_lm_tokenizer", _Words)
    monkeypatch.setattr(tasks, "smol_lm", _untrained(partial(tasks.smol_lm, shape=shape)))
    losses = _losses(_run(LORA))
    assert losses[-1] < losses[0]
    tasks.SmolLM(shape).load_state_dict(torch.load(tmp_path / "smol_lm.pt"))


def _untrained(make: Callable[..., Any]) -> Callable[..., Any]:
    """A model as the page asks for it, but for its pretraining."""

    def call(*args: Any, pretrained: bool, **options: Any) -> Any:
        assert pretrained
        torch.manual_seed(0)
        return make(*args, **options)

    return call


def _losses(names: dict[str, Any]) -> list[float]:
    return [row["loss"] for row in names["history"].rows]
