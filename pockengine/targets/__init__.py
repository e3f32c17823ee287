"""Machines that trainers are compiled for: one file a device, nothing but data."""

from __future__ import annotations

from pockengine.targets.catalogue import TARGETS, get_target
from pockengine.targets.target import Target

__all__ = ["TARGETS", "Target", "get_target"]
