"""Tests of pockengine.lower."""
