"""Mistakes that users make, and what they are told: the catalogue of docs/errors.md."""
