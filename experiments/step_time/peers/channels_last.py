"""PyTorch eager with images stored channels last and the fused SGD."""

from __future__ import annotations

from functools import partial

from experiments.step_time.peers.protocol import serve
from experiments.step_time.peers.torch_step import torch_peer

if __name__ == "__main__":
    serve(partial(torch_peer, channels_last=True, fused=True))
