"""Tests of ``pockengine.fit`` through trainers."""
