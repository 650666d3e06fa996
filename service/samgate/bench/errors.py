"""What goes wrong while measuring."""

from __future__ import annotations

from samgate.errors import SamgateError


class BenchmarkError(SamgateError):
    """Something that a benchmark needs can't be had here, or a process that it measures has failed."""

    status = "FAILED_PRECONDITION"
