"""What goes into the scheduler and what it answers: requests, tickets, refusals, steps."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from samgate.scheduling.device import Batch, Device, Stage
from samgate.scheduling.profile import OperatingPoint, PromptKind
from samgate.scheduling.queue import Priority, Work
from samgate.scheduling.timeline import Reservation, Timeline


@dataclass(frozen=True, slots=True)
class Request:
    """A request as the scheduler sees it. Times are on the caller's clock, in seconds.

    ``image`` names its image's content (None: there is nothing to encode, or not to share); ``cached`` are the
    operating points whose embedding of it is held; ``points`` those that may answer (None: any). ``encodes`` counts
    images to encode, crops included; ``prompts`` prompts to decode, those of SegEvery if ``everything``. One that is
    ``open_ended`` may go on with further prompts, which nothing is promised for: they run when no promised work waits.
    """

    arrival: float
    deadline: float
    kind: PromptKind
    prompts: int
    megapixels: float = 0.0
    image: str | None = None
    encodes: int = 1
    cached: frozenset[str] = frozenset()
    points: frozenset[str] | None = None
    everything: bool = False
    open_ended: bool = False
    min_accuracy: float = 0.0
    priority: Priority = Priority.INTERACTIVE
    client: str = ""


class Reason(StrEnum):
    """Why an operating point was chosen."""

    NAMED = "named"
    """The request left no choice."""
    MOST_ACCURATE = "most accurate"
    DEADLINE = "deadline"
    """A more accurate one would have been late, or have made others late."""
    LOAD = "load"
    """A more accurate one is not worth its time at the present load."""


class Refused(StrEnum):
    """Why a request was refused."""

    BUSY = "busy"
    """Queued work leaves no room before the deadline."""
    SHARE = "share"
    """The client has its share of a busy server."""
    LIMIT = "limit"
    """As many requests are under way as may be."""
    DEADLINE = "deadline"
    """Not even an idle server could meet it."""
    ACCURACY = "accuracy"
    """Nothing that may answer is as accurate as was asked for."""
    DOWN = "down"
    """No device that could answer is up."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """``retry_after_s`` is when trying again makes sense; ``smallest_s`` the least time until a deadline that an idle
    server could meet; ``best_accuracy`` the most that could be asked for. Each None where it says nothing."""

    reason: Refused
    retry_after_s: float | None = None
    smallest_s: float | None = None
    best_accuracy: float | None = None


@dataclass(slots=True, eq=False)
class Encode:
    """An image's way through one operating point's encoder, which several requests may wait for.

    ``hard`` is the latest time at which its end is of use to anyone; ``reservation`` is on the ``timeline`` of the
    device where it runs.
    """

    key: tuple[str, str]
    finish: float
    due: float
    hard: float
    timeline: Timeline
    reservation: Reservation
    users: int = 1
    work: Work[Any] | None = None


@dataclass(slots=True, eq=False)
class Ticket:
    """An admitted request: where it is answered, and what it was predicted.

    ``finish`` is when the answer was predicted to be done, ``margin_s`` included; ``service_s`` the part of it that is
    neither waiting nor margin.
    """

    request: Request
    device: Device
    point: OperatingPoint
    accuracy: float
    reason: Reason
    price: float
    admitted: float
    finish: float
    margin_s: float
    service_s: float
    encode_due: float
    decode_due: float
    encode_hard: float
    decode_hard: float
    work_s: float
    encoding: Encode | None = None
    joined: bool = False
    encode: Reservation | None = None
    decode: Reservation | None = None
    queued_s: float = 0.0
    shared_s: float = 0.0
    encode_each_s: float = 0.0
    decode_each_s: float = 0.0
    submitted: int = 0
    """Prompts that were queued so far."""
    open: bool = True

    @property
    def encodes(self) -> bool:
        """Whether an image has to be encoded that nobody else's request encodes."""
        return self.encode is not None or (self.encoding is not None and not self.joined)


@dataclass(slots=True, eq=False)
class Job:
    """The payload of queued work: whose it is, which stage, and the caller's own ``load``."""

    ticket: Ticket
    stage: Stage
    load: Any
    reserved_s: float
    hard: float


@dataclass(slots=True)
class Step:
    """What to do now: run ``start``, tell the callers of ``dropped`` that their deadline can't be met, and ask again at
    ``wake`` at the latest (None: when something happens)."""

    start: list[Batch] = field(default_factory=list)
    dropped: list[Work[Job]] = field(default_factory=list)
    wake: float | None = None
