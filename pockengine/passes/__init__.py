"""Rewrites of graphs: one pass, one file, one pure function."""
