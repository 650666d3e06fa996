"""Clients that are slow, silent or noisy on purpose, beside good ones."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from loadtest.reliability.findings import Finding, Story
from loadtest.reliability.http2 import (
    DATA,
    END_HEADERS,
    END_STREAM,
    HEADERS,
    INITIAL_WINDOW_SIZE,
    PING,
    Wire,
    frame,
    grpc_headers,
    message,
)
from loadtest.reliability.pictures import pictures
from loadtest.reliability.process import Gateway
from loadtest.reliability.stage import Scenario, Stage, idle_finding, same
from samgate.api.v1 import segmentation_pb2 as pb

_RECEIVE_S = _SEND_S = 4.0
_CONNECTIONS = 200
_SETTINGS = {
    "SAMGATE_LIMITS_RECEIVE_S": f"{_RECEIVE_S:g}",
    "SAMGATE_LIMITS_SEND_S": f"{_SEND_S:g}",
    "SAMGATE_LIMITS_MAX_CONNECTIONS": str(_CONNECTIONS),
}
_PATIENCE_S = 25.0
"""How long a slow client waits to be ended."""
_TRICKLES, _STREAMS, _DEAF, _IDLE, _PINGERS = 24, 4, 8, 300, 8
_PINGS, _PING_EVERY_S = 50, 0.01
_SEGMENT, _EVERYTHING = "/samgate.v1.Segmentation/Segment", "/samgate.v1.Segmentation/SegmentEverything"


@dataclass(slots=True)
class Abuse:
    """How many streams or connections a kind of abuse had, how many the server ended, and after how long."""

    begun: int = 0
    ended: int = 0
    after_s: list[float] = field(default_factory=list)

    def finding(self, claim: str) -> Finding:
        """That the server ended all of them."""
        last = f", the last after {max(self.after_s):.1f} s" if self.after_s else ""
        return Finding(claim, f"{self.ended} of {self.begun}{last}", held=self.ended == self.begun > 0)


async def _trickle(target: str, abuse: Abuse) -> None:
    """Calls whose requests arrive a byte at a time."""
    wire = await Wire.connect(target)
    streams = [2 * number + 1 for number in range(_STREAMS)]
    abuse.begun += len(streams)
    begin = message(b"", claimed=2**20)
    for stream in streams:
        wire.write(frame(HEADERS, END_HEADERS, stream, grpc_headers(_SEGMENT)) + frame(DATA, 0, stream, begin))

    def feed() -> None:
        for stream in set(streams) - wire.ended:
            wire.write(frame(DATA, 0, stream, b"x"))

    await _until_ended(wire, streams, abuse, feed)


async def _deaf(target: str) -> Wire:
    """A SegmentEverything call whose answer is never taken. Nothing of its end can arrive either: whether the server
    has given it up, it says itself."""
    wire = await Wire.connect(target, {INITIAL_WINDOW_SIZE: 0})
    image = pb.Image(encoded=pictures(1, 0)[0].jpeg)
    request = pb.SegmentEverythingRequest(image=image, grid=pb.GridParameters(points_per_side=4))
    wire.write(frame(HEADERS, END_HEADERS, 1, grpc_headers(_EVERYTHING)))
    data = message(request.SerializeToString())
    for start in range(0, len(data), 2**14):
        last = END_STREAM if start + 2**14 >= len(data) else 0
        wire.write(frame(DATA, last, 1, data[start : start + 2**14]))
    return wire


async def _given_up(gateway: Gateway) -> float:
    """How many SegmentEverything calls have ended."""
    return (await gateway.scrape()).total("samgate_requests_total", rpc="SegmentEverything") or 0.0


async def _ping(target: str, abuse: Abuse) -> None:
    """Pings without pause."""
    wire = await Wire.connect(target)
    abuse.begun += 1
    started = time.monotonic()
    while not wire.closed.is_set() and time.monotonic() < started + _PATIENCE_S:
        wire.write(frame(PING, payload=bytes(8)) * _PINGS)
        await asyncio.sleep(_PING_EVERY_S)
    if wire.closed.is_set():
        abuse.ended += 1
        abuse.after_s.append(time.monotonic() - started)
    await wire.close()


async def _until_ended(wire: Wire, streams: list[int], abuse: Abuse, feed: Callable[[], None]) -> None:
    started = time.monotonic()
    counted: set[int] = set()
    while len(counted) < len(streams) and time.monotonic() < started + _PATIENCE_S:
        feed()
        await asyncio.sleep(0.2)
        gone = set(streams) if wire.closed.is_set() else set(streams) & wire.ended
        abuse.after_s += [time.monotonic() - started] * len(gone - counted)
        counted |= gone
    abuse.ended += len(counted)
    await wire.close()


async def _idle(target: str) -> list[Wire]:
    """Connections that say nothing; the server closes those beyond its limit."""
    wires = [await Wire.connect(target) for _ in range(_IDLE)]
    await asyncio.sleep(1.0)
    return wires


async def _all(abuser: Callable[[str, Abuse], Awaitable[None]], target: str, number: int) -> Abuse:
    abuse = Abuse()
    await asyncio.gather(*(abuser(target, abuse) for _ in range(number)))
    return abuse


async def _run(stage: Stage) -> Story:
    async with stage.gateway(settings=_SETTINGS) as gateway:
        async with stage.load(gateway.target) as load:
            await load.calm()
            load.fault()
            stage.report(f"{_TRICKLES * _STREAMS} trickling, {_DEAF} deaf, {_PINGERS} pinging")
            deaf = await asyncio.gather(*(_deaf(gateway.target) for _ in range(_DEAF)))
            trickled, pinged = await asyncio.gather(
                _all(_trickle, gateway.target, _TRICKLES),
                _all(_ping, gateway.target, _PINGERS),
            )
            until = time.monotonic() + _PATIENCE_S
            while (given_up := await _given_up(gateway)) < _DEAF and time.monotonic() < until:
                await load.go_on(0.5)
            stage.report(f"{_IDLE} idle connections")
            wires = await _idle(gateway.target)
            open_ones = sum(not wire.closed.is_set() for wire in wires)
            await load.go_on(2.0)
            alive = await gateway.probe()
            await asyncio.gather(*(wire.close() for wire in [*wires, *deaf]))
            load.over()
            await load.calm()
        findings = [
            load.goodput_held(),
            trickled.finding(f"requests that trickle in are ended (receive_s {_RECEIVE_S:g})"),
            same(f"answers that nobody takes are given up (send_s {_SEND_S:g}), of {_DEAF}", given_up, _DEAF),
            pinged.finding("connections that flood with pings are closed"),
            Finding(
                f"of {_IDLE} idle connections at most {_CONNECTIONS} are kept", f"{open_ones} open",
                held=0 < open_ones <= _CONNECTIONS,
            ),
            same("alive meanwhile", alive, 200),
            await idle_finding(gateway),
            same("ends with status 0", await gateway.stop(), 0),
        ]  # fmt: skip
    return load.story("slow-clients", findings)


SLOW = Scenario(
    "slow-clients",
    "requests a byte at a time, answers never taken, idle connections, floods of pings",
    "good clients keep their goodput; the others are ended by limits; lost: 0",
    _run,
)
