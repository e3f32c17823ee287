"""Damaged checkpoints, weights, schemes, descriptors and kernels: an error each, never a crash.

``POCKENGINE_EXAMPLES=7`` makes 10,500 of them. Half of them have a right checksum, so that what
lies behind it is met as well.
"""

from __future__ import annotations

import json
import random
import shutil
import struct
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save
from torch import Tensor, nn

import pockengine as pe
from pockengine.errors import BuildError, CheckpointError, InputError, PlanError, PockEngineError
from pockengine.lower.cache import KernelCache, read_payload
from pockengine.runtime.descriptor import Page
from pockengine.runtime.encoding import decode, encode
from pockengine.runtime.engine import Engine
from pockengine.runtime.library import CORE, CSRC
from pockengine.weights import StoredWeights
from tests.conftest import MORE
from tests.fuzz.damage import (
    changed_json,
    changed_words,
    damaged,
    join_safetensors,
    json_text,
    signed_checkpoint,
    signed_descriptor,
    split_safetensors,
)
from tests.runtime.toy import X, toy_descriptor

_EACH = 300 * MORE
_X, _Y = torch.ones(2, 3), torch.zeros(2, 2)


def _chances(count: int = _EACH) -> Iterator[random.Random]:
    return (random.Random(number) for number in range(count))  # noqa: S311 - not for secrets


def _model() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))


def _changed_header(data: bytes, chance: random.Random) -> bytes:
    """A safetensors file with something odd in its header."""
    header, rest = split_safetensors(data)
    said = header.get("__metadata__", {})
    place = chance.choice(["", *(key for key in said if key != "sha256")])
    if not place:
        header = changed_json(header, chance)
    elif place in ("parts", "extra", "scheme", "has_state"):
        inner = json_text(changed_json(json.loads(said[place]), chance), chance)
        said[place] = inner.decode("utf-8", "replace")
    else:
        said[place] = chance.choice(("", "x", "1", "2", "full", "delta", "9" * 64))
    text = json.dumps(header, separators=(",", ":")).encode("utf-8", "surrogatepass")
    return join_safetensors(text, rest)


