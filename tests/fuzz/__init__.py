"""Damaged files of every kind: an error each, and never a crash."""
