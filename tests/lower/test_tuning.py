"""A tuning changes how contractions are cut and no bit of what they compute."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import pockengine as pe
from pockengine.compile import prepare
from pockengine.errors import InputError
from pockengine.ir.text import parse
from pockengine.lower.features import host_target
from pockengine.lower.operands import geometry, tuned
from pockengine.lower.products import products
from pockengine.lower.tile_parameters import Choice, tile_parameters
from pockengine.lower.tuning import Processor, Tuning, signatures, told

TARGET = host_target()
TILES = tile_parameters(TARGET)
MATMUL = """\
%a: f32[20x30] = input('a')
%b: f32[30x50] = input('b')
%y: f32[20x50] = matmul(%a, %b)
return loss=None, outputs=(%y,), gradients={}, updates=()
"""
NAME = "1x20x50, sum 30, left dense, right columns"


def choice(**changes: Any) -> Choice:
    """Small tiles, nothing copied, but for some changes."""
    plain = {"row_tile": 2, "vectors": 1, "packed": False, "blocked": False}
    room = {"row_block": TILES.row_block, "scratch_bytes": TILES.scratch_bytes}
    return Choice(**{**plain, **room, **changes})


def network() -> nn.Module:
    """Strided, padded and plain convolutions, and a linear layer; odd extents."""
    torch.manual_seed(0)
    return nn.Sequential(
        *(nn.Conv2d(3, 10, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(10, 21, 3), nn.ReLU()),
        *(nn.Flatten(), nn.Linear(21 * 9, 5)),
    )


BATCH = (torch.randn(3, 3, 9, 9, generator=torch.Generator().manual_seed(0)), torch.arange(3))


def trained(tuning: Path | None) -> list[torch.Tensor]:
    """Losses of three steps, and the parameters after them."""
    settings: dict[str, Any] = {"loss": "cross_entropy", "optimizer": pe.SGD(momentum=0.9)}
    with pe.compile(network(), BATCH, **settings, tuning=tuning, threads=1) as trainer:
        losses = [trainer.step(*BATCH, lr=0.1) for _ in range(3)]
        return [torch.tensor(losses), *trainer.state_dict().values()]


def all_signatures() -> set[str]:
    """Those of the network's trainer."""
    prepared = prepare(network(), BATCH, loss="cross_entropy", optimizer=pe.SGD(momentum=0.9))
    return {name for kernel in prepared.kernels for name in signatures(kernel.text)}


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        {"packed": True, "row_tile": 3, "scratch_bytes": TILES.scratch_bytes // 8},
        {"blocked": True, "row_tile": 5, "vectors": 2, "row_block": 4 * TILES.row_block},
    ],
    ids=["right", "left"],
)
def test_a_trainer_computes_the_same(tmp_path: Path, changes: dict[str, Any]) -> None:
    """Whatever is chosen for every contraction: the same bits, but for what biases do to them."""
    names = all_signatures()
    assert len(names) > 5
    tuning = Tuning(processor=Processor.of(TARGET), choices=dict.fromkeys(names, choice(**changes)))
    tuning.save(tmp_path / "tuning.json")
    (plain, *before), (cut, *after) = trained(None), trained(tmp_path / "tuning.json")
    assert torch.equal(plain[0], cut[0])
    for one, other in zip((plain, *before), (cut, *after), strict=True):
        torch.testing.assert_close(other, one, rtol=1e-6, atol=1e-7)


