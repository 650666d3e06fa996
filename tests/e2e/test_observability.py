"""A real gateway on a real Triton, watched by real tools: what it exposes, what is asked of that, what it traces."""

from __future__ import annotations

import json
import re
import secrets
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
import yaml
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from promql_support import Exposed
from promtool_support import promtool
from samgate.api.v1 import segmentation_pb2 as pb
from samgate.api.v1.segmentation_pb2_grpc import SegmentationStub
from samgate.triton.server import TritonServer
from support import serving
from tracing_support import Collector, Passage, collecting, passage

ROOT = Path(__file__).resolve().parents[2]
FILES = ROOT / "deploy" / "helm" / "samgate" / "files"
RULES, DASHBOARD = FILES / "rules.yaml", FILES / "dashboard.json"
RULES_TEST = ROOT / "tests" / "prometheus" / "rules_test.yaml"
OPERATIONS = ROOT / "docs" / "operations.md"

EVERYTHING = "e" * 32
"""The trace of a SegmentEverything call."""


@dataclass(frozen=True)
class Observed:
    """What was seen: the metrics in both formats, what the collector and Triton got, and the trace of one call, whose
    client's own span was ``parent_id``."""

    text: str
    openmetrics: str
    collector: Collector
    triton: Passage
    trace_id: str
    parent_id: str


@pytest.fixture(scope="module")
def observed(installed: None, triton: TritonServer, photo: bytes) -> Iterator[Observed]:
    trace_id, parent_id = secrets.token_hex(16), secrets.token_hex(8)
    with collecting() as collector, passage(triton.grpc) as way:
        # Nothing is sampled but what the client wants to be.
        settings = {"SAMGATE_TRACING_ENDPOINT": collector.endpoint, "SAMGATE_TRACING_SAMPLE": "0"}
        flags = ("--engine", "triton", "--triton-endpoints", way.address)
        with serving(*flags, **settings) as server, grpc.insecure_channel(server.target) as channel:
            stub = SegmentationStub(channel)
            ask(stub, photo, (("traceparent", f"00-{trace_id}-{parent_id}-01"),))
            text, openmetrics = scrape(server.http), scrape(server.http, "application/openmetrics-text; version=1.0.0")
            assert server.end().count("Traceback") == 0
        yield Observed(text, openmetrics, collector, way, trace_id, parent_id)


def ask(stub: SegmentationStub, photo: bytes, traced: tuple[tuple[str, str], ...]) -> None:
    """A few calls of every kind, some of which can't be answered."""
    image = pb.Image(encoded=photo)
    request = pb.SegmentRequest(image=image, prompts=[pb.Prompt(points=[pb.Point(x=100, y=120)])])
    stub.Segment(request, timeout=60, metadata=traced)
    stub.Segment(request, timeout=60, metadata=(("traceparent", "00-nonsense"),))
    stub.Embed(pb.EmbedRequest(image=image), timeout=60)
    stub.ListVariants(pb.ListVariantsRequest(), timeout=60)
    everything = pb.SegmentEverythingRequest(image=image, grid=pb.GridParameters(points_per_side=4))
    list(stub.SegmentEverything(everything, timeout=60, metadata=(("traceparent", f"00-{EVERYTHING}-{'1' * 16}-01"),)))
    for bad, timeout in ((request, 0.004), (pb.SegmentRequest(), 60)):
        with suppress(grpc.RpcError):
            stub.Segment(bad, timeout=timeout)


def scrape(http: str, accept: str = "text/plain") -> str:
    request = urllib.request.Request(f"{http}/metrics", headers={"Accept": accept})
    with urllib.request.urlopen(request, timeout=5) as answer:
        body: bytes = answer.read()
    return body.decode()


def rules() -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]


def alerts() -> list[dict[str, Any]]:
    return [rule for rule in rules() if "alert" in rule]


def panels() -> list[dict[str, Any]]:
    return [panel for panel in json.loads(DASHBOARD.read_text())["panels"] if panel["type"] != "row"]


