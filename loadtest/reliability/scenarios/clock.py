"""The wall clock jumps under a running server, by hours, forth and back."""

from __future__ import annotations

import asyncio
import ctypes
import platform
import re
import shutil
import subprocess
from pathlib import Path

from loadtest.reliability.findings import Finding, Story
from loadtest.reliability.process import ChaosError, Gateway
from loadtest.reliability.stage import Scenario, Stage, idle_finding, same

_RATE = 4.0
_JUMPS = ("+3h", "-3h", "+26h", "-400d", "+0")
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


async def _run(stage: Stage) -> Story:
    library = await asyncio.to_thread(fake_clock, stage.tools)
    stamp = stage.folder / "clock"
    _turn(stamp, "+0")
    settings = {**_environment(stamp, library), "SAMGATE_LOG_LEVEL": "INFO", "SAMGATE_LOG_FORMAT": "json"}
    async with stage.gateway(settings=settings) as gateway:
        async with stage.load(gateway.target, _RATE) as load:
            await load.calm()
            hits_before = await _hits(gateway)
            load.fault()
            healthy, dates = [], []
            for jump in _JUMPS:
                _turn(stamp, jump)
                dates.append(_clock_of(stamp, library))
                stage.report(f"the server's clock says {dates[-1]}")
                await load.calm(_BETWEEN_S)
                healthy.append((await gateway.probe("/healthz"), await gateway.probe("/readyz")))
            hits = await _hits(gateway)
            load.over()
            await load.calm()
        days = len(set(re.findall(r"\d{4}-\d{2}-\d{2}", gateway.log.read_text(errors="replace"))))
        findings = [
            Finding("the server's clock did jump", f"to {', '.join(dates)}; {days} dates in its log", held=days > 1),
            same("alive and ready after every jump", all(one == (200, 200) for one in healthy), True),
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
    "deadlines, caches and probes go by a clock that doesn't jump; lost: 0",
    _run,
)
