"""The HTTP side door: ``/metrics`` for Prometheus, ``/healthz`` and ``/readyz`` for probes, on threads of its own."""

from __future__ import annotations

import hmac
import socket
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from socketserver import ThreadingMixIn
from typing import Any, cast
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import make_wsgi_app

from samgate.api.metrics import Metrics
from samgate.config import Settings
from samgate.errors import InvalidArgument, Unavailable
from samgate.security.exposure import is_loopback
from samgate.security.files import WatchedFiles

_SOCKET_TIMEOUT_S = 5
_CONNECTION_S = 15.0
_MAX_CONNECTIONS = 16
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
    """A thread a connection, of which there is a bound, as there is for how long one may take."""

    daemon_threads = True

    def __init__(self, *arguments: Any, **named: Any) -> None:
        self._free = threading.BoundedSemaphore(_MAX_CONNECTIONS)
        super().__init__(*arguments, **named)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Answer on a thread of its own, if there is one left."""
        if self._free.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """As the name says; for at most ``_CONNECTION_S``."""
        end = threading.Timer(_CONNECTION_S, _cut, (request,))
        end.daemon = True
        end.start()
        try:
            super().process_request_thread(request, client_address)
        finally:
            end.cancel()
            self._free.release()

    def handle_error(self, *_: Any) -> None:
        """Who went away, or was cut off, isn't worth a traceback."""


class _Handler(WSGIRequestHandler):
    timeout = _SOCKET_TIMEOUT_S

    def log_message(self, *_: Any) -> None:
        """Probes and scrapes aren't worth a line each."""


def _cut(request: socket.socket) -> None:
    with suppress(OSError):
        request.shutdown(socket.SHUT_RDWR)


class MetricsGuard:
    """Says who may read /metrics: everybody where only this machine comes, or where that is meant; else who has the
    token in the file of the settings, which is read again when it changes.

    Raises InvalidArgument for a file that can't be used.
    """

    def __init__(self, settings: Settings) -> None:
        self._open = settings.metrics.open or is_loopback(settings.http_host)
        self._token: WatchedFiles[bytes] | None = None
        if settings.metrics.token:
            path = Path(settings.metrics.token)
            try:
                self._token = WatchedFiles("metrics token", [path], lambda files: _read_token(*files))
            except OSError as error:
                raise InvalidArgument("metrics.token", f"can't read {path}: {error.strerror}") from error

    def refusal(self, authorization: str) -> tuple[str, str, str] | None:
        """The status, what to do about it, and why in a word, for who isn't let in with this header; else None."""
        if self._token is not None:
            expected = b"Bearer " + self._token.current()
            if hmac.compare_digest(authorization.encode(), expected):
                return None
            what = "send 'Authorization: Bearer TOKEN', the token in the file of metrics.token\n"
            return "401 Unauthorized", what, "unknown" if authorization else "missing"
        if self._open:
            return None
        return "403 Forbidden", "set metrics.token (or metrics.open) to read metrics from other machines\n", "forbidden"


def _read_token(data: bytes) -> bytes:
    token = data.strip()
    if not token:
        raise InvalidArgument("metrics.token", "is an empty file")
    return token


class HttpServer:
    """Serves where ``settings`` say from a background thread; port 0 takes a free one."""

    def __init__(self, settings: Settings, metrics: Metrics, probes: Probes) -> None:
        host, port = settings.http_host, settings.http_port
        exposition, guard = make_wsgi_app(metrics.registry), MetricsGuard(settings)
        answers: dict[str, Callable[[], bool]] = {
            "/healthz": lambda: probes.alive,
            "/readyz": lambda: probes.alive and probes.serving and probes.healthy,
        }

        def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
            path = environ.get("PATH_INFO", "")
            if path == "/metrics":
                refusal = guard.refusal(environ.get("HTTP_AUTHORIZATION", ""))
                if refusal is None:
                    return cast("Iterable[bytes]", exposition(environ, start_response))
                status, text, reason = refusal
                metrics.observe_authentication_failure(reason)
            elif path in answers:
                good = answers[path]()
                status, text = ("200 OK", "ok\n") if good else ("503 Service Unavailable", "not ok\n")
            else:
                status, text = "404 Not Found", "try /metrics, /healthz or /readyz\n"
            start_response(status, [("Content-Type", "text/plain; charset=utf-8")])
            return [text.encode()]

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
