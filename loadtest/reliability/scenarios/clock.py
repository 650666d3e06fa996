"""The wall clock jumps under a running server, by hours, forth and back."""

from __future__ import annotations

import asyncio
import ctypes
import datetime as dt
import platform
import re
import shutil
import subprocess
from pathlib import Path

import yaml

from loadtest.reliability.findings import Finding, Story
from loadtest.reliability.process import ChaosError, Gateway
from loadtest.reliability.stage import Scenario, Stage, idle_finding, same
from samgate.client import AsyncClient
from samgate.errors import SamgateError
from samgate.security.tokens import make_token

_JUMPS = {"-3h": "OK", "+26h": "UNAUTHENTICATED", "-400d": "OK", "+400d": "UNAUTHENTICATED", "+0": "OK"}
"""Where the clock goes, and what a token is worth there that ends tomorrow."""
_CALL_S = 10.0
_BETWEEN_S = 4.0
_FETCH_S = 120.0
_LIBRARY = "libfaketimeMT.so.1"


def fake_clock(tools: Path) -> Path:
    """Debian's libfaketime, fetched by apt into ``tools`` if it isn't there; nothing is installed. Raises ChaosError
    where that can't be."""
    folder = tools / "faketime"
    if not (found := list(folder.rglob(_LIBRARY))):
        if platform.system() != "Linux" or not shutil.which("apt-get"):
            raise ChaosError("a clock that jumps needs libfaketime, which is fetched with Debian's apt-get")
        folder.mkdir(parents=True, exist_ok=True)
        for command in (["apt-get", "download", "libfaketime"], ["sh", "-c", "dpkg -x libfaketime_*.deb ."]):
            done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=_FETCH_S)
            if done.returncode:
                raise ChaosError(f"libfaketime can't be fetched: {done.stderr.strip()} (try apt-get update)")
        found = list(folder.rglob(_LIBRARY))
    if not found:
        raise ChaosError(f"the package libfaketime has no {_LIBRARY}")
    ctypes.CDLL(str(found[0]))
    return found[0]


def _clock_of(stamp: Path, library: Path) -> str:
    """What a process of the same clock takes for the date."""
    done = subprocess.run(
        ["date", "+%F %H:%M"], capture_output=True, text=True, check=True, timeout=10, env=_environment(stamp, library)
    )
    return done.stdout.strip()


def _environment(stamp: Path, library: Path) -> dict[str, str]:
    return {
        "LD_PRELOAD": str(library),
        "FAKETIME_TIMESTAMP_FILE": str(stamp),
        "FAKETIME_NO_CACHE": "1",
        # As on a machine whose clock is set: what counts the time since its start goes on.
        "DONT_FAKE_MONOTONIC": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }


def _turn(stamp: Path, to: str) -> None:
    """Atomically: the server reads the file at every look at its clock."""
    new = stamp.with_suffix(".new")
    new.write_text(f"{to}\n")
    new.replace(stamp)


def _clients(folder: Path) -> tuple[Path, str, str]:
    """A file of two clients with a token each, the second of which is refused from tomorrow on."""
    (lasting, kept), (short, kept_short) = make_token(), make_token()
    tomorrow = dt.datetime.now(dt.UTC).date() + dt.timedelta(days=1)
    entries = [
        {"name": "lasting", "tokens": [str(kept)]},
        {"name": "short", "tokens": [str(kept_short)], "expires": tomorrow},
    ]
    path = folder / "clients.yaml"
    path.write_text(yaml.safe_dump({"clients": entries}))
    return path, lasting, short


async def _asked(gateway: Gateway, token: str) -> str:
    """How a call with ``token`` ends."""
    async with AsyncClient(gateway.target, token=token) as client:
        try:
            await client.variants(timeout_s=_CALL_S)
        except SamgateError as error:
            return error.status
    return "OK"


async def _run(stage: Stage) -> Story:
    library = await asyncio.to_thread(fake_clock, stage.tools)
    stamp = stage.folder / "clock"
    _turn(stamp, "+0")
    clients, lasting, short = _clients(stage.folder)
    settings = {
        **_environment(stamp, library),
        "SAMGATE_AUTH_CLIENTS": str(clients),
        "SAMGATE_LOG_LEVEL": "INFO",
        "SAMGATE_LOG_FORMAT": "json",
    }
    async with stage.gateway(settings=settings) as gateway:
        async with stage.load(gateway.target, token=lasting) as load:
            await load.calm()
            hits_before = await _hits(gateway)
            load.fault()
            healthy, dates, tokens = [], [], []
            for jump in _JUMPS:
                _turn(stamp, jump)
                dates.append(_clock_of(stamp, library))
                stage.report(f"the server's clock says {dates[-1]}")
                await load.go_on(_BETWEEN_S)
                tokens.append(await _asked(gateway, short))
                healthy.append((await gateway.probe("/healthz"), await gateway.probe("/readyz")))
            hits = await _hits(gateway)
            load.over()
            await load.calm()
        days = len(set(re.findall(r"\d{4}-\d{2}-\d{2}", gateway.log.read_text(errors="replace"))))
        findings = [
            Finding("the server's clock did jump", f"to {', '.join(dates)}; {days} dates in its log", held=days > 1),
            same("alive and ready after every jump", all(one == (200, 200) for one in healthy), True),
            same("a token that ends tomorrow, after each jump", ", ".join(tokens), ", ".join(_JUMPS.values())),
            Finding(
                "embeddings don't expire by it", f"{hits - hits_before:g} hits of the cache meanwhile",
                held=hits > hits_before,
            ),
            load.goodput_held(),
            await idle_finding(gateway),
            same("ends with status 0", await gateway.stop(), 0),
        ]  # fmt: skip
    return load.story("clock-jumps", findings)


async def _hits(gateway: Gateway) -> float:
    return (await gateway.scrape()).total("samgate_embedding_lookups_total", result="hit") or 0.0


JUMPS = Scenario(
    "clock-jumps",
    f"the server's wall clock jumps by {', '.join(_JUMPS)}",
    "deadlines, caches and probes go by a clock that doesn't jump, tokens by the one that does; lost: 0",
    _run,
)
