"""PyTorch's vocabulary through the whole compiler, a table a family."""
