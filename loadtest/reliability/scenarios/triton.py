"""The server behind the gateway: killed, half of it killed, hung."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from contextlib import suppress

import psutil

from loadtest.reliability.findings import Story
from loadtest.reliability.process import ChaosError, Gateway
from loadtest.reliability.stage import Scenario, Stage, idle_finding, same, within

_BACK_S = 60.0
_MIX = {"click": 60.0, "box": 40.0}
"""One that needs the decoder alone, and one that needs both."""
_TRITON = {"SAMGATE_ENGINE_NAME": "triton"}
"""Longer than Triton takes to start on a busy machine: so long calls wait for it, deadlines permitting."""
_CALL_TIMEOUT_S = 3.0
_HUNG_S = 12.0


def _server(gateway: Gateway) -> psutil.Process:
    return _child(gateway, "tritonserver", "")


def _decoder(gateway: Gateway) -> psutil.Process:
    return _child(gateway, "triton_python_backend_stub", "/mobilesam_decoder/")


def _child(gateway: Gateway, program: str, argument: str) -> psutil.Process:
    for process in gateway.family():
        with suppress(psutil.NoSuchProcess):
            command = process.cmdline()
            if command and command[0].endswith(program) and any(argument in part for part in command):
                return process
    raise ChaosError(f"the gateway has started no {program}")


async def _killed(stage: Stage, name: str, victim: Callable[[Gateway], psutil.Process]) -> Story:
    async with stage.gateway(settings=_TRITON) as gateway:
        async with stage.load(gateway.target, _MIX) as load:
            await load.calm()
            process = victim(gateway)
            at = load.fault()
            process.kill()
            await load.back(at, _BACK_S, list(_MIX))
            load.outage(at)
            load.over()
            await load.calm()
        findings = [
            within("answers again", load.recovery_s, _BACK_S),
            same("ready again", await gateway.probe("/readyz"), 200),
            await idle_finding(gateway),
            same("ends with status 0", await gateway.stop(), 0),
        ]
    return load.story(name, findings)


async def _hangs(stage: Stage) -> Story:
    settings = {**_TRITON, "SAMGATE_TRITON_CALL_TIMEOUT_S": str(_CALL_TIMEOUT_S)}
    async with stage.gateway(settings=settings) as gateway:
        async with stage.load(gateway.target, _MIX) as load:
            await load.calm()
            frozen = [_server(gateway), *_server(gateway).children(recursive=True)]
            at = load.fault()
            for process in frozen:
                process.send_signal(signal.SIGSTOP)
            await load.go_on(_HUNG_S)
            noticed = await gateway.probe("/readyz")
            alive = await gateway.probe("/healthz")
            for process in frozen:
                with suppress(psutil.NoSuchProcess):
                    process.send_signal(signal.SIGCONT)
            stage.report("it goes on")
            resumed = time.monotonic()
            await load.back(resumed, _BACK_S, list(_MIX))
            load.outage(at)
            load.over()
            await load.calm()
        findings = [
            same(
                f"not ready after {_HUNG_S:g} s of a hang, with a call timeout of {_CALL_TIMEOUT_S:g} s", noticed, 503
            ),
            same("the gateway itself lives on", alive, 200),
            within("answers again", load.recovery_s, _BACK_S),
            await idle_finding(gateway),
            same("ends with status 0", await gateway.stop(), 0),
        ]
    return load.story("triton-hangs", findings)


KILLED = Scenario(
    "triton-killed",
    "SIGKILL of the gateway's Triton",
    "calls wait for it or are told UNAVAILABLE; it is started again; lost: 0",
    lambda stage: _killed(stage, "triton-killed", _server),
)
MODEL_KILLED = Scenario(
    "triton-model-killed",
    "SIGKILL of the process that runs Triton's decoder",
    "the model is loaded again; lost: 0",
    lambda stage: _killed(stage, "triton-model-killed", _decoder),
)
HANGS = Scenario(
    "triton-hangs",
    f"SIGSTOP of Triton and its models for {_HUNG_S:g} s, four times the call timeout",
    "found by the time waited in vain; clear refusals; back after SIGCONT; lost: 0",
    _hangs,
)
