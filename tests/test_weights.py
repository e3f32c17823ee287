"""Models on the meta device: captured without values, which come from a file tensor by tensor."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

import pockengine as pe
from pockengine.errors import CaptureError, InputError

BATCH = (torch.randn(2, 3, 4, 4), torch.tensor([0, 1]))
OPTIONS: Any = {"loss": "cross_entropy", "optimizer": pe.SGD(momentum=0.9)}


class Net(nn.Module):
    """A convolution with BatchNorm, and two linear layers of one weight."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)
        self.second.weight = self.first.weight
        self.head = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) -> (N, 4)."""
        x = self.norm(self.conv(x)).mean((2, 3))
        return self.head(self.second(torch.tanh(self.first(x))))  # type: ignore[no-any-return]


def saved(path: Path, dtype: torch.dtype = torch.float32) -> Net:
    """A model whose values are in a file, without the second name of the tied weight."""
    torch.manual_seed(0)
    model = Net().eval()
    model.norm.running_mean.normal_()  # type: ignore[union-attr]
    state = {n: t for n, t in model.state_dict().items() if n != "second.weight"}
    halved = {n: t.to(dtype) if t.is_floating_point() else t for n, t in state.items()}
    save_file(halved, path)
    model.load_state_dict({n: t.to(dtype).float() for n, t in model.state_dict().items()})
    return model


def on_meta() -> Net:
    """The model without values."""
    with torch.device("meta"):
        return Net().eval()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    "scheme", [pe.Scheme.full(), pe.Scheme.bias_only(), pe.Scheme.lora(2, ["head"])]
)
def test_values_from_a_file(tmp_path: Path, dtype: torch.dtype, scheme: Any) -> None:
    """The trainer is that of the model with its values, whatever the file's dtype."""
    path = tmp_path / "model.safetensors"
    found = []
    for model, weights in ((saved(path, dtype), None), (on_meta(), path)):
        with pe.compile(model, BATCH, scheme=scheme, weights=weights, **OPTIONS) as trainer:
            losses = [trainer.step(*BATCH, lr=0.1) for _ in range(3)]
            found.append((losses, trainer.state_dict()))
    (losses, state), (losses_of_meta, state_of_meta) = found
    assert losses == losses_of_meta
    assert state.keys() == state_of_meta.keys()
    for name, tensor in state.items():
        assert torch.equal(tensor, state_of_meta[name])
        assert tensor.dtype == state_of_meta[name].dtype


def test_model_stays_on_meta(tmp_path: Path) -> None:
    """The model is not changed, and cannot be compiled without its values."""
    model = on_meta()
    saved(tmp_path / "a")
    pe.compile(model, BATCH, weights=[tmp_path / "a"], **OPTIONS).close()
    assert all(parameter.is_meta for parameter in model.parameters())
    with pytest.raises(CaptureError, match=r"on meta.*weights='file\.safetensors'"):
        pe.compile(model, BATCH, **OPTIONS)


def test_files_that_do_not_fit(tmp_path: Path) -> None:
    """A missing value, another shape, no file and no safetensors file are refused."""
    whole = {n: t for n, t in saved(tmp_path / "a").state_dict().items() if n != "second.weight"}
    save_file({n: t for n, t in whole.items() if n != "head.bias"}, tmp_path / "few")
    save_file({**whole, "head.bias": torch.zeros(5)}, tmp_path / "shape")
    (tmp_path / "text").write_text("no tensors in here", encoding="utf-8")
    (tmp_path / "short").write_bytes((tmp_path / "a").read_bytes()[:-8])
    for name, message in {
        "few": r"no values of head\.bias",
        "shape": r"head\.bias has shape \(5,\), not \(4,\)",
        "text": "a safetensors file",
        "short": "it is truncated",
        "absent": "cannot be read",
    }.items():
        with pytest.raises(InputError, match=message):
            pe.compile(on_meta(), BATCH, weights=tmp_path / name, **OPTIONS)


@pytest.mark.slow
def test_one_copy_in_memory(tmp_path: Path) -> None:
    """With 64 MB of frozen weights, a process grows by little more than the trainer's regions."""
    ran = subprocess.run(
        [sys.executable, "-m", "tests.stored_peak", str(tmp_path / "wide")],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        check=True,
    )
    grown, regions = map(int, ran.stdout.split())
    assert regions > 64 << 20
    assert grown < 1.25 * regions