def test_a_choice_is_what_the_kernel_is_cut_by() -> None:
    """Of its signature; another's changes nothing."""
    graph = parse(MATMUL)
    (terms,) = products(graph)
    assert signatures(MATMUL) == [NAME]
    cut = geometry(terms, tuned(terms, TILES, {NAME: choice(row_tile=3, vectors=2)}))
    assert (cut.row_tile, len(cut.panel)) == (3, min(2, 50 // TILES.vector_lanes))
    other = tuned(terms, TILES, {"another": choice(row_tile=3)})
    assert geometry(terms, other) == geometry(terms, TILES)


def test_other_kernels_have_no_signature() -> None:
    """Elementwise ones, and grouped convolutions, whose loops are others."""
    assert signatures(MATMUL.replace("matmul(%a, %b)", "exp(%a)").replace("20x50", "20x30")) == []
    grouped = (
        "%x: f32[1x8x4x4] = input('x')\n%w: f32[8x1x3x3] = param('w')\n"
        "%y: f32[1x8x2x2] = conv2d(%x, %w, (1, 1), (0, 0, 0, 0), (1, 1), 8)\n"
        "return loss=None, outputs=(%y,), gradients={}, updates=()\n"
    )
    assert signatures(grouped) == []


def test_choices_are_part_of_a_key() -> None:
    """Only those of the kernel; no choices leave the key as it is."""
    own, other = choice(), choice(packed=True)
    tuning = Tuning(processor=Processor.of(TARGET), choices={NAME: own, "another": other})
    assert tuning.choices_of(MATMUL) == {NAME: own}
    assert told({}) == ""
    assert len({told({}), told({NAME: own}), told({NAME: other})}) == 3


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    """With what was tried; saving again replaces it."""
    tuning = Tuning(processor=Processor.of(TARGET), tried={NAME: (choice(), choice(vectors=2))})
    for each in (tuning, tuning.having({NAME: choice(packed=True)})):
        each.save(tmp_path / "tuning.json")
        assert Tuning.load(tmp_path / "tuning.json", TARGET) == each


def changed(document: dict[str, Any], *keys: str, value: Any) -> None:
    """Set what lies under some keys."""
    for key in keys[:-1]:
        document = document[key]
    document[keys[-1]] = value


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda d: d.update(format="x"), "it does not say that its format is 'pockengine tuning'"),
        (lambda d: d.update(version=2), "version 2; a tuning file of version 1"),
        (lambda d: d.pop("choices"), "'choices' is missing"),
        (lambda d: changed(d, "choices", value=[1]), "no attribute 'items'"),
        (lambda d: changed(d, "choices", NAME, "row_tile", value=0), "row_tile is 0"),
        (lambda d: changed(d, "choices", NAME, "vectors", value=99), "vectors is 99"),
        (lambda d: changed(d, "choices", NAME, "packed", value="no"), "packed is 'no'"),
        (lambda d: changed(d, "choices", NAME, "scratch_bytes", value=1 << 40), "scratch_bytes is"),
        (lambda d: changed(d, "choices", NAME, "speed", value=1), "argument 'speed'"),
        (
            lambda d: changed(d, "processor", "vector_lanes", value=3),
            "vector registers of 3 lanes; one for",
        ),
    ],
)
def test_files_that_are_no_tuning(
    tmp_path: Path, damage: Callable[[dict[str, Any]], object], message: str
) -> None:
    """The message says what is wrong, and how to get one."""
    path = tmp_path / "tuning.json"
    Tuning(processor=Processor.of(TARGET), choices={NAME: choice()}).save(path)
    document = json.loads(path.read_text())
    damage(document)
    path.write_text(json.dumps(document))
    with pytest.raises(InputError) as caught:
        Tuning.load(path, TARGET)
    assert str(caught.value).count(message) == 1
    assert str(caught.value).startswith(f"tuning {path}: ")
    assert caught.value.found.count("tuning ") <= 1
    assert "pockengine tune MODEL" in caught.value.remedy


def test_places_that_hold_no_tuning(tmp_path: Path) -> None:
    """No file, no JSON, a folder that is not there."""
    (tmp_path / "text").write_text("row_tile: 3")
    for name, message in (("none", "it cannot be read"), ("text", "it is no JSON")):
        with pytest.raises(InputError, match=message):
            Tuning.load(tmp_path / name, TARGET)
    with pytest.raises(InputError, match="it cannot be written"):
        Tuning(processor=Processor.of(TARGET)).save(tmp_path / "no" / "tuning.json")
