"""PyTorch through torch.compile, images channels last, fused SGD; it needs a C++ compiler."""

from __future__ import annotations

from functools import partial

import torch

from experiments.step_time.peers.protocol import serve
from experiments.step_time.peers.torch_step import torch_peer

if __name__ == "__main__":
    serve(partial(torch_peer, channels_last=True, fused=True, changed=torch.compile))
