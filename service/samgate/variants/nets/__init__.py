"""Torch definitions of the networks, for weights and export only: serving never imports this package."""
