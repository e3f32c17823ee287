"""GRU and LSTM are captured as they are, unrolled; what cannot be is named."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pack_sequence

from pockengine.errors import CaptureError
from pockengine.frontend.capture import canonical_batch, capture
from tests.oracles import Example, check_against_autograd, doubles


class Net(nn.Module):
    """A recurrent layer and a classifier; optionally an initial state that is learned."""

    def __init__(self, kind: type[nn.GRU | nn.LSTM], *, given: bool, **how: Any) -> None:
        super().__init__()
        self.rnn = kind(3, 4, **how)
        ways = self.rnn.num_layers * (1 + self.rnn.bidirectional)
        self.state = nn.Parameter(torch.randn(ways, 2, 4)) if given else None
        width = (self.rnn.proj_size or 4) * (1 + self.rnn.bidirectional)
        self.head = nn.Linear(width, 2)

    def forward(self, x: Tensor) -> Tensor:
        """(2, 4, 3), or (4, 2, 3) with time first -> (2, 2)."""
        state = self.state
        if state is not None and isinstance(self.rnn, nn.LSTM):
            y, _ = self.rnn(x, (state, state.tanh()))
        else:
            y, _ = self.rnn(x, state)
        return self.head(y.mean(1 if self.rnn.batch_first else 0))  # type: ignore[no-any-return]


@pytest.mark.parametrize("kind", [nn.GRU, nn.LSTM])
@pytest.mark.parametrize(
    ("given", "how"),
    [
        (False, {"batch_first": True}),
        (True, {"num_layers": 2, "bidirectional": True}),
        (False, {"bidirectional": True, "batch_first": True, "bias": False}),
    ],
)
def test_recurrent(kind: type[nn.GRU | nn.LSTM], given: bool, how: dict[str, Any]) -> None:
    """Loss and all gradients are autograd's in float64."""
    _check(Net(kind, given=given, **how), batch_first=how.get("batch_first", False))


def test_projection() -> None:
    """An LSTM may project its output."""
    _check(Net(nn.LSTM, given=False, proj_size=2, batch_first=True), batch_first=True)


def _check(model: nn.Module, *, batch_first: bool) -> None:
    batch = (torch.randn(2, 4, 3) if batch_first else torch.randn(4, 2, 3), torch.tensor([1, 0]))
    captured = capture(model, batch, "cross_entropy")
    check_against_autograd(
        Example(model, batch, "cross_entropy", captured, doubles(captured, batch))
    )


class Packing(nn.Module):
    """Packs its input itself."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.GRU(3, 4, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        """(2, 4, 3) -> (1, 2, 4)."""
        packed = pack_padded_sequence(x, torch.tensor([4, 2]), batch_first=True)
        return self.rnn(packed)[1]  # type: ignore[no-any-return]


def test_packing_is_refused() -> None:
    """A model that packs sequences, and a batch of packed ones, are told what to do."""
    with pytest.raises(CaptureError, match=r"packed sequence.*padded to one length"):
        capture(Packing(), (torch.randn(2, 4, 3), torch.randn(1, 2, 4)), "mse")
    packed = pack_sequence([torch.randn(4, 3), torch.randn(2, 3)])
    with pytest.raises(CaptureError, match=r"packed sequence.*last output"):
        canonical_batch((packed, torch.zeros(2)))