@pytest.mark.filterwarnings("ignore:.*starts anew")
def test_checkpoints(tmp_path: Path) -> None:
    """One that was changed is refused; one that was made anew loads or is refused, whole."""
    scheme = pe.Scheme({"0.weight": 0.5, "2.bias": 1.0})
    options: dict[str, Any] = {"loss": "mse", "optimizer": pe.Adam(), "scheme": scheme}
    told: Counter[str] = Counter()
    with pe.compile(_model(), (_X, _Y), **options, threads=1) as trainer:
        trainer.step(_X, _Y, lr=0.1)
        originals = []
        for delta in (False, True):
            trainer.save(tmp_path / "a", delta=delta, extra={"epoch": "3"})
            originals.append((tmp_path / "a").read_bytes())
        for number, chance in enumerate(_chances()):
            path = tmp_path / "b"
            data = originals[number // 2 % 2]
            if number % 2:
                path.write_bytes(damaged(data, chance))
            elif number % 4:
                path.write_bytes(signed_checkpoint(_changed_header(data, chance)))
            else:
                path.write_bytes(signed_checkpoint(damaged(data, chance)))
            before = [region.tobytes() for region in trainer.engine.regions[:3]]
            try:
                trainer.load(path)
            except CheckpointError as error:
                told[error.found[:24]] += 1
                assert [r.tobytes() for r in trainer.engine.regions[:3]] == before
            else:
                assert number % 2 == 0, f"{number}: damage went unseen"
                told["loaded"] += 1
    assert len(told) > 5


def test_weights(tmp_path: Path) -> None:
    """A file of weights is read, or refused by what is wrong with it."""
    tensors: dict[str, Tensor] = dict(_model().state_dict())
    original = save(tensors)
    told: Counter[str] = Counter()
    for number, chance in enumerate(_chances()):
        path = tmp_path / "a"
        change = damaged if number % 2 else _changed_header
        path.write_bytes(change(original, chance))
        try:
            stored = StoredWeights(path, tensors, {})
            for name in stored:
                assert stored[name].shape == tensors[name].shape
                stored.release(name)
        except InputError as error:
            told[error.found[:12]] += 1
        else:
            told["read"] += 1
    assert told["it is trunca"]
    assert told["read"]


_SCHEMES = (
    pe.Scheme({"0.weight": 0.5, "0.bias": 1.0, "2.weight": 0.25}),
    pe.Scheme.full(),
    pe.Scheme.bias_only(last=1),
    pe.Scheme.last_blocks(1),
    pe.Scheme.lora(2, ["0", "2"], alpha=4.0, head=True, seed=1),
)


def test_schemes(tmp_path: Path) -> None:
    """A scheme's file gives a scheme that fits the model, or one error."""
    told: Counter[str] = Counter()
    for number, chance in enumerate(_chances()):
        path = tmp_path / "scheme.json"
        text = _SCHEMES[number % len(_SCHEMES)].to_json()
        if number % 3:
            path.write_bytes(json_text(changed_json(json.loads(text), chance), chance))
        else:
            path.write_bytes(damaged(text.encode(), chance))
        try:
            scheme = pe.Scheme.load(path)
            scheme.resolve(scheme.prepared(_model()))
        except PockEngineError as error:
            told[error.where[:12]] += 1
        else:
            told["resolved"] += 1
    assert len(told) > 3


def _descriptors(count: int = _EACH) -> Iterator[bytes]:
    """Damaged ones; of two, one with a right checksum."""
    toy = toy_descriptor()
    paged = replace(toy, pages=(Page(0, out=False, operand=X, storage_offset=0, nbytes=8),))
    originals = [encode(toy), encode(paged)]
    for number, chance in enumerate(_chances(count)):
        original = originals[number % 9 == 8]
        if number % 4 == 0:
            yield damaged(original, chance)
        elif number % 4 == 1:
            yield signed_descriptor(damaged(original, chance))
        else:
            yield signed_descriptor(changed_words(original, chance))


def test_descriptors(open_toy: Callable[..., Engine]) -> None:
    """Python decodes what the C core would open, or refuses it."""
    told: Counter[str] = Counter()
    for data in _descriptors():
        try:
            decode(data)
            open_toy(descriptor=data).close()
        except PlanError as error:
            told[error.found] += 1
        else:
            told["opened"] += 1
    assert len(told) > 5


def test_descriptors_under_sanitizers(tmp_path: Path) -> None:
    """The C core opens or refuses, and runs what it opened, within its memory."""
    compiler = shutil.which("gcc") or shutil.which("clang")
    program, source = tmp_path / "fuzz", Path(__file__).parents[1] / "runtime" / "csrc"
    flags = ["-std=c99", "-D_POSIX_C_SOURCE=200809L", "-Wall", "-Wextra", "-Werror", "-g", "-O1"]
    checks = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all", f"-I{CSRC}"]
    sources = [*map(str, CORE), str(source / "fuzz_descriptor.c")]
    if compiler is None:
        pytest.skip("there is neither gcc nor clang")
    built = subprocess.run(
        [compiler, *flags, *checks, *sources, "-o", program],
        capture_output=True,
        text=True,
        check=False,
    )
    if "cannot find" in built.stderr:
        pytest.skip(f"{compiler} has no sanitizers")
    assert built.returncode == 0, built.stderr
    blobs = list(_descriptors(10 * _EACH))
    data = b"".join(struct.pack("<I", len(blob)) + blob for blob in blobs)
    (tmp_path / "blobs").write_bytes(data)
    ran = subprocess.run(
        [program, tmp_path / "blobs"], capture_output=True, text=True, check=False, timeout=300
    )
    assert ran.returncode == 0, ran.stderr
    told = Counter(map(int, ran.stdout.split()))
    assert told.total() == len(blobs)
    assert {-1, -2, -3, -4, -5, -8, 0} <= told.keys()


def test_kernels(tmp_path: Path) -> None:
    """An entry of the kernel cache gives the code that was put there, or is built anew."""
    cache, payload = KernelCache(tmp_path), bytes(range(256)) * 3
    original = cache.put("aa", payload).read_bytes()
    refused = 0
    for chance in _chances():
        cache.path("aa").write_bytes(damaged(original, chance))
        if cache.get("aa") is not None:  # the damage is in the header's padding
            assert read_payload(cache.path("aa")) == payload
            continue
        refused += 1
        with pytest.raises(BuildError, match="delete the file and compile again"):
            read_payload(cache.path("aa"))
    assert refused > 0.9 * _EACH
