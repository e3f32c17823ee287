"""From a PyTorch module to a joint graph in the closed vocabulary."""
