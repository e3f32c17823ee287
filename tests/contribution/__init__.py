"""What updating costs and brings."""
