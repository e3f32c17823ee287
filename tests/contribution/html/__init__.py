"""Tests of the page of a sensitivity."""
