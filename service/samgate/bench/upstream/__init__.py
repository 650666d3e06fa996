"""Upstream's own code, run beside samgate for comparison.

The modules of this folder run in upstream's environment, where samgate is not installed: they import nothing of it.
"""
