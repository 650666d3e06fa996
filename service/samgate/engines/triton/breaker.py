"""When a model on a Triton is asked, judged by what became of the calls before. Pure: time is an argument."""

from __future__ import annotations

from enum import StrEnum


class State(StrEnum):
    """Of a :class:`Breaker`."""

    CLOSED = "closed"
    """Calls go through."""
    OPEN = "open"
    """None does."""
    TRYING = "trying"
    """One does, and decides."""


class Breaker:
    """Opens at a failure that was the server's, and stays so until it is told that trying again makes sense.

    Pauses between tries double from ``first_pause_s`` to ``longest_pause_s``. Calls that hang are failures too: they
    are found by adding up the time that calls waited in vain since the last success, which no caller's short deadline
    can hide.
    """

    def __init__(self, hang_s: float, first_pause_s: float = 0.25, longest_pause_s: float = 3.0) -> None:
        self._hang_s = hang_s
        self._first_pause_s = first_pause_s
        self._longest_pause_s = longest_pause_s
        self._failures = 0
        self._wasted_s = 0.0
        self._trying = False
        self.state = State.CLOSED

    @property
    def pause_s(self) -> float:
        """How long to wait before the next try."""
        return min(self._longest_pause_s, self._first_pause_s * 2.0 ** max(0, self._failures - 1))

    @property
    def allows(self) -> bool:
        """Whether a call may be made now."""
        return self.state is State.CLOSED or (self.state is State.TRYING and not self._trying)

    def begin(self) -> None:
        """A call is made."""
        self._trying = self.state is State.TRYING

    def succeed(self) -> None:
        """A call was answered, were it by a refusal: the server is well."""
        self._failures, self._wasted_s, self._trying = 0, 0.0, False
        self.state = State.CLOSED

    def fail(self) -> bool:
        """A call failed by the server's fault; whether this opened the breaker."""
        opened = self.state is not State.OPEN
        if opened:
            self._failures += 1
        self._wasted_s, self._trying = 0.0, False
        self.state = State.OPEN
        return opened

    def waste(self, seconds: float) -> bool:
        """A call was given up after ``seconds``; whether this says that the server hangs, which opens the breaker."""
        self._wasted_s += seconds
        self._trying = False
        return self._wasted_s >= self._hang_s and self.fail()

    def try_again(self) -> None:
        """The server was mended, or says that it is well: let one call decide."""
        if self.state is State.OPEN:
            self.state, self._trying = State.TRYING, False

    def still_bad(self) -> None:
        """The server could not be mended: wait longer."""
        self._failures += 1
