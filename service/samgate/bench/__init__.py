"""Benchmarks of the whole service, each measured against something in the same run, so that ratios hold anywhere.

A benchmark is a function from a :class:`~samgate.bench.context.Context` to a
:class:`~samgate.bench.report.Result`; :mod:`samgate.bench.registry` lists them.
"""
