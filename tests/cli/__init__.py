"""Tests of the commands that train and use models."""
