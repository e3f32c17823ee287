"""The intermediate representation: torch.fx graphs over a closed vocabulary of typed values."""