def dashboard_queries() -> list[str]:
    queries = [target["expr"] for panel in panels() for target in panel["targets"]]
    return [query.replace("$__rate_interval", "5m") for query in queries]


def test_promtool_has_nothing_to_say_about_the_metrics(observed: Observed) -> None:
    assert promtool("check", "metrics", stdin=observed.text).strip() == ""


def test_rules_hold_and_each_alert_was_seen_to_fire_and_not_to() -> None:
    assert f"{len(rules())} rules found" in promtool("check", "rules", RULES)
    assert "SUCCESS" in promtool("test", "rules", RULES_TEST)
    seen: dict[str, set[bool]] = {}
    for test in yaml.safe_load(RULES_TEST.read_text())["tests"]:
        for check in test.get("promql_expr_test", []):
            (name,) = re.findall(r'alertname="(\w+)"', check["expr"])
            seen.setdefault(name, set()).add(bool(check["exp_samples"]))
    assert seen == {alert["alert"]: {True, False} for alert in alerts()}


def test_each_alert_has_a_runbook() -> None:
    headings = re.findall(r"^#+ (\w+)$", OPERATIONS.read_text(), re.MULTILINE)
    for alert in alerts():
        assert alert["labels"]["severity"] in {"critical", "warning", "info"}
        assert {"summary", "description"} < alert["annotations"].keys()
        assert alert["annotations"]["runbook_url"] == f"docs/operations.md#{alert['alert'].lower()}"
        assert alert["alert"] in headings


def test_rules_and_dashboard_ask_for_what_there_is(observed: Observed) -> None:
    exposed = Exposed.of(observed.text)
    for rule in rules():
        if "record" in rule:
            grouped = re.findall(r"by \(([^)]*)\)", rule["expr"])[0]
            exposed.add(rule["record"], [label.strip() for label in grouped.split(",") if label.strip() != "le"])
    problems = {query: exposed.problems(query) for query in [rule["expr"] for rule in rules()] + dashboard_queries()}
    assert {query: found for query, found in problems.items() if found} == {}


def test_the_check_finds_what_is_not_there(observed: Observed) -> None:
    exposed = Exposed.of(observed.text)
    for query, told in (
        ("rate(samgate_request_total[5m])", "no series samgate_request_total"),
        ('samgate_slo_total{outcome="good"}', 'samgate_slo_total has no outcome="good"'),
        ('samgate_slo_total{client=~"a.*"}', "samgate_slo_total has no label client"),
        ("sum by (client) (samgate_slo_total)", "nothing here has the label client"),
    ):
        assert exposed.problems(query) == [told]


def test_promtool_can_parse_every_query_of_the_dashboard(tmp_path: Path) -> None:
    recorded = [{"record": f"query:{index}", "expr": query} for index, query in enumerate(dashboard_queries())]
    file = tmp_path / "queries.yaml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": recorded}]}))
    assert f"{len(recorded)} rules found" in promtool("check", "rules", file)


def test_the_dashboard_is_one_that_grafana_can_lay_out() -> None:
    dashboard = json.loads(DASHBOARD.read_text())
    every = dashboard["panels"]
    assert len({panel["id"] for panel in every}) == len(every)
    taken: set[tuple[int, int]] = set()
    for panel in every:
        place = panel["gridPos"]
        columns = range(place["x"], place["x"] + place["w"])
        cells = {(x, y) for x in columns for y in range(place["y"], place["y"] + place["h"])}
        assert not cells & taken
        assert place["x"] + place["w"] <= 24
        taken |= cells
    variables = {variable["name"] for variable in dashboard["templating"]["list"]}
    used = set(re.findall(r"\$\{?(\w+)", json.dumps(every))) - {"__rate_interval"}
    assert used == variables == {"datasource", "job", "instance", "variant"}


