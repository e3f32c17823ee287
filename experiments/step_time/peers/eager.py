"""PyTorch eager, as it comes."""

from __future__ import annotations

from experiments.step_time.peers.protocol import serve
from experiments.step_time.peers.torch_step import torch_peer

if __name__ == "__main__":
    serve(torch_peer)
