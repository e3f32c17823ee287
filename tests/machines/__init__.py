"""Trainers of other machines, run in emulation."""
