"""Tests of pockengine.frontend."""
