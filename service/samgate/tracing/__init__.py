"""Traces: where spans begin and end. What records and sends them is :mod:`samgate.tracing.otel`, loaded if asked for.

Without it everything here costs a fraction of a microsecond a span. The span that work belongs to goes with asyncio's
tasks; what runs for several requests at once carries their spans itself (:func:`samgate.serving.dispatch`).
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from types import TracebackType
from typing import Any, Protocol

Value = str | bool | int | float

_MOST_LINKS = 16
"""From one request's span to others in the same call of an engine."""


class Span(Protocol):
    """A piece of work of one request. Times are on :func:`time.monotonic`'s clock. Attributes never have pixels,
    tokens, or who asks."""

    @property
    def recording(self) -> bool:
        """Whether anybody will see it."""

    @property
    def trace_id(self) -> str:
        """32 hexadecimal digits; empty unless it is recorded."""

    def child(self, name: str, started: float | None = None) -> Span:
        """A part of it, which began at ``started`` (None: now)."""

    def set(self, attributes: Mapping[str, Value]) -> None:
        """Say something of it."""

    def link(self, other: Span) -> None:
        """It has something to do with ``other``."""

    def end(self, error: str = "") -> None:
        """It is over; ``error`` is the gRPC status if it failed."""

    def headers(self) -> dict[str, str] | None:
        """What a call to somebody else takes along so that its spans become children of this one; None for nothing."""


class Tracer(Protocol):
    """Begins traces."""

    def call(self, rpc: str, context: Any, started: float) -> Span:
        """The span of a call that came at ``started`` with gRPC's ``context``, a child of its ``traceparent``."""

    async def close(self) -> None:
        """Send what is there, within seconds."""


class Nothing:
    """A span that isn't recorded, nor are its parts."""

    recording = False
    trace_id = ""

    def child(self, name: str, started: float | None = None) -> Span:  # noqa: ARG002
        return self

    def set(self, attributes: Mapping[str, Value]) -> None:
        pass

    def link(self, other: Span) -> None:
        pass

    def end(self, error: str = "") -> None:
        pass

    def headers(self) -> dict[str, str] | None:
        return None


class NoTracer:
    """Traces nothing."""

    def call(self, rpc: str, context: Any, started: float) -> Span:  # noqa: ARG002
        """See :class:`Tracer`."""
        return NOTHING

    async def close(self) -> None:
        """See :class:`Tracer`."""


NOTHING: Span = Nothing()
current: ContextVar[Span] = ContextVar("samgate_span", default=NOTHING)
"""What the work of this task belongs to."""


class _Stage:
    """A child of the current span, which is current inside the block."""

    __slots__ = ("_attributes", "_name", "_parent", "_span", "_token")

    def __init__(self, parent: Span, name: str, attributes: dict[str, Value]) -> None:
        self._parent, self._name, self._attributes = parent, name, attributes

    def __enter__(self) -> Span:
        self._span = self._parent.child(self._name)
        self._span.set(self._attributes)
        self._token = current.set(self._span)
        return self._span

    def __exit__(self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None) -> None:
        current.reset(self._token)
        self._span.end(kind.__name__ if kind else "")


class _NoStage:
    def __enter__(self) -> Span:
        return NOTHING

    def __exit__(self, *_: object) -> None:
        pass


_NO_STAGE = _NoStage()


def stage(name: str, **attributes: Value) -> _Stage | _NoStage:
    """A context manager: what happens inside is a part, called ``name``, of what the current span is of."""
    parent = current.get()
    return _Stage(parent, name, attributes) if parent.recording else _NO_STAGE


class Shared:
    """A call of an engine that several requests share: a span in each one's trace, linked with each other.

    Args:
        parents: the requests' spans.
        waited: when the work of each began to wait.
        name: of the stage.
        size: images or prompts in the call.
    """

    __slots__ = ("_spans", "lead")

    def __init__(self, parents: Sequence[Span], waited: Sequence[float], name: str, size: int) -> None:
        self._spans: list[Span] = []
        self.lead = parents[0]
        """What calls to other services are children of: the most urgent request's span that is recorded."""
        now = time.monotonic()
        for parent, since in zip(parents, waited, strict=True):
            if parent.recording:
                parent.child("queue", since).end()
                span = parent.child(name, now)
                span.set({"samgate.batch.size": size, "samgate.batch.requests": len(parents)})
                self._spans.append(span)
        if self._spans:
            self.lead = self._spans[0]
        for span in self._spans:
            for other in self._spans[:_MOST_LINKS]:
                if other is not span:
                    span.link(other)

    def end(self, error: str = "") -> None:
        """The call has ended."""
        for span in self._spans:
            span.end(error)
