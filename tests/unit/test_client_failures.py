"""gRPC's errors, and when a call is tried again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import grpc
import pytest

from samgate.client.failures import Attempts, RetryPolicy, from_rpc_error
from samgate.errors import (
    DeadlineExceeded,
    Infeasible,
    InvalidArgument,
    NotFound,
    NotInstalled,
    Overloaded,
    SamgateError,
    Unavailable,
)


class Failed(grpc.RpcError):
    def __init__(
        self, code: grpc.StatusCode, details: str | None = "why", trailers: Sequence[tuple[str, str]] | None = None
    ) -> None:
        self._parts = (code, details, trailers)

    def code(self) -> grpc.StatusCode:
        return self._parts[0]

    def details(self) -> str | None:
        return self._parts[1]

    def trailing_metadata(self) -> Any:
        return self._parts[2]


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (grpc.StatusCode.NOT_FOUND, NotFound),
        (grpc.StatusCode.FAILED_PRECONDITION, NotInstalled),
        (grpc.StatusCode.DEADLINE_EXCEEDED, DeadlineExceeded),
        (grpc.StatusCode.UNAVAILABLE, Unavailable),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, Overloaded),
    ],
)
def test_codes_become_the_errors_they_were(code: grpc.StatusCode, kind: type[SamgateError]) -> None:
    error = from_rpc_error(Failed(code))
    assert type(error) is kind
    assert str(error) == "why"


def test_what_a_server_cancels_as_it_shuts_down_is_tried_again() -> None:
    error = from_rpc_error(Failed(grpc.StatusCode.CANCELLED, "CANCELLED"))
    assert isinstance(error, Unavailable)
    assert Attempts(RetryPolicy(1), 10.0).pause_after(error) is not None


def test_invalid_arguments_are_split_into_field_and_problem() -> None:
    code = grpc.StatusCode.INVALID_ARGUMENT
    error = from_rpc_error(Failed(code, "prompts[2].box: (1, 2): is empty"))
    assert isinstance(error, InvalidArgument)
    assert (error.field, error.problem) == ("prompts[2].box", "(1, 2): is empty")
    assert str(from_rpc_error(Failed(code, "nonsense"))) == "request: nonsense"


def test_other_codes_are_named() -> None:
    assert str(from_rpc_error(Failed(grpc.StatusCode.INTERNAL, "bug"))) == "INTERNAL: bug"
    assert "no reason" in str(from_rpc_error(Failed(grpc.StatusCode.UNKNOWN, None)))
    assert "lost" in str(from_rpc_error(grpc.RpcError("lost")))


@pytest.mark.parametrize(
    ("trailers", "seconds"),
    [([("a", "b"), ("retry-after-ms", "1500")], 1.5), ([("retry-after-ms", "soon")], None), (None, None)],
)
def test_overload_tells_when_to_come_back(trailers: list[tuple[str, str]] | None, seconds: float | None) -> None:
    error = from_rpc_error(Failed(grpc.StatusCode.RESOURCE_EXHAUSTED, "full", trailers))
    assert isinstance(error, Overloaded)
    assert error.retry_after_s == seconds


def test_backoff_doubles_to_its_bound_with_full_jitter() -> None:
    spans: list[tuple[float, float]] = []

    def most(low: float, high: float) -> float:
        spans.append((low, high))
        return high

    attempts = Attempts(RetryPolicy(retries=5, first_s=0.1, max_s=0.5), 60, Clock(), most)
    pauses = [attempts.pause_after(Unavailable("x")) for _ in range(6)]
    assert pauses == [0.1, 0.2, 0.4, 0.5, 0.5, None]
    assert all(low == 0 for low, _ in spans)


def test_no_pause_passes_the_deadline() -> None:
    clock = Clock()
    attempts = Attempts(RetryPolicy(), 2.0, clock)
    assert attempts.pause_after(Overloaded("full", 1.5)) == 1.5
    clock.now += 1.5
    assert attempts.remaining_s() == pytest.approx(0.5)
    assert attempts.pause_after(Overloaded("full", 1.5)) is None
    clock.now += 10
    assert attempts.remaining_s() == 0


def test_too_little_time_after_a_pause_is_told_as_what_the_pause_was_for() -> None:
    busy, too_little = Overloaded("busy", 0.13), Infeasible("0.02 s is too short", 0.139)
    attempts = Attempts(RetryPolicy(), 0.15, Clock())
    # Without a try before it is the server's word on all of the time, after one on what is left.
    assert attempts.last_word(too_little) is too_little
    assert attempts.pause_after(busy) == 0.13
    assert attempts.last_word(too_little) is busy
    # All of the time would not have been enough, or time isn't what is missing.
    for other in Infeasible("0.02 s is too short", 0.2), Infeasible("min_accuracy: 1"), DeadlineExceeded("late"):
        assert attempts.last_word(other) is other


def test_other_errors_are_final() -> None:
    attempts = Attempts(RetryPolicy(), 60)
    for error in (NotFound("x"), DeadlineExceeded("x"), Overloaded("too large"), SamgateError("x")):
        assert attempts.pause_after(error) is None


def test_unusable_settings_are_refused() -> None:
    with pytest.raises(InvalidArgument, match="timeout_s"):
        Attempts(RetryPolicy(), 0)
    with pytest.raises(InvalidArgument, match="retries"):
        RetryPolicy(retries=-1)
