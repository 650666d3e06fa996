"""The HTTP side door: who may read metrics, and what slow or many visitors do."""

from __future__ import annotations

import socket
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from samgate.api import http as module
from samgate.api.http import HttpServer, MetricsGuard, Probes
from samgate.api.metrics import Metrics
from samgate.config import MetricsDoor, Settings
from samgate.errors import InvalidArgument


@contextmanager
def door(settings: Settings) -> Iterator[str]:
    probes = Probes()
    probes.serving = True
    server = HttpServer(settings, Metrics(), probes)
    try:
        yield f"127.0.0.1:{server.port}"
    finally:
        server.close()


def status(address: str, path: str, authorization: str = "") -> int:
    request = urllib.request.Request(f"http://{address}{path}", headers={"Authorization": authorization})
    try:
        with urllib.request.urlopen(request, timeout=5) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def test_metrics_are_for_this_machine_unless_opened() -> None:
    everywhere = Settings(http_host="0.0.0.0", http_port=0)
    with door(everywhere) as address:
        assert status(address, "/metrics") == 403
        assert status(address, "/healthz") == status(address, "/readyz") == 200
    with door(Settings(http_host="0.0.0.0", http_port=0, metrics=MetricsDoor(open=True))) as address:
        assert status(address, "/metrics") == 200
    with door(Settings(http_port=0)) as address:
        assert status(address, "/metrics") == 200


def test_a_token_is_wanted_where_there_is_one_even_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("samgate.security.files._LOOK_EVERY_S", 0.0)
    file = tmp_path / "token"
    file.write_text("first\n")
    with door(Settings(http_port=0, metrics=MetricsDoor(token=str(file)))) as address:
        assert status(address, "/metrics") == status(address, "/metrics", "Bearer second") == 401
        assert status(address, "/metrics", "Bearer first") == 200
        file.write_text("second\n")
        assert status(address, "/metrics", "Bearer first") == 401
        assert status(address, "/metrics", "Bearer second") == 200
        assert status(address, "/metrics", "Bearer sécond") == 401


def test_a_token_that_is_none_is_told_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "empty").write_text("\n")
    with pytest.raises(InvalidArgument, match=r"metrics\.token: is an empty file"):
        MetricsGuard(Settings(metrics=MetricsDoor(token=str(tmp_path / "empty"))))
    with pytest.raises(InvalidArgument, match=r"metrics\.token: can't read .*missing: No such file"):
        MetricsGuard(Settings(metrics=MetricsDoor(token=str(tmp_path / "missing"))))


def test_slow_visitors_are_cut_off_and_there_is_a_bound_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MAX_CONNECTIONS", 2)
    monkeypatch.setattr(module, "_CONNECTION_S", 0.6)
    with door(Settings(http_port=0)) as address:
        host, port = address.split(":")
        slow = [socket.create_connection((host, int(port)), timeout=5) for _ in range(2)]
        for one in slow:
            one.sendall(b"GET /met")
        time.sleep(0.1)
        with closing(socket.create_connection((host, int(port)), timeout=5)) as third:
            assert third.recv(1) == b""  # closed at once: no thread is left
        # A byte now and then doesn't help.
        began = time.monotonic()
        while time.monotonic() - began < 3:
            try:
                for one in slow:
                    one.sendall(b"r")
            except OSError:
                break
            time.sleep(0.05)
        assert time.monotonic() - began < 2
        for one in slow:
            one.close()
        assert status(address, "/healthz") == 200
