"""``samgate top``: figures from scrapes, calculated by hand beside; and servers that come and go."""

from __future__ import annotations

import argparse
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from rich.console import Console

from samgate.api.calls import Call
from samgate.api.http import HttpServer, Probes
from samgate.api.metrics import Metrics
from samgate.api.slo import Outcome
from samgate.cli.main import main
from samgate.cli.top import Watcher, _url
from samgate.config import Settings
from samgate.errors import Unavailable
from samgate.scheduling.queue import Priority
from samgate.serving.requests import Trace
from samgate.top.figures import figures, quantile
from samgate.top.scrape import Scrape, parse, scrape

BEFORE = """\
samgate_build_info{version="1"} 1
samgate_slo_total{rpc="Segment",priority="interactive",outcome="met"} 100
samgate_slo_total{rpc="Segment",priority="interactive",outcome="late"} 0
samgate_slo_total{rpc="SegmentEverything",priority="bulk",outcome="met"} 0
samgate_requests_total{rpc="Segment",code="OK"} 100
samgate_request_seconds_bucket{rpc="Segment",variant="a",priority="interactive",le="0.1"} 50
samgate_request_seconds_bucket{rpc="Segment",variant="a",priority="interactive",le="0.2"} 100
samgate_request_seconds_bucket{rpc="Segment",variant="a",priority="interactive",le="+Inf"} 100
samgate_request_seconds_count{rpc="Segment",variant="a",priority="interactive"} 100
samgate_operating_point_info{point="a:f32"} 1
samgate_engine_healthy{point="a:f32"} 1
samgate_queue_length{stage="encode"} 2
samgate_load_price 0.5
samgate_triton_healthy{server="x:1",model="m"} 1
samgate_embedding_lookups_total{result="hit"} 10
samgate_embedding_lookups_total{result="miss"} 0
"""
AFTER = """\
samgate_build_info{version="1"} 1
samgate_slo_total{rpc="Segment",priority="interactive",outcome="met"} 130
samgate_slo_total{rpc="Segment",priority="interactive",outcome="late"} 10
samgate_slo_total{rpc="SegmentEverything",priority="bulk",outcome="met"} 0
samgate_requests_total{rpc="Segment",code="OK"} 130
samgate_requests_total{rpc="Segment",code="DEADLINE_EXCEEDED"} 10
samgate_request_seconds_bucket{rpc="Segment",variant="a",priority="interactive",le="0.1"} 70
samgate_request_seconds_bucket{rpc="Segment",variant="a",priority="interactive",le="0.2"} 130
samgate_request_seconds_bucket{rpc="Segment",variant="a",priority="interactive",le="+Inf"} 140
samgate_request_seconds_count{rpc="Segment",variant="a",priority="interactive"} 140
samgate_operating_point_info{point="a:f32"} 1
samgate_engine_healthy{point="a:f32"} 0
samgate_queue_length{stage="encode"} 5
samgate_load_price 0.25
samgate_triton_healthy{server="x:1",model="m"} 0
samgate_embedding_lookups_total{result="hit"} 13
samgate_embedding_lookups_total{result="miss"} 1
"""


def pair(seconds: float = 10.0) -> tuple[Scrape, Scrape]:
    return parse(BEFORE, 0.0), parse(AFTER, seconds)


def test_figures_are_of_what_happened_in_between() -> None:
    found = figures([pair()])
    assert found.seconds == 10
    assert found.calls_s == 4
    assert found.outcomes_s == {"met": 3, "late": 1}
    assert found.attainment == {"bulk": None, "interactive": 0.75}
    assert found.attainment_since_start == {"bulk": None, "interactive": 130 / 140}
    (variant,) = found.variants
    # Of 40: 20 below 0.1 s, 10 up to 0.2, and 10 beyond the last edge.
    assert (variant.calls_s, variant.p95_s) == (4, 0.2)
    assert variant.p50_s == pytest.approx(0.1)
    assert found.hit_ratio == 0.75
    assert (found.stages[0].waiting, found.price) == (5, 0.25)
    assert not found.points[0].healthy
    assert found.tritons == {("x:1", "m"): False}


