"""What counts as lost, and what doesn't; how requests are counted."""

from __future__ import annotations

import pytest

from loadtest.reliability.ledger import GRACE_S, NEVER_ENDED, WRONG, Entry, Fate, Ledger, Outage, fate

DEADLINE_S = 20.0


def ended(status: str, at_s: float = 5.0, **more: bool) -> Entry:
    return Entry(0, "click", 0.0, DEADLINE_S, ended_s=at_s, status=status, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        (ended("OK"), Fate.ANSWERED),
        (ended("FAILED_PRECONDITION"), Fate.REFUSED),
        (ended("DEADLINE_EXCEEDED", DEADLINE_S), Fate.EXPIRED),
        (ended("RESOURCE_EXHAUSTED", retry_told=True), Fate.REFUSED),
        # When to try again, nobody knows.
        (ended("RESOURCE_EXHAUSTED"), Fate.LOST),
        (ended("CANCELLED", cancelled=True), Fate.CANCELLED),
        (ended("CANCELLED"), Fate.LOST),
        # It was answered before it could be cancelled.
        (ended("OK", cancelled=True), Fate.ANSWERED),
        (ended("INTERNAL"), Fate.LOST),
        (ended("INTERNAL", cancelled=True), Fate.LOST),
        (ended("UNKNOWN"), Fate.LOST),
        (ended("INVALID_ARGUMENT"), Fate.LOST),
        (ended("NOT_FOUND"), Fate.LOST),
        (ended(WRONG), Fate.LOST),
        (ended("TimeoutError"), Fate.LOST),
        (Entry(0, "click", 0.0, DEADLINE_S), Fate.LOST),
        (ended("OK", DEADLINE_S + GRACE_S + 1), Fate.LOST),
        # A server was there.
        (ended("UNAVAILABLE"), Fate.LOST),
    ],
)
def test_fates(entry: Entry, expected: Fate) -> None:
    assert fate(entry) is expected


def test_malformed_requests_must_be_refused() -> None:
    wanted = frozenset({"INVALID_ARGUMENT"})
    for status, expected in (("INVALID_ARGUMENT", Fate.ANSWERED), ("OK", Fate.LOST), ("INTERNAL", Fate.LOST)):
        assert fate(Entry(0, "malformed", 0, DEADLINE_S, wanted, ended_s=1, status=status)) is expected


def test_a_handle_may_have_gone() -> None:
    allowed = frozenset({"NOT_FOUND"})
    assert fate(Entry(0, "handle", 0, DEADLINE_S, allowed=allowed, ended_s=1, status="NOT_FOUND")) is Fate.REFUSED


@pytest.mark.parametrize(
    ("outage", "expected"),
    [
        # Nothing was there before its deadline, or too late for it.
        (Outage(4, 60), Fate.REFUSED),
        (Outage(4, 19), Fate.REFUSED),
        # It was there again with time to spare: trying on would have done.
        (Outage(4, 10), Fate.LOST),
        # Another time.
        (Outage(6, 60), Fate.LOST),
    ],
)
def test_giving_up_is_a_loss_where_a_server_was_there_in_time(outage: Outage, expected: Fate) -> None:
    assert fate(ended("UNAVAILABLE"), [outage]) is expected


def test_the_ledger_counts_by_span() -> None:
    ledger = Ledger()
    for began, status, took in ((0, "OK", 1), (1, "OK", 3), (2, "INTERNAL", 1), (10, "UNAVAILABLE", 1), (11, "", 0)):
        entry = ledger.open("click", began, DEADLINE_S)
        if status:
            entry.status, entry.ended_s = status, began + took
    ledger.outages.append(Outage(9, 40))
    before, after = ledger.tally(until_s=10), ledger.tally(from_s=10)
    assert (before.sent, before[Fate.ANSWERED], before[Fate.LOST], before.p50_s) == (3, 2, 1, 3)
    assert (after.sent, after[Fate.REFUSED], after[Fate.LOST]) == (2, 1, 1)
    assert after.refused == {"UNAVAILABLE": 1}
    assert after.lost == {NEVER_ENDED: 1}
    assert [entry.began_s for entry in ledger.lost()] == [2, 11]
    assert [entry.number for entry in ledger.entries] == list(range(5))


def test_recovery_counts_from_requests_that_were_sent_after_the_fault() -> None:
    ledger = Ledger()
    for kind, began, end in (("click", 0, 12), ("click", 11, 14), ("box", 12, 20), ("box", 13, 18)):
        entry = ledger.open(kind, began, DEADLINE_S)
        entry.status, entry.ended_s = "OK", end
    assert ledger.answered_after(10) == 14
    assert ledger.answered_after(10, ["click", "box"]) == 18
    assert ledger.answered_after(10, ["click", "everything"]) is None
    assert ledger.answered_after(15) is None
