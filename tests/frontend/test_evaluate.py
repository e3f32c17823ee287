"""What nothing at run time changes is computed at capture, by whatever ops."""

from __future__ import annotations

import torch
from torch import Tensor, nn

import pockengine as pe
from pockengine.frontend.capture import Captured, capture
from pockengine.frontend.recall import recall

BATCH = (torch.randn(2, 6), torch.randn(2, 6))


class Rotary(nn.Module):
    """A table made from a buffer by ops that the vocabulary lacks, complex numbers among them."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(6, 6)
        self.register_buffer("frequency", torch.tensor([0.5, 0.1]), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 6) -> (N, 6)."""
        angle = torch.outer(torch.arange(3).float().sinh(), self.frequency)  # type: ignore[arg-type]
        table = torch.view_as_real(torch.polar(torch.ones_like(angle), angle))
        return self.first(x) * torch.special.i0(table[..., 0]).reshape(6)  # type: ignore[no-any-return]


def test_tables_of_unknown_ops() -> None:
    """A table of unknown ops is a constant; losses are PyTorch's."""
    torch.manual_seed(0)
    model = Rotary()
    captured = capture(model, BATCH, "mse")
    assert set(captured.assumed) == {"frequency"}
    with pe.compile(model, BATCH, loss="mse", optimizer=pe.SGD()) as trainer:
        loss = trainer.step(*BATCH, lr=0.1)
        wanted = nn.functional.mse_loss(model(BATCH[0]), BATCH[1])
        assert abs(loss - wanted.item()) < 1e-5 * wanted.item()


def test_another_table_is_captured_anew() -> None:
    """A capture is not recalled where the buffer that it computed with has changed."""
    model = Rotary()
    first = recall(model, BATCH, "mse")
    assert recall(model, BATCH, "mse").graph is first.graph
    model.frequency.mul_(2)  # type: ignore[operator, union-attr]
    again = recall(model, BATCH, "mse")
    assert again.graph is not first.graph
    assert captured_constants(again) != captured_constants(first)


def captured_constants(captured: Captured) -> list[list[float]]:
    """The constants that were computed, as numbers."""
    named = captured.tensors.items()
    return [t.flatten().tolist() for name, t in named if name.startswith("constant.")]
