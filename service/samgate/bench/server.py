"""``samgate serve`` as a process of its own."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from samgate.bench.context import Context
from samgate.bench.errors import BenchmarkError
from samgate.bench.worker import tail
from samgate.client import Client

_READY_TIMEOUT_S = 600.0
"""A first start exports and compiles the graphs."""
_STOP_TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True)
class RunningServer:
    """A server that is ready: its gRPC ``target`` and process id."""

    target: str
    pid: int


@contextmanager
def serving(context: Context, environment: Mapping[str, str] | None = None) -> Iterator[RunningServer]:
    """A server with the run's options, ready, for the block. ``environment`` adds settings.

    Raises:
        BenchmarkError: it doesn't start; the message ends with the last lines of its log.
    """
    target = f"127.0.0.1:{_free_port()}"
    command = [sys.executable, "-m", "samgate.cli.main", "serve", "--http-port", "0", "--admin-port", "0"]
    command += ["--port", target.rpartition(":")[2]]
    command += ["--variants", context.variant, "--precision", context.precision, "--engine", context.engine]
    command += ["--threads", str(context.all_threads)]
    log = context.scratch / "server.log"
    with log.open("w", encoding="utf-8") as output:
        process = subprocess.Popen(
            command, stdout=output, stderr=subprocess.STDOUT, env={**os.environ, **(environment or {})}
        )
    with process:
        try:
            _wait_until_ready(process, target, log)
            yield RunningServer(target, process.pid)
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(_STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                process.kill()


def _wait_until_ready(process: subprocess.Popen[bytes], target: str, log: Path) -> None:
    deadline = time.monotonic() + _READY_TIMEOUT_S
    with Client(target) as client:
        while time.monotonic() < deadline:
            if process.poll() is not None:
                raise BenchmarkError(f"samgate serve has ended with status {process.returncode}:\n{tail(log)}")
            if client.healthy(timeout_s=1.0):
                return
            time.sleep(0.1)
    raise BenchmarkError(f"samgate serve was not ready after {_READY_TIMEOUT_S:g} s:\n{tail(log)}")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
