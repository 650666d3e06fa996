"""What counts for the objective, and as what."""

from __future__ import annotations

import grpc
import pytest

from samgate.api.slo import Outcome, outcome_of


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("OK", Outcome.MET),
        ("DEADLINE_EXCEEDED", Outcome.LATE),
        ("RESOURCE_EXHAUSTED", Outcome.REFUSED),
        ("UNAVAILABLE", Outcome.FAILED),
        ("INTERNAL", Outcome.FAILED),
        ("UNKNOWN", Outcome.FAILED),
        ("INVALID_ARGUMENT", None),
        ("NOT_FOUND", None),
        ("FAILED_PRECONDITION", None),
        ("UNAUTHENTICATED", None),
        ("PERMISSION_DENIED", None),
        ("CANCELLED", None),
    ],
)
def test_statuses_count_as_whose_fault_they_are(code: str, expected: Outcome | None) -> None:
    assert code in grpc.StatusCode.__members__
    assert outcome_of(code, on_time=True) is expected


def test_an_answer_after_the_deadline_is_late() -> None:
    assert outcome_of("OK", on_time=False) is Outcome.LATE


def test_what_can_never_be_answered_is_not_a_refusal_for_want_of_room() -> None:
    assert outcome_of("RESOURCE_EXHAUSTED", on_time=True, counts=False) is None


def test_calls_that_the_end_of_a_drain_cancels_failed() -> None:
    assert outcome_of("CANCELLED", on_time=True, cut_off=True) is Outcome.FAILED
    assert outcome_of("INVALID_ARGUMENT", on_time=True, cut_off=True) is not Outcome.MET
