"""Tests of the models and data."""
