"""What Triton's errors mean: whose fault it was, and what the gateway says to its own caller."""

from __future__ import annotations

from enum import StrEnum

from tritonclient.utils import InferenceServerException

from samgate.errors import DeadlineExceeded, Overloaded, SamgateError, Unavailable


class Failure(StrEnum):
    """Kinds that are dealt with differently."""

    GONE = "gone"
    """The server is, or doesn't have the model ready: another may serve, and this one has to come back."""
    DEAD = "dead"
    """The server is there, but the model's process is gone: another may serve, and the model has to be loaded anew."""
    FULL = "full"
    """Its queue is: another may serve."""
    FORGOTTEN = "forgotten"
    """It doesn't know our shared memory (any more): register it, and again."""
    LATE = "late"
    """The deadline passed."""
    REFUSED = "refused"
    """It is well, and would not or could not do this call; another wouldn't either."""


_DEAD = ("is not healthy", "stub process")
"""In messages of status INTERNAL; the model goes on calling itself ready."""
_FULL = ("exceeds maximum queue size",)
_FORGOTTEN = ("unable to find shared memory region",)
_LATE = ("request timeout expired", "deadline exceeded")
_UNAVAILABLE = ("StatusCode.UNAVAILABLE", "StatusCode.NOT_FOUND")


def classify(error: InferenceServerException) -> Failure:
    """The kind of ``error``."""
    status, message = str(error.status()), (error.message() or "").lower()
    for failure, words in (
        (Failure.FORGOTTEN, _FORGOTTEN),
        (Failure.FULL, _FULL),
        (Failure.LATE, _LATE),
        (Failure.DEAD, _DEAD),
    ):
        if any(word in message for word in words):
            return failure
    if status == "StatusCode.DEADLINE_EXCEEDED":
        return Failure.LATE
    return Failure.GONE if status in _UNAVAILABLE else Failure.REFUSED


def as_samgate_error(error: InferenceServerException, server: str, model: str) -> SamgateError:
    """What a caller is told when nobody else can serve the call."""
    told = f"{model} on Triton {server}: {error.message()}"
    match classify(error):
        case Failure.LATE:
            return DeadlineExceeded(f"the deadline passed at {told}")
        case Failure.FULL:
            return Overloaded(f"no room for {told}", retry_after_s=1.0, reason="busy")
        case _:
            return Unavailable(f"no answer from {told}")
