"""The HTTP side door: ``/metrics`` for Prometheus, ``/healthz`` and ``/readyz`` for probes, on threads of its own."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from socketserver import ThreadingMixIn
from typing import Any, cast
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import CollectorRegistry, make_wsgi_app

from samgate.errors import Unavailable

_SOCKET_TIMEOUT_S = 5
_STALE_S = 15.0


class Probes:
    """What the probes tell: ``serving`` (not draining) and ``healthy`` (all engines are) are set by the server,
    ``beat`` is called by the event loop while it turns."""

    def __init__(self) -> None:
        self.serving = False
        self.healthy = True
        self._beat = time.monotonic()

    def beat(self) -> None:
        """The event loop has turned."""
        self._beat = time.monotonic()

    @property
    def alive(self) -> bool:
        """Whether the event loop has turned lately."""
        return time.monotonic() - self._beat < _STALE_S


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _Handler(WSGIRequestHandler):
    timeout = _SOCKET_TIMEOUT_S

    def log_message(self, *_: Any) -> None:
        """Probes and scrapes aren't worth a line each."""


class HttpServer:
    """Serves on ``host:port`` from a background thread; port 0 takes a free one."""

    def __init__(self, host: str, port: int, registry: CollectorRegistry, probes: Probes) -> None:
        metrics = make_wsgi_app(registry)
        answers: dict[str, Callable[[], bool]] = {
            "/healthz": lambda: probes.alive,
            "/readyz": lambda: probes.alive and probes.serving and probes.healthy,
        }

        def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
            path = environ.get("PATH_INFO", "")
            if path == "/metrics":
                return cast("Iterable[bytes]", metrics(environ, start_response))
            if path not in answers:
                start_response("404 Not Found", [("Content-Type", "text/plain")])
                return [b"try /metrics, /healthz or /readyz\n"]
            good = answers[path]()
            start_response("200 OK" if good else "503 Service Unavailable", [("Content-Type", "text/plain")])
            return [b"ok\n" if good else b"not ok\n"]

        try:
            self._server = make_server(host, port, app, server_class=_Server, handler_class=_Handler)
        except OSError as error:
            raise Unavailable(f"HTTP can't listen on {host}:{port}: {error.strerror}; choose --http-port") from error
        self.port = self._server.server_port
        self._thread = threading.Thread(target=self._server.serve_forever, name="http", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(timeout=_SOCKET_TIMEOUT_S)
