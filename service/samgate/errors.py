"""Every error samgate raises on purpose, each with the gRPC status that a client sees.

    SamgateError
    ├── InvalidArgument        INVALID_ARGUMENT     the request is wrong: names field, value and limit
    ├── NotLetIn
    │   ├── Unauthenticated    UNAUTHENTICATED      who calls is not known, or not believed
    │   └── PermissionDenied   PERMISSION_DENIED    who calls is known and may not do this
    ├── NotFound               NOT_FOUND            no such variant, or the embedding's handle has expired
    ├── NotInstalled           FAILED_PRECONDITION  a known variant whose weights or graphs are missing here
    ├── Overloaded             RESOURCE_EXHAUSTED   a queue or an answer would pass its bound
    ├── Infeasible             FAILED_PRECONDITION  what was asked for is beyond what is served, however idle
    ├── DeadlineExceeded       DEADLINE_EXCEEDED    the deadline passed before the work was started or done
    │   └── SlowClient                              the client doesn't take its answer
    ├── Unavailable            UNAVAILABLE          draining, or the engine cannot serve now: retry elsewhere
    ├── WeightsError           FAILED_PRECONDITION  weights can't be had, or are not what they should be
    ├── CompileError           FAILED_PRECONDITION  a graph can't be exported, compiled or loaded here
    └── ProfileError           FAILED_PRECONDITION  a profile is damaged, or of another machine or other points

Messages are written for the person who has to act on them; nothing secret goes into one.
"""

from __future__ import annotations

from typing import ClassVar


class SamgateError(Exception):
    """Base of every deliberate error. ``status`` is the name of a :class:`grpc.StatusCode`."""

    status: ClassVar[str] = "UNKNOWN"


class InvalidArgument(SamgateError):
    """A field of the request is unusable.

    Args:
        field: path of the field as the proto spells it, such as ``prompts[2].box``.
        problem: what is wrong, with the value and the limit.
    """

    status = "INVALID_ARGUMENT"

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field}: {problem}")
        self.field = field
        self.problem = problem


class NotLetIn(SamgateError):
    """The caller is not let in. ``reason`` is one word for machines; empty where there is none."""

    def __init__(self, message: str, reason: str = "") -> None:
        super().__init__(message)
        self.reason = reason


class Unauthenticated(NotLetIn):
    """The caller presents no token or certificate, or one that is not valid here."""

    status = "UNAUTHENTICATED"


class PermissionDenied(NotLetIn):
    """The caller is known, and has no right to this."""

    status = "PERMISSION_DENIED"


class NotFound(SamgateError):
    """The thing named does not exist here (any more)."""

    status = "NOT_FOUND"


class NotInstalled(SamgateError):
    """A variant that samgate knows but that is not installed; the message holds the command that installs it."""

    status = "FAILED_PRECONDITION"


class Overloaded(SamgateError):
    """A bound on queued work or on the size of an answer is reached.

    Args:
        message: what is full, and its bound.
        retry_after_s: seconds after which trying again makes sense, or None when it never does.
        reason: one word for machines, such as ``busy``; empty where there is none.
    """

    status = "RESOURCE_EXHAUSTED"

    def __init__(self, message: str, retry_after_s: float | None = None, reason: str = "") -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s
        self.reason = reason


class Infeasible(SamgateError):
    """Not even an idle server with what is installed here can do what was asked.

    Args:
        message: what was asked for, and what could be done.
        smallest_deadline_s: the least time that would do, or None when time isn't what is missing.
        reason: one word for machines, such as ``deadline``.
    """

    status = "FAILED_PRECONDITION"

    def __init__(self, message: str, smallest_deadline_s: float | None = None, reason: str = "") -> None:
        super().__init__(message)
        self.smallest_deadline_s = smallest_deadline_s
        self.reason = reason


class DeadlineExceeded(SamgateError):
    """The caller's deadline has passed; the work was not started or not finished."""

    status = "DEADLINE_EXCEEDED"


class SlowClient(DeadlineExceeded):
    """The client doesn't take its answer. It is not told: that would wait behind what it doesn't take."""


class Unavailable(SamgateError):
    """This server can't serve now but another, or this one later, can.

    Args:
        message: why, and what to do.
        reason: one word for machines, such as ``draining``; empty where there is none.
    """

    status = "UNAVAILABLE"

    def __init__(self, message: str, reason: str = "") -> None:
        super().__init__(message)
        self.reason = reason


class WeightsError(SamgateError):
    """Weights can't be fetched, read or trusted."""

    status = "FAILED_PRECONDITION"


class CompileError(SamgateError):
    """A graph can't be exported, compiled or loaded."""

    status = "FAILED_PRECONDITION"


class ProfileError(SamgateError):
    """A profile can't be used here; the message says why, and what to run."""

    status = "FAILED_PRECONDITION"
