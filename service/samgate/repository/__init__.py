"""Triton's model repository, generated from the variants' specs."""
