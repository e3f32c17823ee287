"""Properties of random graphs, ops and models."""
