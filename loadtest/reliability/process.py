"""``samgate serve`` as a process of its own: started, asked, ended."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from loadtest.reliability.metrics import Scrape, parse

_READY = re.compile(r"^samgate ready: .* on (?P<target>\S+), metrics on (?P<http>[^\s,]+)/metrics\b", re.MULTILINE)
_READY_S = 600.0
"""A first start exports and compiles the graphs."""
_HTTP_S = 5.0
_TAIL = 1500
_FREE_PORTS = {"SAMGATE_HOST": "127.0.0.1", "SAMGATE_PORT": "0", "SAMGATE_HTTP_PORT": "0", "SAMGATE_ADMIN_PORT": "0"}


class ChaosError(Exception):
    """The run itself can't go on: a server doesn't start, a tool is missing; the message says what to do."""


@dataclass(slots=True)
class Gateway:
    """A running gateway: its gRPC ``target``, the base URL ``http`` of its side door, its ``log``."""

    process: subprocess.Popen[bytes]
    target: str
    http: str
    log: Path

    @property
    def pid(self) -> int:
        """Of the gateway itself; its Triton, if it has one, is a child."""
        return self.process.pid

    def family(self) -> list[psutil.Process]:
        """The gateway and the processes that it has started."""
        root = psutil.Process(self.pid)
        return [root, *root.children(recursive=True)]

    async def probe(self, path: str = "/healthz", timeout_s: float = _HTTP_S) -> int | None:
        """The HTTP status of a probe; None when there is no answer."""

        def ask() -> int | None:
            try:
                with urllib.request.urlopen(self.http + path, timeout=timeout_s) as answer:
                    return int(answer.status)
            except urllib.error.HTTPError as error:
                return error.code
            except OSError:
                return None

        return await asyncio.to_thread(ask)

    async def scrape(self) -> Scrape:
        """Its metrics. Raises OSError when it doesn't answer."""

        def read() -> str:
            with urllib.request.urlopen(f"{self.http}/metrics", timeout=_HTTP_S) as answer:
                return str(answer.read().decode())

        return parse(await asyncio.to_thread(read))

    async def ended(self, within_s: float) -> int | None:
        """Its exit status; None when it hasn't ended by then."""
        until = time.monotonic() + within_s
        while self.process.poll() is None and time.monotonic() < until:
            await asyncio.sleep(0.05)
        return self.process.poll()

    async def stop(self, within_s: float = 60.0) -> int | None:
        """Ask it to end; its exit status, or None when it didn't end by then."""
        self.process.send_signal(signal.SIGTERM)
        return await self.ended(within_s)

    def log_tail(self) -> str:
        """The last that it wrote."""
        return self.log.read_text(errors="replace")[-_TAIL:]


@asynccontextmanager
async def serving(
    folder: Path, name: str, settings: Mapping[str, str] | None = None, variants: str = "mobilesam"
) -> AsyncIterator[Gateway]:
    """A gateway on free ports of the loopback interface, ready; gone with all of its children after the block.

    ``settings`` are environment variables. Raises ChaosError when it doesn't start.
    """
    log, said = folder / f"{name}.log", folder / f"{name}.out"
    environment = {**os.environ, "SAMGATE_VARIANTS": variants, "SAMGATE_LOG_LEVEL": "WARNING", **_FREE_PORTS}
    with log.open("wb") as errors, said.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "samgate.cli.main", "serve"],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=errors,
            env={**environment, **(settings or {})},
        )
    try:
        until = time.monotonic() + _READY_S
        while not (ready := _READY.search(said.read_text())):
            if process.poll() is not None or time.monotonic() > until:
                raise ChaosError(f"samgate serve did not become ready:\n{log.read_text(errors='replace')[-_TAIL:]}")
            await asyncio.sleep(0.05)
        yield Gateway(process, ready["target"], ready["http"], log)
    finally:
        await asyncio.to_thread(_kill, process)


def _kill(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is not None:
        return
    try:
        children = psutil.Process(process.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        children = []
    process.send_signal(signal.SIGCONT)
    process.kill()
    process.wait()
    for child in children:
        try:
            child.kill()
        except psutil.NoSuchProcess:
            continue
