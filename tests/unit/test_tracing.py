"""Spans: off they cost nothing, shared calls are linked, and a collector that is away is nobody's trouble."""

from __future__ import annotations

import asyncio
import builtins
import socket
import time
from typing import Any, cast

import grpc.aio
import pytest

from calls_support import StubContext
from samgate import tracing
from samgate.api.calls import Calls, Context
from samgate.api.metrics import Metrics
from samgate.config import Settings, Tracing, settings_from
from samgate.errors import InvalidArgument, NotInstalled, Unavailable
from samgate.scheduling.core import Scheduler
from samgate.scheduling.device import Batch
from samgate.scheduling.request import Request
from samgate.security.identity import Identities
from samgate.serving.dispatch import Dispatcher
from samgate.tracing.load import load_tracer
from samgate.tracing.otel import OtelTracer
from scheduling_support import point, profile
from tracing_support import Collector, collecting

A, B = "a" * 32, "b" * 32
PARENT = "c" * 16


def parent(trace_id: str, sampled: bool = True) -> Context:
    return cast(Context, StubContext((("traceparent", f"00-{trace_id}-{PARENT}-{int(sampled):02x}"),)))


async def sent(tracer: OtelTracer, collector: Collector) -> dict[str, list[Any]]:
    """What the collector has got by the time the tracer is closed, by name."""
    await tracer.close()
    found: dict[str, list[Any]] = {}
    for span in collector.spans:
        found.setdefault(span.name, []).append(span)
    return found


def ignore(count: int, sent: bool) -> None:
    pass


async def test_requests_that_share_a_call_have_a_span_each_and_know_of_each_other() -> None:
    headers: list[dict[str, str] | None] = []
    open_now = asyncio.Event()

    async def engine(batch: Batch, loads: list[int], deadline: float) -> list[int]:
        headers.append(tracing.current.get().headers())
        await open_now.wait()
        return loads

    device = profile(point("tiny", decode=0.001, max_prompts=8))
    desk = Dispatcher(Scheduler({"cpu": device}, time.monotonic()), engine)
    with collecting() as collector:
        tracer = OtelTracer(collector.endpoint, 0.0, ignore)

        async def ask(context: Context) -> None:
            span = tracer.call("Segment", context, time.monotonic())
            tracing.current.set(span)
            now = time.monotonic()
            async with desk.admitted(Request(now, now + 60, "box", 1, encodes=0)) as ticket:
                await desk.run(ticket, "decode", 1, "key", 0)
            span.end()

        first = asyncio.create_task(ask(parent("f" * 32, sampled=False)))
        await asyncio.sleep(0.01)
        others = [asyncio.create_task(ask(context)) for context in (parent(A), parent(B), cast(Context, StubContext()))]
        await asyncio.sleep(0.05)
        open_now.set()
        await asyncio.gather(first, *others)
        found = await sent(tracer, collector)
    await desk.close()
    assert {name: len(spans) for name, spans in found.items()} == {
        "samgate.v1.Segmentation/Segment": 2, "queue": 2, "decode": 2,
    }  # fmt: skip
    one, two = found["decode"]
    assert {one.trace_id.hex(), two.trace_id.hex()} == {A, B}
    assert [link.span_id for link in one.links] == [two.span_id]
    assert [link.span_id for link in two.links] == [one.span_id]
    told = {item.key: item.value.int_value for item in one.attributes}
    assert told == {"samgate.batch.size": 3, "samgate.batch.requests": 3}
    for span in found["queue"]:
        assert span.end_time_unix_nano - span.start_time_unix_nano > 0.04e9
    # The first call was nobody's who is traced, the second is under a span that is.
    assert headers[0] is not None
    assert headers[1] is not None
    assert not int(headers[0]["traceparent"][-2:], 16) & 1
    assert int(headers[1]["traceparent"][-2:], 16) & 1
    assert headers[1]["traceparent"].split("-")[2] in {one.span_id.hex(), two.span_id.hex()}


async def test_a_call_that_fails_says_with_what_and_nothing_else() -> None:
    with collecting() as collector:
        tracer = OtelTracer(collector.endpoint, 0.0, ignore)
        calls = Calls(Settings(), Metrics(), Identities(Settings()), tracer)

        async def fail() -> None:
            async with calls.answer("Segment", parent(A), None):
                raise Unavailable("the secret of somebody")

        with pytest.raises(grpc.aio.AbortError):
            await fail()
        ((span,),) = (await sent(tracer, collector)).values()
    assert (span.status.message, span.parent_span_id.hex()) == ("UNAVAILABLE", PARENT)
    assert "secret" not in str(span)


@pytest.mark.parametrize("text", ["", "00", "00-zz-yy-01", f"00-{'0' * 32}-{PARENT}-01", "x" * 9000, "00-é-1-01"])
async def test_a_traceparent_that_is_none_begins_a_trace_of_ours(text: str) -> None:
    with collecting() as collector:
        tracer = OtelTracer(collector.endpoint, 1.0, ignore)
        span = tracer.call("Segment", cast(Context, StubContext((("traceparent", text),))), time.monotonic())
        span.end()
        ((got,),) = (await sent(tracer, collector)).values()
    assert got.parent_span_id == b""
    assert got.trace_id.hex() == span.trace_id != "0" * 32


async def test_a_collector_that_is_away_is_told_of_once_and_keeps_nobody(caplog: pytest.LogCaptureFixture) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        counted: list[tuple[int, bool]] = []
        endpoint = f"http://127.0.0.1:{nobody.getsockname()[1]}"
        tracer = OtelTracer(endpoint, 1.0, lambda count, sent: counted.append((count, sent)))
        for _ in range(3):
            tracer.call("Segment", cast(Context, StubContext()), time.monotonic()).end()
        started = time.monotonic()
        await tracer.close()
        assert time.monotonic() - started < 5
        until = time.monotonic() + 10
        while not counted and time.monotonic() < until:
            await asyncio.sleep(0.05)
    assert counted == [(3, False)]
    assert [record.getMessage() for record in caplog.records] == [
        "traces can't be sent: they are dropped until they can"
    ]


def test_without_an_endpoint_nothing_is_loaded_and_spans_are_nothing() -> None:
    tracer = load_tracer(Tracing(), ignore)
    span = tracer.call("Segment", None, 0.0)
    assert span is tracing.NOTHING is span.child("queue")
    assert span.headers() is None
    with tracing.stage("imaging") as inner:
        assert inner is tracing.NOTHING


def test_settings_are_checked() -> None:
    good = settings_from({"SAMGATE_TRACING_ENDPOINT": "http://collector:4317", "SAMGATE_TRACING_SAMPLE": "0.5"})
    assert good.tracing == Tracing("http://collector:4317", 0.5)
    for name, value in (
        ("SAMPLE", "1.5"), ("SAMPLE", "nan"), ("ENDPOINT", "collector:4317"), ("ENDPOINT", "http://collector"),
        ("ENDPOINT", "http://collector:99999"), ("ENDPOINT", "ftp://collector:1"),
    ):  # fmt: skip
        with pytest.raises(InvalidArgument, match=f"tracing.{name.lower()}"):
            settings_from({f"SAMGATE_TRACING_{name}": value})


def test_packages_that_are_missing_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *rest: Any, **more: Any) -> Any:
        if name == "samgate.tracing.otel":
            raise ImportError("none", name="opentelemetry")
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(NotInstalled, match=r"needs opentelemetry.*pip install 'samgate\[tracing\]'"):
        load_tracer(Tracing("http://collector:4317"), ignore)
