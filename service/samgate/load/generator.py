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
from samgate.load.wire import CHANNEL_OPTIONS, CLIENT_HEADER, answered, failed, timeout_s
from samgate.simulation.arrival import Arrival
from samgate.simulation.outcome import End, Outcome, Run
from samgate.simulation.workload import Workload, arrivals

_CHANNELS = 4
_PROBE_EVERY_S = 0.1


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
        return grpc.aio.insecure_channel(target, options=CHANNEL_OPTIONS)
    return grpc.aio.secure_channel(target, credentials, options=CHANNEL_OPTIONS)


async def _ask(
    stub: Any, made: Requests, arrival: Arrival, start: float, measured: Measured, metadata: channel.Metadata
) -> Outcome:
    sent = time.perf_counter()
    options = {"timeout": timeout_s(arrival, sent - start), "metadata": ((CLIENT_HEADER, arrival.client), *metadata)}
    try:
        if arrival.everything:
            info = await _everything(stub.SegmentEverything(made.everything(arrival), **options))
        else:
            info = (await stub.Segment(made.segment(arrival), **options)).info
    except grpc.aio.AioRpcError as error:
        now = time.perf_counter()
        outcome = failed(arrival, error, now - start)
        if outcome.end is End.REFUSED:
            measured.refusals_s.append(now - sent)
        return outcome
    return answered(arrival, info, time.perf_counter() - start)


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
