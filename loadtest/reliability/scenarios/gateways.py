"""One of two gateways is hung, killed, or told to stop in the middle of a burst."""

from __future__ import annotations

import asyncio
import signal
import time

from loadtest.reliability.asks import PROMPTS
from loadtest.reliability.findings import Story
from loadtest.reliability.stage import Scenario, Stage, idle_finding, same, within

_HUNG_S = 6.0
_BACK_S = 10.0
_BURST, _BURST_S = 4.0, 4.0
"""Times capacity, and for how long."""
_LEAST_BURST = 20.0
_DRAIN_S = 30.0
_HELD = {"SAMGATE_ENGINE_THREADS": "1", "SAMGATE_DRAIN_S": str(_DRAIN_S)}
"""A core for each of two gateways."""


async def _hangs(stage: Stage) -> Story:
    async with stage.gateway() as gateway:
        async with stage.load(gateway.target) as load:
            await load.calm()
            load.fault()
            gateway.process.send_signal(signal.SIGSTOP)
            await load.go_on(_HUNG_S - 2)
            hung = await gateway.probe(timeout_s=2.0)
            gateway.process.send_signal(signal.SIGCONT)
            stage.report("it goes on")
            at = time.monotonic()
            await load.back(at)
            load.over()
            await load.calm()
        findings = [
            same("the liveness probe gets no answer while it hangs", hung, None),
            within("answers again after SIGCONT", load.recovery_s, _BACK_S),
            same("alive again", await gateway.probe(), 200),
            await idle_finding(gateway),
            same("ends with status 0", await gateway.stop(), 0),
        ]
    return load.story("gateway-hangs", findings)


async def _killed(stage: Stage) -> Story:
    async with stage.gateway("first", _HELD) as first, stage.gateway("second", _HELD) as second:
        async with stage.load(f"{first.target},{second.target}") as load:
            await load.calm()
            at = load.fault()
            first.process.kill()
            await load.back(at)
            load.over()
            await load.calm()
        findings = [
            within("the other one answers", load.recovery_s, _BACK_S),
            await idle_finding(second),
        ]
    return load.story("gateway-killed", findings)


async def _sigterm(stage: Stage) -> Story:
    mix = {**PROMPTS, "everything": 2}
    async with stage.gateway("first", _HELD) as first, stage.gateway("second", _HELD) as second:
        async with stage.load(f"{first.target},{second.target}", mix) as load:
            await load.calm()
            stop = asyncio.Event()
            load.fault()
            burst = asyncio.create_task(load.traffic.send(max(_BURST * load.capacity, _LEAST_BURST), stop))
            await load.go_on(_BURST_S / 2)
            told = time.monotonic()
            first.process.send_signal(signal.SIGTERM)
            await load.go_on(_BURST_S / 2)
            stop.set()
            status = await first.ended(_DRAIN_S + 15)
            drained = time.monotonic() - told if status is not None else None
            await load.back(told)
            await burst
            load.over()
            await load.calm()
        findings = [
            within("ends", drained, _DRAIN_S),
            same("with status 0", status, 0),
            await idle_finding(second),
        ]
    return load.story("sigterm-burst", findings)


HANGS = Scenario(
    "gateway-hangs",
    f"SIGSTOP of a gateway for {_HUNG_S:g} s",
    "the liveness probe fails; calls end at their deadlines or are answered after SIGCONT; lost: 0",
    _hangs,
)
KILLED = Scenario(
    "gateway-killed",
    "SIGKILL of one of two gateways",
    "clients that retry go to the other; lost: 0",
    _killed,
)
SIGTERM_BURST = Scenario(
    "sigterm-burst",
    f"SIGTERM of one of two gateways during a burst of {_BURST:g} times its capacity",
    "calls under way finish, others go to the other gateway; status 0 within the drain; lost: 0",
    _sigterm,
)
