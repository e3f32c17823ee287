"""The intermediate representation: torch.fx graphs over a closed vocabulary of typed values."""

from __future__ import annotations

from pockengine.ir import draws, windows  # noqa: F401 - importing a family enters its ops
