"""Every request that was sent, how it ended, and whether that counts as lost. Pure.

A request is **lost** when

- it had no end within its deadline and :data:`GRACE_S`;
- it ended with INTERNAL, UNKNOWN, or any other status that doesn't tell its client what to do, CANCELLED by anybody but
  its client among them;
- it was answered wrongly: another mask than that of the object that was asked for, OK for a malformed request;
- it was refused as overloaded without a word on when to try again;
- a client that retries gave up on it with UNAVAILABLE although a server was there, or was there again before its
  deadline.

It is not lost when it was answered, refused with a status that says what to do, or out of time at its deadline.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import count

GRACE_S = 5.0
"""After its deadline a request's end may still be on its way through a busy machine."""
SPARE_S = 2.0
"""What a request needs of its deadline once a server is back: a server that comes in the last moment is no help."""
NEVER_ENDED = "NEVER ENDED"
WRONG = "WRONG ANSWER"


class Fate(StrEnum):
    """What became of a request."""

    ANSWERED = "answered"
    REFUSED = "refused"
    EXPIRED = "out of time"
    CANCELLED = "cancelled"
    """By its own client."""
    LOST = "lost"


@dataclass(slots=True, eq=False)
class Entry:
    """One request; times in seconds on one monotonic clock, ``deadline_s`` and ``ended_s`` absolute.

    ``status`` is gRPC's name of how it ended, or one of this module's. ``wanted`` are the statuses that are right for
    it, and ``allowed`` those that are a proper refusal of it beside the usual ones.
    """

    number: int
    kind: str
    began_s: float
    deadline_s: float
    wanted: frozenset[str] = frozenset({"OK"})
    allowed: frozenset[str] = frozenset()
    ended_s: float | None = None
    status: str = ""
    detail: str = ""
    cancelled: bool = False
    """Whether its client has cancelled it."""
    retry_told: bool = False
    """Whether the refusal says when to try again."""


@dataclass(frozen=True, slots=True)
class Outage:
    """A time during which no server could answer."""

    from_s: float
    until_s: float


def fate(entry: Entry, outages: Sequence[Outage] = ()) -> Fate:
    """What became of ``entry``, by the definition above; ``outages`` are all times without a server."""
    if entry.ended_s is None or entry.ended_s > entry.deadline_s + GRACE_S:
        return Fate.LOST
    if entry.cancelled and entry.status == "CANCELLED":
        return Fate.CANCELLED
    if entry.status in entry.wanted:
        return Fate.ANSWERED
    match entry.status:
        case "DEADLINE_EXCEEDED":
            return Fate.EXPIRED
        case "FAILED_PRECONDITION":
            return Fate.REFUSED
        case "RESOURCE_EXHAUSTED":
            return Fate.REFUSED if entry.retry_told else Fate.LOST
        case "UNAVAILABLE":
            return Fate.LOST if _replaced_in_time(entry.ended_s, entry.deadline_s, outages) else Fate.REFUSED
    return Fate.REFUSED if entry.status in entry.allowed else Fate.LOST


def _replaced_in_time(ended_s: float, deadline_s: float, outages: Sequence[Outage]) -> bool:
    for outage in outages:
        if outage.from_s <= ended_s <= outage.until_s:
            return outage.until_s + SPARE_S <= deadline_s
    return True


@dataclass(frozen=True, slots=True)
class Tally:
    """Counts of one span of requests: of all that were ``sent``, by fate; refused and lost by status, too."""

    sent: int
    fates: Counter[Fate]
    refused: Counter[str]
    lost: Counter[str]
    latencies_s: tuple[float, ...] = ()
    """Of the answered, ascending."""

    def __getitem__(self, which: Fate) -> int:
        return self.fates[which]

    @property
    def p50_s(self) -> float | None:
        """Median latency of the answered."""
        return self.latencies_s[len(self.latencies_s) // 2] if self.latencies_s else None


@dataclass(slots=True)
class Ledger:
    """All requests of a run."""

    entries: list[Entry] = field(default_factory=list)
    outages: list[Outage] = field(default_factory=list)
    _numbers: Iterator[int] = field(default_factory=count)

    def open(
        self,
        kind: str,
        now_s: float,
        timeout_s: float,
        wanted: frozenset[str] = frozenset({"OK"}),
        allowed: frozenset[str] = frozenset(),
    ) -> Entry:
        """A request that is being sent now."""
        entry = Entry(next(self._numbers), kind, now_s, now_s + timeout_s, wanted, allowed)
        self.entries.append(entry)
        return entry

    def tally(self, from_s: float = float("-inf"), until_s: float = float("inf")) -> Tally:
        """Of the requests that began in [from_s, until_s)."""
        return tally([entry for entry in self.entries if from_s <= entry.began_s < until_s], self.outages)

    def lost(self) -> list[Entry]:
        """The requests that count as lost."""
        return [entry for entry in self.entries if fate(entry, self.outages) is Fate.LOST]

    def answered_after(self, moment_s: float, kinds: Sequence[str] = ()) -> float | None:
        """When the first request that began after ``moment_s`` was answered, or the first of each of ``kinds``; None
        when that hasn't been."""
        first: dict[str, float] = {}
        for entry in self.entries:
            if entry.ended_s is not None and entry.began_s >= moment_s and fate(entry) is Fate.ANSWERED:
                first[entry.kind] = min(first.get(entry.kind, entry.ended_s), entry.ended_s)
        if not kinds:
            return min(first.values(), default=None)
        return max(first[kind] for kind in kinds) if all(kind in first for kind in kinds) else None


def tally(entries: Iterable[Entry], outages: Sequence[Outage] = ()) -> Tally:
    """Counts ``entries``."""
    fates: Counter[Fate] = Counter()
    refused: Counter[str] = Counter()
    lost: Counter[str] = Counter()
    latencies: list[float] = []
    sent = 0
    for entry in entries:
        sent += 1
        found = fate(entry, outages)
        fates[found] += 1
        if found is Fate.REFUSED:
            refused[entry.status] += 1
        elif found is Fate.LOST:
            lost[entry.status or NEVER_ENDED] += 1
        elif found is Fate.ANSWERED and entry.ended_s is not None:
            latencies.append(entry.ended_s - entry.began_s)
    return Tally(sent, fates, refused, lost, tuple(sorted(latencies)))
