"""What several tests share: a gateway as a process of its own."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

SERVE = (sys.executable, "-m", "samgate.cli.main", "serve", "--port", "0", "--http-port", "0", "--admin-port", "0")
READY = re.compile(
    r"samgate ready: mobilesam \(\S+, \S+\) on (?P<target>\S+), metrics on (?P<http>\S+)/metrics, "
    r"health on (?P<admin>\S+) "
)


@dataclass
class Process:
    """``samgate serve``; ``target`` is its gRPC address, ``http`` the base URL of its probes, ``admin`` the address of
    health and reflection."""

    running: subprocess.Popen[str]
    target: str
    http: str
    admin: str
    log: Path

    def end(self) -> str:
        """Ask it to stop, wait until it has, and return what it logged."""
        self.running.send_signal(signal.SIGTERM)
        assert self.running.wait(timeout=60) == 0
        return self.log.read_text()


@contextmanager
def serving(*flags: str, **environment: str) -> Iterator[Process]:
    """A gateway on free ports, ready; killed at the end of the block if it hasn't ended."""
    settings = {**os.environ, **environment}
    # Its log goes to a file: nobody empties a pipe, and a full one would stop the server.
    with (
        tempfile.TemporaryDirectory() as folder,
        (Path(folder) / "log").open("w") as log,
        subprocess.Popen([*SERVE, *flags], stdout=subprocess.PIPE, stderr=log, text=True, env=settings) as process,
    ):
        try:
            assert process.stdout is not None
            ready = READY.match(process.stdout.readline())
            assert ready, Path(log.name).read_text()
            yield Process(process, ready["target"], ready["http"], ready["admin"], Path(log.name))
        finally:
            process.kill()


def in_small_shared_memory(command: list[str], mebibytes: int) -> str:
    """What ``command`` prints where /dev/shm is of that size; fails with its errors when it fails."""
    script = f'mount -t tmpfs -o size={mebibytes}m tmpfs /dev/shm && exec "$@"'
    isolated = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script, "sh"]
    if subprocess.run([*isolated, "true"], capture_output=True, check=False).returncode:
        pytest.skip("needs unshare and user namespaces, to have a small /dev/shm")
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    done = subprocess.run([*isolated, *command], capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
