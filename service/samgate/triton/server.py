"""The server as a process: started and ready, or an error that holds what it said; stopped, and nothing left of it."""

from __future__ import annotations

import http.client
import json
import re
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from threading import Event
from types import TracebackType

from samgate.triton.errors import TritonError
from samgate.triton.install import Installation
from samgate.triton.launch import ANY, LOOPBACK, ServerOptions, choose_addresses, command, environment
from samgate.triton.runs import Run

__all__ = ["ServerOptions", "TritonServer", "silent"]

_POLL_S = 0.05
_PROBE_TIMEOUT_S = 1.0
_KILL_AFTER_S = 10.0
"""On top of the time that calls under way have."""
_TAIL_LINES = 25
_ERROR = re.compile(r"E\d{4} |error: ")


def silent(message: str) -> None:
    """Reports to nobody."""


class TritonServer:
    """One server over ``repository``, not started yet. As a context manager it runs for the time of the block.

    Models are loaded at the start, all of them, and can be loaded and unloaded later (explicit model control). Not
    safe for several threads.
    """

    def __init__(self, installation: Installation, repository: Path, run: Run, options: ServerOptions) -> None:
        self.options = options
        self.repository = repository
        self._installation = installation
        self._run = run
        self._process: subprocess.Popen[bytes] | None = None
        self.started_models: frozenset[str] = frozenset()
        """Names of the models that had a process when it became ready."""
        self.grpc, self.http, self.metrics = choose_addresses(options)

    @property
    def process(self) -> subprocess.Popen[bytes]:
        """The server itself. Raises TritonError before it is started and after it is stopped."""
        if self._process is None:
            raise TritonError("the Triton server is not running: start it first")
        return self._process

    @property
    def _http(self) -> str:
        """Its HTTP address as this machine reaches it."""
        return self.http.replace(ANY, LOOPBACK)

    @property
    def log(self) -> Path:
        """Its output; goes with the run."""
        return self._run.log

    def stub_pids(self) -> list[int]:
        """Ids of the processes that run its models."""
        return sorted(process.pid for process in self._run.processes() if process.model is not None)

    def models(self) -> set[str]:
        """Names of the models that a process runs."""
        return {process.model for process in self._run.processes() if process.model is not None}

    def running(self) -> bool:
        """Whether the server's process lives."""
        return self._process is not None and self._process.poll() is None

    def ready_models(self) -> set[str]:
        """Names of the models that it calls ready, with or without a living process. Raises as :meth:`load` does."""
        answer = self._ask("POST", "/v2/repository/index", self.options.ready_timeout_s, '{"ready": true}')
        return {model["name"] for model in json.loads(answer)}

    def load(self, model: str) -> None:
        """Load ``model``, again if it is loaded. Raises TritonError when it can't, and what HTTP raises."""
        self._ask("POST", f"/v2/repository/models/{model}/load", self.options.ready_timeout_s)

    def shared_memory(self) -> list[Path]:
        """The regions it has."""
        return self._run.regions()

    def start(self, report: Callable[[str], None] = silent, stop: Event | None = None) -> None:
        """Start it and wait until every model is ready, or ``stop`` is set.

        Raises:
            TritonError: it died, or was stopped because it wasn't ready in time or ``stop`` was set; the message ends
                with its log.
        """
        self._run.clear()
        report(f"starting Triton on {self.grpc}")
        addresses = {"grpc": self.grpc, "http": self.http, "metrics": self.metrics}
        with self._run.log.open("wb") as log:
            self._process = subprocess.Popen(
                command(self._installation, self.repository, self._run.token, addresses, self.options),
                env=environment(self._installation),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                # Ctrl-C is for who watches over it: it would stop models in the middle of a call.
                start_new_session=True,
            )
        try:
            self._wait_ready(self._process, stop or Event())
        except BaseException:
            self.kill()
            raise
        self.started_models = frozenset(self.models())

    def stop(self) -> int | None:
        """Let calls under way finish, then end it and everything it started; its exit status if it was running."""
        process = self._process
        if process is None:
            return None
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                process.wait(self.options.drain_s + _KILL_AFTER_S)
        return self.kill()

    def kill(self) -> int | None:
        """End it and everything it started at once."""
        process, self._process = self._process, None
        if process is None:
            return None
        if process.poll() is None:
            process.kill()
        status = process.wait()
        self._run.clear()
        return status

    def restart(self, report: Callable[[str], None] = silent) -> None:
        """Stop it, dead or alive, and start it again on the same ports. Raises as :meth:`start` does."""
        self.stop()
        self.start(report)

    def ready(self) -> bool:
        """Whether it says that all of its models are. A model whose process has died still counts as ready."""
        try:
            self._ask("GET", "/v2/health/ready", _PROBE_TIMEOUT_S)
        except (OSError, http.client.HTTPException, TritonError):
            return False
        return True

    def log_tail(self) -> str:
        """The errors among the last lines of its log, or all of those lines where there is none."""
        try:
            lines = self._run.log.read_text(errors="replace").splitlines()
        except OSError:
            return ""
        errors = [line for line in lines if _ERROR.match(line)]
        return "\n".join((errors or lines)[-_TAIL_LINES:])

    def __enter__(self) -> TritonServer:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self.stop()

    def _ask(self, method: str, path: str, timeout_s: float, body: str | None = None) -> bytes:
        connection = http.client.HTTPConnection(self._http, timeout=timeout_s)
        try:
            connection.request(method, path, body)
            answer = connection.getresponse()
            content = answer.read()
        finally:
            connection.close()
        if answer.status != http.client.OK:
            raise TritonError(f"Triton refuses {path}: {content.decode(errors='replace')}")
        return content

    def _is_this_one(self) -> bool:
        """Whether it is this server that answers on the port, rather than one that was there before."""
        try:
            return bool(json.loads(self._ask("GET", "/v2", _PROBE_TIMEOUT_S))["name"] == self._run.token)
        except (OSError, http.client.HTTPException, TritonError):
            return False

    def _wait_ready(self, process: subprocess.Popen[bytes], stop: Event) -> None:
        deadline = time.monotonic() + self.options.ready_timeout_s
        while not (self.ready() and self._is_this_one()):
            status = process.poll()
            if status is not None:
                raise TritonError(f"Triton ended with status {status} before it was ready:\n{self.log_tail()}")
            if time.monotonic() > deadline:
                limit = self.options.ready_timeout_s
                raise TritonError(f"Triton was not ready within {limit:g} s:\n{self.log_tail()}")
            if stop.wait(_POLL_S):
                raise TritonError(f"Triton was stopped before it was ready:\n{self.log_tail()}")
