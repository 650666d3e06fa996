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

from samgate.api.metrics import Metrics
from samgate.config import Settings
from samgate.errors import DeadlineExceeded, Infeasible, Overloaded, SamgateError, SlowClient, Unavailable
from samgate.logs import log
from samgate.scheduling.queue import Priority
from samgate.security.clients import Client
from samgate.security.identity import Identities, authorise
from samgate.security.quota import Quotas
from samgate.serving.requests import Trace

logger = logging.getLogger("samgate.calls")

_MAX_CLIENT = 128
_QUIET_S = 0.5

Context = grpc.aio.ServicerContext[object, object]


@dataclass(slots=True)
class Call:
    """One call under way: its deadline on :func:`time.monotonic`'s clock, who asks, the class that all of this client's
    work has at best, and the trace of its answer once known. ``started`` is when its request was there."""

    started: float
    deadline: float
    client: str = ""
    priority: Priority = Priority.INTERACTIVE
    trace: Trace | None = None

    def begin(self) -> None:
        """The request is there."""
        self.started = time.monotonic()

    @property
    def elapsed_s(self) -> float:
        """Seconds since the call arrived."""
        return time.monotonic() - self.started


CURRENT: ContextVar[Call] = ContextVar("call")
"""The call that the running task answers."""


class Calls:
    """Admits calls, counts them, and waits for the last of them when the server drains."""

    def __init__(self, settings: Settings, metrics: Metrics, identities: Identities) -> None:
        self._identities, self._quotas = identities, Quotas()
        self._limit = settings.limits.max_concurrent_calls
        self._max_deadline_s = settings.limits.max_deadline_s
        self._default_deadline_s = settings.default_deadline_s
        self._everything_deadline_s = settings.default_everything_deadline_s
        self._client_header = settings.scheduling.client_header.lower()
        self._metrics = metrics
        self._draining = False
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
        try:
            async with asyncio.timeout(timeout_s):
                await self._idle.wait()
                while (quiet := time.monotonic() - self._stirred) < _QUIET_S:
                    await asyncio.sleep(_QUIET_S - quiet)
        except TimeoutError:
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
        client: Client | None = None
        code, detail = "OK", None
        self._enter()
        try:
            self._admit()
            known = self._identities.who(authorization, names)
            call.client = self._name(known, metadata, peer)
            if known is not None:
                authorise(known, rpc)
                self._quotas.enter(known, started)
                client, call.priority = known, known.priority
            CURRENT.set(call)
            async with asyncio.timeout(wanted_s):
                yield call
        except SlowClient as error:
            code, detail = error.status, str(error)
            raise asyncio.CancelledError from None
        except asyncio.CancelledError:
            code = "CANCELLED" if call.deadline > time.monotonic() else "DEADLINE_EXCEEDED"
            raise
        except (SamgateError, TimeoutError) as error:
            if isinstance(error, TimeoutError):
                error = DeadlineExceeded(f"the deadline of {wanted_s:.3g} s has passed")
            code, detail = error.status, str(error)
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
            self._record(rpc, code, detail, call, peer)

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
            raise Unavailable("the server is shutting down: retry, best on another server")
        if self.in_flight > self._limit:
            raise Overloaded(f"{self._limit} calls are under way, which is the limit", retry_after_s=1.0)

    def _record(self, rpc: str, code: str, detail: str | None, call: Call, peer: str) -> None:
        self._metrics.requests.labels(rpc, code).inc()
        self._metrics.latency.labels(rpc).observe(call.elapsed_s)
        fields: dict[str, object] = {}
        if call.trace is not None:
            trace = call.trace
            self._metrics.observe_trace(trace)
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
        )


def meant_s(remaining_s: float) -> float:
    """The least that the client may have asked for, of what arrived: gRPC's C core rounds a timeout up to three digits,
    1.041 s to 1.05, and the time when it ends to milliseconds."""
    if remaining_s <= 2e-3:
        return remaining_s
    return remaining_s - 10.0 ** (math.floor(math.log10(remaining_s)) - 2) - 1e-3


async def refuse(context: Context, error: SamgateError) -> None:
    """End the call with the status, the words and the trailers of ``error``."""
    trailers: list[tuple[str, str]] = []
    if isinstance(error, Overloaded | Infeasible) and error.reason:
        trailers.append(("refusal", error.reason))
    if isinstance(error, Overloaded) and error.retry_after_s is not None:
        trailers.append(("retry-after-ms", str(math.ceil(error.retry_after_s * 1e3))))
    if isinstance(error, Infeasible) and error.smallest_deadline_s is not None:
        trailers.append(("smallest-deadline-ms", str(math.ceil(error.smallest_deadline_s * 1e3))))
    await context.abort(grpc.StatusCode[error.status], str(error), tuple(trailers))


def _certificate_names(context: Mapping[str, Iterable[bytes]]) -> list[str]:
    """Names in the client's certificate, if it has presented one: the alternative ones before the common one."""
    keys = ("x509_subject_alternative_name", "x509_common_name")
    return [bytes(name).decode(errors="replace") for key in keys for name in context.get(key, ())]
