"""Models that come as saved exported programs: captured, trained and evaluated as the original."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import pockengine as pe
from pockengine.errors import InputError
from pockengine.frontend.exported import load_exported


class Net(nn.Module):
    """A convolution with batch normalization, dropout, a constant and a tied buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU())
        self.dropout = nn.Dropout(0.0)
        self.head = nn.Linear(4, 3)
        self.register_buffer("shift", torch.ones(3))

    def forward(self, x: Tensor, scale: Tensor | None = None) -> dict[str, Tensor]:
        """Logits by name."""
        logits = self.head(self.dropout(self.body(x).mean((2, 3)))) + self.shift
        return {"logits": logits if scale is None else logits * scale + torch.tensor(0.5)}


def saved(model: nn.Module, path: Path, *args: Tensor, **kwargs: Tensor) -> Path:
    """The file of a model's exported program."""
    torch.export.save(torch.export.export(model, args, kwargs), path)
    return path


@pytest.mark.parametrize("training", [True, False])
def test_steps_follow_eager(tmp_path: Path, training: bool) -> None:
    """Losses, statistics and predictions are those of the model that was exported."""
    model = Net().train(training)
    x, y = torch.randn(4, 3, 6, 6), torch.arange(4) % 3
    loaded, inputs = load_exported(saved(model, tmp_path / "net.pt2", x))
    assert torch.equal(inputs[0], x)
    assert loaded.training is training
    assert loaded.state_dict().keys() == model.state_dict().keys()
    trainer = pe.compile(loaded, (inputs, y), loss="cross_entropy", optimizer=pe.SGD())
    twin = copy.deepcopy(model)
    optimizer = torch.optim.SGD(twin.parameters(), lr=0.1)
    for _ in range(2):
        loss = functional.cross_entropy(twin(x)["logits"], y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        assert trainer.step(x, y, lr=0.1) == pytest.approx(loss.item(), rel=1e-5)
    wanted = twin.eval()(x)["logits"]
    torch.testing.assert_close(trainer.predict(x)["logits"], wanted, rtol=1e-4, atol=1e-5)
    twin.load_state_dict(trainer.state_dict())
    assert twin.body[1].num_batches_tracked == (2 if training else 0)


def test_both_modes_and_keywords(tmp_path: Path) -> None:
    """The module itself computes what the model does, with keyword inputs, in either mode."""
    model = Net().train()
    given = {"x": torch.randn(2, 3, 4, 4), "scale": torch.ones(2, 3)}
    loaded, inputs = load_exported(saved(model, tmp_path / "net.pt2", **given))
    assert inputs.keys() == given.keys()
    again = copy.deepcopy(loaded)
    for mode in (True, False):
        wanted = model.train(mode)(**given)["logits"]
        torch.testing.assert_close(again.train(mode)(**given)["logits"], wanted)
    assert again.get_buffer("body.1.num_batches_tracked") == 1
    assert loaded.get_buffer("body.1.num_batches_tracked") == 0


def test_not_an_exported_program(tmp_path: Path) -> None:
    """Another file is one message."""
    path = tmp_path / "net.pt2"
    path.write_bytes(b"no zip")
    with pytest.raises(InputError, match=r"net\.pt2.*cannot be read as an exported program"):
        load_exported(path)


def test_inputs_of_both_kinds(tmp_path: Path) -> None:
    """A batch is a tuple or a dict, so such a program is refused."""
    given = (torch.randn(2, 3, 4, 4),)
    path = saved(Net(), tmp_path / "net.pt2", *given, scale=torch.ones(2, 3))
    with pytest.raises(InputError, match="both positional and keyword inputs"):
        load_exported(path)
