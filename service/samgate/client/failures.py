"""gRPC's errors → samgate's, and whether trying again makes sense. Pure."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol, cast

import grpc

from samgate.errors import (
    DeadlineExceeded,
    Infeasible,
    InvalidArgument,
    NotFound,
    NotInstalled,
    Overloaded,
    PermissionDenied,
    SamgateError,
    Unauthenticated,
    Unavailable,
)

RETRY_AFTER = "retry-after-ms"
SMALLEST_DEADLINE = "smallest-deadline-ms"


class _Status(Protocol):
    """What errors of gRPC's sync and async calls have in common."""

    def code(self) -> grpc.StatusCode: ...
    def details(self) -> str | None: ...
    def trailing_metadata(self) -> Iterable[tuple[str, str | bytes]] | None: ...


def from_rpc_error(error: grpc.RpcError) -> SamgateError:
    """The samgate error that the server raised, or that best says what happened on the way to it."""
    if not hasattr(error, "code"):
        return SamgateError(f"the call failed: {error}")
    status = cast(_Status, error)
    message = status.details() or "the server gave no reason"
    match status.code():
        case grpc.StatusCode.INVALID_ARGUMENT:
            field, colon, problem = message.partition(": ")
            return InvalidArgument(field, problem) if colon else InvalidArgument("request", message)
        case grpc.StatusCode.NOT_FOUND:
            return NotFound(message)
        case grpc.StatusCode.FAILED_PRECONDITION:
            smallest = _seconds(status.trailing_metadata(), SMALLEST_DEADLINE)
            if smallest is not None or message.startswith("min_accuracy"):
                return Infeasible(message, smallest)
            return NotInstalled(message)
        case grpc.StatusCode.RESOURCE_EXHAUSTED:
            return Overloaded(message, _seconds(status.trailing_metadata(), RETRY_AFTER))
        case grpc.StatusCode.DEADLINE_EXCEEDED:
            # gRPC's own words, when the deadline passes on this side.
            local = message == "Deadline Exceeded"
            return DeadlineExceeded("the deadline passed before the server answered" if local else message)
        case grpc.StatusCode.UNAVAILABLE:
            return Unavailable(message)
        case grpc.StatusCode.CANCELLED:
            # Not by us: that raises another error. A call that reaches a server in the moment in which it is told to
            # stop ends so.
            return Unavailable(f"the server has cancelled the call, as it does when it shuts down: {message}")
        case grpc.StatusCode.UNAUTHENTICATED:
            return Unauthenticated(message)
        case grpc.StatusCode.PERMISSION_DENIED:
            return PermissionDenied(message)
        case code:
            return SamgateError(f"{code.name}: {message}")


def _seconds(trailers: Iterable[tuple[str, str | bytes]] | None, name: str) -> float | None:
    for key, value in trailers or ():
        if key == name:
            try:
                return max(float(value) / 1000, 0.0)
            except ValueError:
                return None
    return None


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Up to ``retries`` further tries; the n-th waits a random time up to ``first_s`` · 2ⁿ⁻¹, at most ``max_s``."""

    retries: int = 4
    first_s: float = 0.1
    max_s: float = 5.0

    def __post_init__(self) -> None:
        if self.retries < 0:
            raise InvalidArgument("retries", f"must not be negative, is {self.retries}")


class Attempts:
    """The tries of one call, which share one deadline. Every call of the contract may be repeated safely."""

    def __init__(
        self,
        policy: RetryPolicy,
        timeout_s: float,
        clock: Callable[[], float] = time.monotonic,
        uniform: Callable[[float, float], float] = random.uniform,
    ) -> None:
        if not timeout_s > 0:
            raise InvalidArgument("timeout_s", f"must be above 0, is {timeout_s}")
        self._policy, self._clock, self._uniform = policy, clock, uniform
        self._timeout_s, self._deadline = timeout_s, clock() + timeout_s
        self._retries = 0
        self._before: SamgateError | None = None

    def remaining_s(self) -> float:
        """Seconds left for the next try."""
        return max(self._deadline - self._clock(), 0.0)

    def pause_after(self, error: SamgateError) -> float | None:
        """Seconds to wait before the next try, or None if ``error`` is final or the wait would pass the deadline.

        An unavailable server is tried again after exponential backoff with full jitter; an overloaded one when it
        said so.
        """
        if self._retries >= self._policy.retries:
            return None
        if isinstance(error, Unavailable):
            pause = self._uniform(0.0, min(self._policy.first_s * 2**self._retries, self._policy.max_s))
        elif isinstance(error, Overloaded) and error.retry_after_s is not None:
            pause = error.retry_after_s
        else:
            return None
        self._retries += 1
        if pause >= self.remaining_s():
            return None
        self._before = error
        return pause

    def last_word(self, error: SamgateError) -> SamgateError:
        """What the caller is told when ``error`` ends the last try: what is left of the time after a pause may be too
        little for any server, while all of it was not; then what the pause was for says what went wrong."""
        if isinstance(error, Infeasible) and error.smallest_deadline_s is not None and self._before is not None:
            return self._before if error.smallest_deadline_s <= self._timeout_s else error
        return error
