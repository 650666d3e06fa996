"""What one call means for the service's objective. Pure."""

from __future__ import annotations

from enum import StrEnum

RPCS = ("Segment", "SegmentEverything", "Embed")
"""That the objective is of; ListVariants does no work that could be late."""


class Outcome(StrEnum):
    """Of a call that counts."""

    MET = "met"
    """Answered before its deadline."""
    LATE = "late"
    """Admitted, and not answered in time."""
    REFUSED = "refused"
    """Told to come back later, for want of room."""
    FAILED = "failed"
    """The server's fault, or it was going away."""


_FAILED = frozenset({"UNAVAILABLE", "INTERNAL", "UNKNOWN", "DATA_LOSS", "ABORTED"})


def outcome_of(code: str, *, on_time: bool, counts: bool = True, cut_off: bool = False) -> Outcome | None:
    """What a call that ended with the gRPC status ``code`` counts as; None for what isn't the server's to answer for.

    Args:
        code: name of the status.
        on_time: whether the call ended before its deadline.
        counts: False where it is the client's doing although the status doesn't say so: an answer too large, a quota
            used up, a request that didn't arrive, an answer that wasn't taken.
        cut_off: whether the server cancelled the call, at the end of a drain.

    Wrong requests, clients that cancel, and what not even an idle server could do (FAILED_PRECONDITION: a deadline
    shorter than the work, an accuracy that nothing has) don't count: no server, however well run, could have met them.
    """
    if not counts:
        return None
    if code == "OK":
        return Outcome.MET if on_time else Outcome.LATE
    if code == "DEADLINE_EXCEEDED":
        return Outcome.LATE
    if code == "RESOURCE_EXHAUSTED":
        return Outcome.REFUSED
    if code in _FAILED or cut_off:
        return Outcome.FAILED
    return None
