"""The open loop: every request goes at its time, whatever became of those before it."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import grpc
import grpc.aio

from samgate.api.v1 import segmentation_pb2 as pb
from samgate.api.v1.segmentation_pb2_grpc import SegmentationStub
from samgate.client import channel
from samgate.load.requests import Photo, Requests
from samgate.simulation.arrival import Arrival
from samgate.simulation.outcome import End, Outcome, Run
from samgate.simulation.workload import Workload, arrivals

CLIENT_HEADER = "samgate-client"
"""Metadata that says which of the workload's clients asks; for servers whose ``scheduling.client_header`` it is."""

_CHANNELS = 4
_PROBE_EVERY_S = 0.1
_OPTIONS = (
    ("grpc.max_send_message_length", 64 * 2**20),
    ("grpc.max_receive_message_length", 64 * 2**20),
    ("grpc.use_local_subchannel_pool", 1),
)
_STATUS = {
    grpc.StatusCode.RESOURCE_EXHAUSTED: End.REFUSED,
    grpc.StatusCode.FAILED_PRECONDITION: End.REFUSED,
    grpc.StatusCode.DEADLINE_EXCEEDED: End.DROPPED,
}


@dataclass(slots=True)
class Measured:
    """What came of a workload, in seconds: ``refusals_s`` from sending to a refusal; ``probes_s`` the same for requests
    that are refused for the name of their variant, before any scheduling; ``lag_s`` how late the generator sent."""

    run: Run
    refusals_s: list[float] = field(default_factory=list)
    probes_s: list[float] = field(default_factory=list)
    lag_s: list[float] = field(default_factory=list)


async def send(
    target: str,
    workload: Workload,
    photos: Sequence[Photo],
    *,
    seed: int = 0,
    rate: float | None = None,
    duration_s: float | None = None,
    salt: bytes = b"",
    policy: str = "",
    credentials: grpc.ChannelCredentials | None = None,
    token: str | None = None,
    progress: Callable[[float], None] = lambda share: None,
) -> Measured:
    """Send ``workload`` to the gateway at ``target``: latency counts from the time a request was scheduled for, and the
    deadline, too. ``salt`` makes images new to a server that has seen the same workload."""
    end_s = workload.duration_s if duration_s is None else duration_s
    run = Run(policy, workload.rate if rate is None else rate, workload.warmup_s, end_s)
    measured = Measured(run)
    made = Requests(photos, seed, salt)
    metadata = channel.metadata_of(target, token, credentials)
    channels = [_channel(target, credentials) for _ in range(_CHANNELS)]
    stubs: list[Any] = [SegmentationStub(opened) for opened in channels]
    planned = list(arrivals(workload, seed, rate, end_s))
    calls: set[asyncio.Task[None]] = set()
    # Pauses of the collector would count as the server's.
    gc.collect()
    gc.freeze()
    start = time.perf_counter() + 0.2

    async def one(number: int, arrival: Arrival) -> None:
        lag = time.perf_counter() - start - arrival.at_s
        measured.lag_s.append(lag)
        outcome = await _ask(stubs[number % _CHANNELS], made, arrival, start, measured, metadata)
        run.outcomes.append(outcome)

    probing = asyncio.create_task(_probe(stubs[0], made, measured, metadata))
    try:
        for number, arrival in enumerate(planned):
            wait = start + arrival.at_s - time.perf_counter()
            if wait > 0:
                await asyncio.sleep(wait)
            call = asyncio.create_task(one(number, arrival))
            calls.add(call)
            call.add_done_callback(calls.discard)
            progress(arrival.at_s / end_s)
        while calls:
            await asyncio.wait(calls)
    finally:
        probing.cancel()
        for one_of_them in channels:
            await one_of_them.close()
    run.outcomes.sort(key=lambda outcome: outcome.arrival.at_s)
    return measured


def _channel(target: str, credentials: grpc.ChannelCredentials | None) -> grpc.aio.Channel:
    if credentials is None:
        return grpc.aio.insecure_channel(target, options=_OPTIONS)
    return grpc.aio.secure_channel(target, credentials, options=_OPTIONS)


async def _ask(
    stub: Any, made: Requests, arrival: Arrival, start: float, measured: Measured, metadata: channel.Metadata
) -> Outcome:
    due = start + arrival.at_s + arrival.deadline_s
    sent = time.perf_counter()
    options = {"timeout": max(due - sent, 1e-3), "metadata": ((CLIENT_HEADER, arrival.client), *metadata)}
    try:
        if arrival.everything:
            info = await _everything(stub.SegmentEverything(made.everything(arrival), **options))
        else:
            info = (await stub.Segment(made.segment(arrival), **options)).info
    except grpc.aio.AioRpcError as error:
        now = time.perf_counter()
        end = _STATUS.get(error.code(), End.LOST)
        if end is End.REFUSED:
            measured.refusals_s.append(now - sent)
        return Outcome(arrival, end, now - start, reason=_reason(error))
    now = time.perf_counter()
    return Outcome(
        arrival,
        End.ON_TIME if now <= due else End.LATE,
        now - start,
        point=f"{info.variant}:{info.precision}",
        accuracy=info.decision.accuracy,
        cached=info.embedding_cached,
        decode_s=info.timings.decode_ms / 1e3,
    )


async def _everything(call: Any) -> pb.AnswerInfo:
    info = pb.AnswerInfo()
    async for answer in call:
        if answer.WhichOneof("event") == "summary":
            info = answer.summary.info
    return info


async def _probe(stub: Any, made: Requests, measured: Measured, metadata: channel.Metadata) -> None:
    """Asks for a variant that doesn't exist: the way there and back, with an image, and nothing else."""
    number = 0
    while True:
        await asyncio.sleep(_PROBE_EVERY_S)
        number += 1
        request = made.segment(Arrival(0.0, number, 0.0, "point", 1, 1.0))
        request.variant = "none"
        started = time.perf_counter()
        try:
            await stub.Segment(request, timeout=10.0, metadata=metadata)
        except grpc.aio.AioRpcError:
            measured.probes_s.append(time.perf_counter() - started)


def _reason(error: grpc.aio.AioRpcError) -> str:
    for key, value in error.trailing_metadata() or ():
        if key == "refusal":
            return str(value)
    return error.code().name
