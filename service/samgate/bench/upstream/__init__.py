"""Upstream's own code, run beside samgate for comparison.

The modules of this folder also run in upstream's environment, where samgate is not installed: they import each other
relatively and nothing else of it.
"""
