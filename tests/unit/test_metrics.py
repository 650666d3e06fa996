"""What is counted of calls, and that labels are bounded."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import cast

import grpc
import grpc.aio
import pytest

from calls_support import StubContext
from samgate.api.calls import Call, Calls, Context
from samgate.api.metrics import Metrics
from samgate.api.slo import Outcome
from samgate.config import Settings
from samgate.errors import DeadlineExceeded, InvalidArgument, Overloaded, PermissionDenied, SlowClient, Unavailable
from samgate.scheduling.core import Scheduler
from samgate.scheduling.queue import Priority
from samgate.scheduling.request import Ticket
from samgate.scheduling.snapshot import snapshot
from samgate.security.identity import Identities
from samgate.serving.requests import Trace
from scheduling_support import PAIR, request


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(name, labels)


def trace(**fields: object) -> Trace:
    return Trace("mobilesam", "bf16", "openvino", predicted_s=0.1, stages_s={"queue": 0.01, "decode": 0.02}, **fields)  # type: ignore[arg-type]


async def ended(metrics: Metrics, error: BaseException | None, rpc: str = "Segment") -> None:
    calls = Calls(Settings(), metrics, Identities(Settings()))
    with suppress(grpc.aio.AbortError, asyncio.CancelledError):
        async with calls.answer(rpc, cast(Context, StubContext()), None):
            if error is not None:
                raise error


async def test_a_call_counts_by_status_outcome_class_and_reason() -> None:
    metrics = Metrics()
    await ended(metrics, Overloaded("busy", retry_after_s=1.0, reason="busy"))
    await ended(metrics, Overloaded("an answer too large"))
    await ended(metrics, InvalidArgument("image", "is empty"))
    await ended(metrics, Unavailable("out"), "SegmentEverything")
    await ended(metrics, asyncio.CancelledError())
    slo = "samgate_slo_total"
    assert value(metrics, slo, rpc="Segment", priority="interactive", outcome="refused") == 1
    assert value(metrics, slo, rpc="SegmentEverything", priority="bulk", outcome="failed") == 1
    counted = [s.value for m in metrics.registry.collect() for s in m.samples if s.name == slo]
    assert sum(counted) == 2
    assert value(metrics, "samgate_requests_total", rpc="Segment", code="RESOURCE_EXHAUSTED") == 2
    assert value(metrics, "samgate_refusals_total", reason="busy") == 1
    none = {"rpc": "Segment", "variant": "none", "priority": "interactive"}
    assert value(metrics, "samgate_request_seconds_count", **none) == 4


async def test_what_is_the_client_s_doing_does_not_count() -> None:
    metrics = Metrics()
    await ended(metrics, Overloaded("its quota", 1.0, "quota"))
    await ended(metrics, SlowClient("took nothing"))
    await ended(metrics, DeadlineExceeded("has not arrived"))  # its request was never there
    await ended(metrics, PermissionDenied("not this", "forbidden"))
    counted = [s.value for m in metrics.registry.collect() for s in m.samples if s.name == "samgate_slo_total"]
    assert sum(counted) == 0
    assert value(metrics, "samgate_refusals_total", reason="quota") == 1
    assert value(metrics, "samgate_authentication_failures_total", reason="forbidden") == 1


async def test_calls_that_the_end_of_a_drain_cancels_failed() -> None:
    metrics = Metrics()
    calls = Calls(Settings(), metrics, Identities(Settings()))

    async def hang() -> None:
        async with calls.answer("Segment", cast(Context, StubContext()), None):
            await asyncio.sleep(60)

    task = asyncio.create_task(hang())
    await asyncio.sleep(0)
    assert not await calls.drain(0.01)
    task.cancel()
    await asyncio.wait([task])
    assert value(metrics, "samgate_slo_total", rpc="Segment", priority="interactive", outcome="failed") == 1
    assert value(metrics, "samgate_draining") == 1


def test_answers_count_by_variant_point_and_prediction() -> None:
    metrics = Metrics()
    call = Call(0.0, 1.0, "somebody", priority=Priority.BULK, trace=trace(cached=True))
    metrics.observe_call("Embed", "OK", call, Outcome.MET)
    labels = {"rpc": "Embed", "variant": "mobilesam", "priority": "bulk"}
    assert value(metrics, "samgate_request_seconds_count", **labels) == 1
    assert value(metrics, "samgate_stage_seconds_count", stage="queue", variant="mobilesam") == 1
    assert value(metrics, "samgate_prediction_error_seconds_count", point="mobilesam:bf16") == 1
    assert value(metrics, "samgate_embedding_lookups_total", result="hit") == 1
    # Nothing was predicted of how long all of an image takes whoever takes what he can get.
    everything = Call(0.0, 1.0, "somebody", priority=Priority.BULK, trace=trace(strategy="grid"))
    metrics.observe_call("SegmentEverything", "OK", everything, Outcome.MET)
    assert value(metrics, "samgate_prediction_error_seconds_count", point="mobilesam:bf16") == 1


def test_words_that_nobody_foresaw_make_no_new_series() -> None:
    metrics = Metrics()
    for word in ("a", "b"):
        metrics.observe_call(word, "OK", Call(0.0, 1.0, ""), Outcome.MET)
        metrics.observe_refusal(Overloaded(word, 1.0, word))
        metrics.observe_authentication_failure(word)
    assert value(metrics, "samgate_requests_total", rpc="other", code="OK") == 2
    assert value(metrics, "samgate_refusals_total", reason="other") == 2
    assert value(metrics, "samgate_authentication_failures_total", reason="other") == 2


def test_what_is_queued_is_told_in_seconds_of_work() -> None:
    core = Scheduler({"cpu": PAIR}, 0.0)
    assert snapshot(core, 0.0).queued_s == 0
    assert isinstance(core.admit(request(10.0, image="a"), 0.0), Ticket)
    assert isinstance(core.admit(request(10.0, image="b", priority=Priority.BULK), 0.0), Ticket)
    now = snapshot(core, 0.0)
    assert now.queued_s == pytest.approx(0.82, abs=0.01)
    assert now.margins_s == {
        ("slow:f32", True): 0,
        ("slow:f32", False): 0,
        ("fast:f32", True): 0,
        ("fast:f32", False): 0,
    }
    assert now.paces == {"encode": 1.0, "decode": 1.0}
