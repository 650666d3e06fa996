"""A request on its way through a gateway."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from samgate.scheduling.queue import Work
from samgate.scheduling.request import Ticket
from samgate.simulation.arrival import Arrival
from samgate.simulation.outcome import End, Outcome


@dataclass(slots=True, eq=False)
class Encoding:
    """An image's way through an encoder, begun by ``ticket``'s request; several may wait for it."""

    key: tuple[str, int]
    ticket: Ticket
    waiting: list[Flow]
    work: Work[Any] | None = None


@dataclass(slots=True, eq=False)
class Flow:
    """The way of ``arrival``, to gateway number ``gateway``. ``life`` counts its admissions: what an earlier one left
    behind on imaging threads is recognised by it."""

    arrival: Arrival
    gateway: int
    number: int
    attempts: int = 1
    open: bool = False
    life: int = 0
    cached: bool = False
    chunk: int = 1
    left: int = 0
    finishing: int = 0
    decode_s: float = 0.0
    works: set[Work[Any]] = field(default_factory=set)
    encoding: Encoding | None = None
    _ticket: Ticket | None = None

    @property
    def deadline(self) -> float:
        """On the simulation's clock."""
        return self.arrival.at_s + self.arrival.deadline_s

    @property
    def ticket(self) -> Ticket:
        """Of the last admission."""
        assert self._ticket is not None, "never admitted"
        return self._ticket

    def begin(self, ticket: Ticket, chunk: int, *, cached: bool) -> None:
        """Admitted: all prompts are left to do, in pieces of at most ``chunk``."""
        self._ticket, self.chunk, self.cached = ticket, chunk, cached
        self.open = True
        self.left, self.finishing, self.decode_s = self.arrival.prompts, 0, 0.0

    def over(self) -> None:
        """Not admitted any more."""
        self.open = False
        self.life += 1
        self.works.clear()
        self.encoding = None

    def alive(self, life: int) -> bool:
        """Whether the admission ``life`` goes on."""
        return self.open and self.life == life

    def outcome(self, end: End, now: float, reason: str) -> Outcome:
        """Its end."""
        found = Outcome(self.arrival, end, now, reason, attempts=self.attempts)
        if self._ticket is not None:
            found.point, found.accuracy = self._ticket.point.name, self._ticket.accuracy
            found.cached, found.joined, found.decode_s = self.cached, self._ticket.joined, self.decode_s
        return found
