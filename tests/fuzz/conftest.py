"""The toy trainer, for descriptors."""

from tests.runtime.conftest import open_toy, toy_kernels

__all__ = ["open_toy", "toy_kernels"]
