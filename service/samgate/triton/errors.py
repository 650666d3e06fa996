"""What goes wrong around the server rather than in it."""

from __future__ import annotations

from samgate.errors import SamgateError


class TritonError(SamgateError):
    """The server can't be installed, started or kept running; the message says what to do or what it said itself."""

    status = "FAILED_PRECONDITION"
