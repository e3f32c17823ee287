"""Tests of pockengine.plan."""