def test_several_servers_add_up_and_the_worst_counts() -> None:
    before, now = pair()
    found = figures([pair(), (before, parse(BEFORE, 10.0))])
    assert found.calls_s == 4
    assert found.stages[0].waiting == 7
    assert found.price == 0.5
    assert not found.points[0].healthy
    assert now.at == 10


def test_a_server_that_was_started_anew_began_at_nothing() -> None:
    before, now = pair()
    found = figures([(Scrape(0.0, now.samples), Scrape(10.0, before.samples))])
    assert found.outcomes_s["met"] == 10
    assert found.outcomes_s["late"] == 0


def test_quantiles_lie_on_a_line_between_edges() -> None:
    inf = float("inf")
    assert quantile(0.5, {}) is None
    assert quantile(0.5, {1.0: 0, inf: 0}) is None
    assert quantile(0.25, {1.0: 10, 3.0: 20, inf: 20}) == 0.5
    assert quantile(0.75, {1.0: 10, 3.0: 20, inf: 20}) == 2.0
    assert quantile(0.99, {1.0: 10, inf: 20}) == 1.0
    assert quantile(0.5, {-1.0: 0, 1.0: 10, inf: 10}) == 0.0


@contextmanager
def metrics_server(port: int = 0) -> Iterator[tuple[Metrics, str]]:
    metrics = Metrics()
    server = HttpServer(Settings(http_port=port), metrics, Probes())
    try:
        yield metrics, f"http://127.0.0.1:{server.port}/metrics"
    finally:
        server.close()


def answered(metrics: Metrics, count: int) -> None:
    trace = Trace("mobilesam", "bf16", "openvino", stages_s={"decode": 0.01})
    for _ in range(count):
        metrics.observe_call("Segment", "OK", Call(0.0, 1.0, "", Priority.INTERACTIVE, trace=trace), Outcome.MET)


def text(watcher: Watcher) -> str:
    console = Console(width=140, record=True, markup=False)
    with console.capture() as shown:
        console.print(watcher.show(console.width))
    return shown.get()


def test_a_server_that_goes_is_told_of_and_asked_again() -> None:
    with metrics_server() as (metrics, url):
        watcher = Watcher([url], None)
        watcher.look()
        assert "waiting for a second look" in text(watcher)
        answered(metrics, 3)
        watcher.look()
        assert "mobilesam" in text(watcher)
        assert watcher.answering()
    watcher.look()
    assert "doesn't answer" in text(watcher)
    assert not watcher.answering()
    port = int(url.rpartition(":")[2].partition("/")[0])
    with metrics_server(port):
        watcher.look()
        assert watcher.answering()
    watcher.close()


def test_once_prints_and_draws_what_there_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture = tmp_path / "top.svg"
    with metrics_server() as (_, url), socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        away = f"http://127.0.0.1:{nobody.getsockname()[1]}/metrics"
        command = ["top", "--once", "--interval", "0.1", "--metrics"]
        assert main([*command, url, "--metrics", away, "--svg", str(picture)]) == 0
        shown = capsys.readouterr().out
        assert "objective: 99% in time" in shown
        assert "Connection" in shown
        assert main([*command, away]) == 1
    assert "interactive" in picture.read_text()
    assert "font-face" not in picture.read_text()


def test_what_is_no_samgate_is_told() -> None:
    with metrics_server() as (_, url):
        for path, told in (("/healthz", "has no Prometheus metrics"), ("/nothing", "answers 404")):
            with pytest.raises(Unavailable, match=told):
                scrape(url.replace("/metrics", path), "a token")
    with pytest.raises(ValueError, match=r"."):
        parse("{{{", 0.0)
    for bad in ("file:///etc/passwd", "127.0.0.1:8080", "http://", "http://x:99999"):
        with pytest.raises(argparse.ArgumentTypeError, match="is not a URL"):
            _url(bad)


def test_bad_flags_say_what_to_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["top", "--svg", str(tmp_path / "x.svg")]) == 1
    assert "is for --once" in capsys.readouterr().err
    assert main(["top", "--once", "--token-file", str(tmp_path / "none")]) == 1
    assert "can't be read: No such file" in capsys.readouterr().err
