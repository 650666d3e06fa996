"""The time that an anytime answer has: until when work may go on so that the client gets the last of it in time."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable
from typing import TypeVar

from samgate.errors import DeadlineExceeded

T = TypeVar("T")

_ANSWER_S = (0.05, 0.15)
"""From the last message's making to its arrival, at the least, and where the call's time allows: gRPC, the network, and
a busy machine's delays, which are a tenth of a second at times."""
_ANSWER_SHARES = (0.075, 0.01)
"""Of the call's whole time, as much of the latter as is taken, and what is taken at any rate: who waits long notices
less of it, and has more to lose."""
_UPDATE_S = 0.05
"""For the last update, at the least."""
_UPDATES = 2.0
"""Times the longest update so far, for the last."""


class OutOfTime(Exception):
    """Whatever is there now is the answer."""


class Horizon:
    """Of one call. ``arrival`` and ``deadline`` are on :func:`time.monotonic`'s clock; the latter is +∞ for calls that
    have to be answered in full, and end by their own."""

    def __init__(self, arrival: float, deadline: float) -> None:
        self.last = deadline - _answer_s(deadline - arrival) if deadline < math.inf else deadline
        """When the last mask may be encoded."""
        self._update_s = 0.0
        self._chunk_s = 0.0

    @property
    def ends(self) -> float:
        """When decoding has to be over: the last update takes its time, which is learnt from those before."""
        return self.last - max(_UPDATE_S, _UPDATES * self._update_s)

    @property
    def over(self) -> bool:
        """Whether no further mask may be encoded."""
        return time.monotonic() >= self.last

    def updated(self, seconds: float) -> None:
        """An update took ``seconds`` to make and encode."""
        self._update_s = max(self._update_s, seconds)

    def decoded(self, seconds: float) -> None:
        """A chunk took ``seconds``, from when it was begun."""
        self._chunk_s = seconds

    def allows_chunk(self) -> bool:
        """Whether a chunk that is begun now can be done in time, going by the last one."""
        return time.monotonic() + self._chunk_s < self.ends

    async def within(self, work: Awaitable[T]) -> T:
        """What ``work`` returns. Raises OutOfTime when it can't be done in time; it is cancelled then."""
        if self.ends == math.inf:
            return await work
        try:
            async with asyncio.timeout(self.ends - time.monotonic()):
                return await work
        except (TimeoutError, DeadlineExceeded) as error:
            raise OutOfTime from error


def _answer_s(whole: float) -> float:
    (least, usual), (of_short, of_long) = _ANSWER_S, _ANSWER_SHARES
    return max(least, min(usual, of_short * whole), of_long * whole)
