"""What every call has in common: admission, deadline, errors as status codes, one log line, metrics."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from contextvars import ContextVar
from dataclasses import dataclass

import grpc
import grpc.aio

from samgate import tracing
from samgate.api.metrics import Metrics
from samgate.api.slo import outcome_of
from samgate.config import Settings
from samgate.errors import DeadlineExceeded, Infeasible, Overloaded, SamgateError, SlowClient, Unavailable
from samgate.logs import log
from samgate.scheduling.queue import Priority
from samgate.security.clients import Client
from samgate.security.identity import Identities, authorise
from samgate.security.quota import Quotas
from samgate.serving.requests import Trace
from samgate.tracing import NOTHING, NoTracer, Span, Tracer, Value

logger = logging.getLogger("samgate.calls")

_MAX_CLIENT = 128
_QUIET_S = 0.5

Context = grpc.aio.ServicerContext[object, object]


@dataclass(slots=True)
class Call:
    """One call under way: its deadline on :func:`time.monotonic`'s clock, who asks, the class that all of this client's
    work has at best, the class of this call, its span, and the trace of its answer once known. ``started`` is when its
    request was there, once ``begun``."""

    started: float
    deadline: float
    client: str = ""
    at_best: Priority = Priority.INTERACTIVE
    priority: Priority = Priority.INTERACTIVE
    span: Span = NOTHING
    begun: bool = False
    trace: Trace | None = None

    def begin(self) -> None:
        """The request is there."""
        self.started, self.begun = time.monotonic(), True

    @property
    def trace_id(self) -> str:
        """Of its span, if that is recorded; else empty."""
        return self.span.trace_id

    @property
    def elapsed_s(self) -> float:
        """Seconds since the call arrived."""
        return time.monotonic() - self.started


CURRENT: ContextVar[Call] = ContextVar("call")
"""The call that the running task answers."""


class Calls:
    """Admits calls, counts them, and waits for the last of them when the server drains."""

    def __init__(
        self, settings: Settings, metrics: Metrics, identities: Identities, tracer: Tracer | None = None
    ) -> None:
        self._identities, self._quotas = identities, Quotas()
        self._limit = settings.limits.max_concurrent_calls
        self._max_deadline_s = settings.limits.max_deadline_s
        self._default_deadline_s = settings.default_deadline_s
        self._everything_deadline_s = settings.default_everything_deadline_s
        self._client_header = settings.scheduling.client_header.lower()
        self._metrics = metrics
        self._tracer = tracer or NoTracer()
        self._draining = self._cut_off = False
        self._idle = asyncio.Event()
        self._idle.set()
        self._stirred = 0.0
        self.in_flight = 0

    async def drain(self, timeout_s: float) -> bool:
        """Refuse new calls with UNAVAILABLE and wait for those under way; False when some are left at the end.

        Goes on refusing until no call has come or gone for a moment: gRPC would answer CANCELLED, which nobody
        retries, to one that arrives while the server is taken down, and whoever has an answer may ask again at once.
        """
        self._draining = True
        self._metrics.draining.set(1)
        try:
            async with asyncio.timeout(timeout_s):
                await self._idle.wait()
                while (quiet := time.monotonic() - self._stirred) < _QUIET_S:
                    await asyncio.sleep(_QUIET_S - quiet)
        except TimeoutError:
            self._cut_off = True
            return self.in_flight == 0
        return True

    @asynccontextmanager
    async def answer(self, rpc: str, context: Context, authorization: str | None) -> AsyncIterator[Call]:
        """Everything around one call, :data:`CURRENT` inside. Errors raised inside end it with their status."""
        started = time.monotonic()
        # Asked for now: once the client has cancelled, gRPC frees what this reads, and asking is a segmentation fault.
        peer, remaining, metadata = context.peer(), context.time_remaining(), context.invocation_metadata() or ()
        names = _certificate_names(context.auth_context())
        default_s = self._everything_deadline_s if rpc == "SegmentEverything" else self._default_deadline_s
        wanted_s = default_s if remaining is None else min(meant_s(remaining), self._max_deadline_s)
        call = Call(started, started + wanted_s)
        if rpc == "SegmentEverything":
            call.priority = Priority.BULK
        client: Client | None = None
        code, detail, counts = "OK", None, True
        self._enter()
        try:
            self._admit()
            known = self._identities.who(authorization, names)
            call.client = self._name(known, metadata, peer)
            if known is not None:
                authorise(known, rpc)
                self._quotas.enter(known, started)
                client, call.at_best = known, known.priority
            # Neither is ever taken back: gRPC gives each call a task of its own, which ends with it.
            CURRENT.set(call)
            call.span = self._tracer.call(rpc, context, started)
            if call.span is not NOTHING:
                tracing.current.set(call.span)
            async with asyncio.timeout(wanted_s):
                yield call
        except SlowClient as error:
            code, detail, counts = error.status, str(error), False
            raise asyncio.CancelledError from None
        except asyncio.CancelledError:
            code = "CANCELLED" if call.deadline > time.monotonic() else "DEADLINE_EXCEEDED"
            raise
        except (SamgateError, TimeoutError) as error:
            if isinstance(error, TimeoutError):
                error = DeadlineExceeded(f"the deadline of {wanted_s:.3g} s has passed")
            code, detail = error.status, str(error)
            counts = not isinstance(error, Overloaded) or _is_ours(error)
            self._metrics.observe_refusal(error)
            await refuse(context, error)
        except grpc.aio.AbortError:
            raise
        except Exception:
            code = "INTERNAL"
            logger.exception("unexpected error in %s", rpc)
            await context.abort(grpc.StatusCode.INTERNAL, "unexpected error; see the server's log")
        finally:
            if client is not None:
                self._quotas.leave(client)
            self._leave()
            self._record(rpc, code, detail, call, peer, counts)

    def _name(self, known: Client | None, metadata: Iterable[tuple[str, str | bytes]], peer: str) -> str:
        """Who asks, for fair shares and logs: what a trusted proxy says, who is known, or the address without port."""
        if self._client_header and (known is None or known.proxy):
            for name, value in metadata:
                if name == self._client_header:
                    return str(value)[:_MAX_CLIENT]
        if known is not None:
            return known.name
        return peer.rpartition(":")[0] if peer.startswith(("ipv4:", "ipv6:")) else peer

    def _enter(self) -> None:
        self._stirred = time.monotonic()
        self.in_flight += 1
        self._idle.clear()
        self._metrics.in_flight.inc()

    def _leave(self) -> None:
        self._stirred = time.monotonic()
        self.in_flight -= 1
        self._metrics.in_flight.dec()
        if self.in_flight == 0:
            self._idle.set()

    def _admit(self) -> None:
        if self._draining:
            raise Unavailable("the server is shutting down: retry, best on another server", reason="draining")
        if self.in_flight > self._limit:
            limit = f"{self._limit} calls are under way, which is the limit"
            raise Overloaded(limit, retry_after_s=1.0, reason="limit")

    def _record(self, rpc: str, code: str, detail: str | None, call: Call, peer: str, counts: bool) -> None:
        on_time = time.monotonic() <= call.deadline
        # A request that wasn't there by then was late itself.
        counts = counts and (call.begun or code != "DEADLINE_EXCEEDED")
        outcome = outcome_of(code, on_time=on_time, counts=counts, cut_off=self._cut_off)
        self._metrics.observe_call(rpc, code, call, outcome)
        fields: dict[str, object] = {}
        if call.trace is not None:
            trace = call.trace
            fields = {
                "variant": trace.variant,
                "precision": trace.precision,
                "size": f"{trace.size[0]}x{trace.size[1]}",
                "prompts": trace.prompts or None,
                "masks": trace.masks or None,
                "strategy": trace.strategy or None,
                "complete": trace.complete if trace.strategy else None,
                "cached": trace.cached,
                "reason": trace.reason.value,
                "predicted_ms": round(trace.predicted_s * 1e3, 1),
                **{f"{stage}_ms": round(seconds * 1e3, 1) for stage, seconds in trace.stages_s.items()},
            }
        log(
            logger,
            logging.INFO,
            rpc,
            code=code,
            total_ms=round(call.elapsed_s * 1e3, 1),
            **fields,
            client=call.client if self._identities.asked else None,
            peer=peer,
            error=detail,
            trace_id=call.trace_id or None,
        )
        if call.span.recording:
            _describe(call.span, code, call)
            call.span.end("" if code == "OK" else code)


def meant_s(remaining_s: float) -> float:
    """The least that the client may have asked for, of what arrived: gRPC's C core rounds a timeout up to three digits,
    1.041 s to 1.05, and the time when it ends to milliseconds."""
    if remaining_s <= 2e-3:
        return remaining_s
    return remaining_s - 10.0 ** (math.floor(math.log10(remaining_s)) - 2) - 1e-3


def _is_ours(error: Overloaded) -> bool:
    """Whether it is the server that is too busy, rather than the client that asks for more than it may or than fits."""
    return error.retry_after_s is not None and error.reason != "quota"


def _describe(span: Span, code: str, call: Call) -> None:
    """What is said of a call in its span: nothing of the image, nor of who asks."""
    told: dict[str, Value] = {
        "rpc.grpc.status_code": grpc.StatusCode[code].value[0],
        "samgate.priority": call.priority.name.lower(),
        "samgate.deadline_ms": round((call.deadline - call.started) * 1e3, 1),
    }
    if (trace := call.trace) is not None:
        told |= {
            "samgate.variant": trace.variant,
            "samgate.precision": trace.precision,
            "samgate.engine": trace.engine,
            "samgate.cached": trace.cached,
            "samgate.prompts": trace.prompts,
            "samgate.masks": trace.masks,
            "samgate.reason": trace.reason.value,
            "samgate.predicted_ms": round(trace.predicted_s * 1e3, 1),
        }
    span.set(told)


async def refuse(context: Context, error: SamgateError) -> None:
    """End the call with the status, the words and the trailers of ``error``."""
    trailers: list[tuple[str, str]] = []
    if isinstance(error, Overloaded | Infeasible) and error.reason:
        trailers.append(("refusal", error.reason))
    if isinstance(error, Overloaded) and error.retry_after_s is not None:
        trailers.append(("retry-after-ms", str(math.ceil(error.retry_after_s * 1e3))))
    if isinstance(error, Infeasible) and error.smallest_deadline_s is not None:
        trailers.append(("smallest-deadline-ms", str(math.ceil(error.smallest_deadline_s * 1e3))))
    try:
        await context.abort(grpc.StatusCode[error.status], str(error), tuple(trailers))
    except grpc.aio.InternalError as failure:
        # A message that the client hasn't taken is still under way: no status can follow it, so the call is dropped.
        raise asyncio.CancelledError from failure


def _certificate_names(context: Mapping[str, Iterable[bytes]]) -> list[str]:
    """Names in the client's certificate, if it has presented one: the alternative ones before the common one."""
    keys = ("x509_subject_alternative_name", "x509_common_name")
    return [bytes(name).decode(errors="replace") for key in keys for name in context.get(key, ())]
