"""Torch networks as graphs that engines run."""