def test_what_is_documented_is_what_there_is(observed: Observed) -> None:
    rows = re.findall(r"^\| `(samgate_\w+)` \| ([^|]*)\|", OPERATIONS.read_text(), re.MULTILINE)
    documented = {name: set(re.findall(r"`(\w+)`", labels)) for name, labels in rows}
    kinds = re.findall(r"^# TYPE (samgate_\w+) (\w+)$", observed.text, re.MULTILINE)
    series = Exposed.of(observed.text).series
    there = {name: series[f"{name}_count" if kind == "histogram" else name].keys() for name, kind in kinds}
    assert documented == there


def test_exemplars_lead_from_histograms_to_traces(observed: Observed) -> None:
    found = re.findall(r'^(samgate_\w+)_bucket\{.* # \{trace_id="(\w+)"\}', observed.openmetrics, re.MULTILINE)
    assert {trace_id for _, trace_id in found} == {observed.trace_id, EVERYTHING}
    assert {"samgate_request_seconds", "samgate_stage_seconds"} <= {name for name, _ in found}


def has_root(spans: list[Span]) -> bool:
    return any(span.kind == Span.SPAN_KIND_SERVER for span in spans)


def test_a_trace_goes_from_the_client_through_queue_and_engine_to_triton(observed: Observed) -> None:
    spans = observed.collector.trace(observed.trace_id, has_root)
    names = {span.span_id: span.name for span in spans}
    # Each with its parent's name: the stages of a new image.
    pairs = sorted((names.get(span.parent_span_id, span.parent_span_id.hex()), span.name) for span in spans)
    call = "samgate.v1.Segmentation/Segment"
    assert pairs == sorted(
        [
            (observed.parent_id, call),
            (call, "embedding"),
            ("embedding", "imaging"),
            ("embedding", "queue"),
            ("embedding", "encode"),
            ("encode", "triton"),
            (call, "queue"),
            (call, "decode"),
            ("decode", "triton"),
            (call, "masks"),
        ]
    )
    (root,) = (span for span in spans if span.name == call)
    for span in spans:
        assert root.start_time_unix_nano <= span.start_time_unix_nano <= span.end_time_unix_nano
        assert span.end_time_unix_nano <= root.end_time_unix_nano
    told = {one.key: one.value for one in root.attributes}
    assert told["samgate.variant"].string_value == "mobilesam"
    assert told["samgate.deadline_ms"].double_value == pytest.approx(60_000, rel=0.02)
    assert told["samgate.predicted_ms"].double_value > 0
    assert told["rpc.grpc.status_code"].int_value == 0
    assert observed.collector.resources[0]["service.name"] == "samgate"
    # Of whoever asks, and of the image, nothing.
    assert "127.0.0.1" not in str(root)


def test_a_trace_of_everything_has_its_chunks(observed: Observed) -> None:
    spans = observed.collector.trace(EVERYTHING, has_root)
    names = {span.span_id: span.name for span in spans}
    call = "samgate.v1.Segmentation/SegmentEverything"
    pairs = {(names.get(span.parent_span_id, ""), span.name) for span in spans}
    chunks = {(call, "queue"), (call, "decode"), ("decode", "triton"), (call, "masks")}
    assert pairs == {("", call), (call, "embedding"), *chunks}


def test_only_what_was_asked_for_is_traced(observed: Observed) -> None:
    assert {span.trace_id.hex() for span in observed.collector.spans} == {observed.trace_id, EVERYTHING}


def test_triton_gets_the_traceparent(observed: Observed) -> None:
    given = [told.get("traceparent", "") for method, told in observed.triton.passed if method.endswith("/ModelInfer")]
    ours = {observed.trace_id, EVERYTHING}
    of_ours = {header.split("-")[2] for header in given if header and header.split("-")[1] in ours}
    of_triton = {span.span_id.hex() for span in observed.collector.spans if span.name == "triton"}
    assert of_ours == of_triton
    # What isn't traced says so: Triton isn't to decide for itself.
    others = [header for header in given if header and header.split("-")[1] not in ours]
    assert others
    assert not any(int(header.rsplit("-", 1)[1], 16) & 1 for header in others)
