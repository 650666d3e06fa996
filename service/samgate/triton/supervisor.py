"""Keeps a server running: starts it again when it has died, and reloads models whose processes have."""

from __future__ import annotations

import http.client
import time
from collections.abc import Callable, Iterable
from threading import Event

from samgate.triton.errors import TritonError
from samgate.triton.server import TritonServer

_WATCH_S = 0.5
_FIRST_PAUSE_S = 0.5
_LONGEST_PAUSE_S = 30.0
_STABLE_S = 60.0
"""A server that has run for so long is given a fresh start when it dies: without a pause to speak of."""


def supervise(server: TritonServer, stop: Event, report: Callable[[str], None]) -> None:
    """Watches over ``server``, which is ready, until ``stop`` is set; then returns without having stopped it.

    A server that dies is started again, after a pause that doubles with every time that it doesn't last.
    """
    models = set(server.started_models)
    pause = _FIRST_PAUSE_S
    started = time.monotonic()
    while not stop.wait(_WATCH_S):
        if server.running():
            models |= server.models()
            reload_dead(server, models, report)
            continue
        if time.monotonic() - started > _STABLE_S:
            pause = _FIRST_PAUSE_S
        report(f"Triton has died (status {server.kill()}); starting it again in {pause:g} s")
        if stop.wait(pause):
            return
        pause = min(2 * pause, _LONGEST_PAUSE_S)
        started = time.monotonic()
        try:
            server.start(report, stop)
        except TritonError as error:
            if not stop.is_set():
                report(str(error))
        else:
            report(f"Triton is ready again on {server.grpc}")


def reload_dead(server: TritonServer, models: Iterable[str], report: Callable[[str], None]) -> None:
    """Loads those of ``models`` again that no process runs any more, but that the server goes on calling ready."""
    lost = set(models) - server.models()
    if not lost:
        return
    try:
        for name in sorted(lost & server.ready_models()):
            report(f"the process of {name} has died; loading it again")
            server.load(name)
    except (OSError, http.client.HTTPException, TritonError) as error:
        report(f"reloading failed: {error}")
