"""Weights, state files and the directory of a run."""
