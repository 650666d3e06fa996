"""Outcomes → report: every request of the plan is in it once, shares add up, and a sick generator is not the server's
fault."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path
from random import Random
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loadtest import capacity_report, report
from loadtest.charts import Line, chart
from loadtest.figures import Sent, budget, figures, parts
from loadtest.health import MAX_SKIPPED, Node, health
from loadtest.plan import Plan, Source
from samgate.errors import SamgateError
from samgate.simulation.arrival import Arrival
from samgate.simulation.outcome import End, Outcome

WORKLOADS = Path(__file__).resolve().parents[2] / "loadtest" / "workloads"
GOOD = Node("worker 0", 0.002, 0.01, 0.3, 1.0)


def plan(**changes: Any) -> Plan:
    return Plan((Source("Mixed", str(WORKLOADS / "mixed.yaml")),), **{"duration_s": 60.0, "warmup_s": 10.0, **changes})


def sent(made: Plan, end: End = End.ON_TIME, latency_s: float = 0.1, reason: str = "") -> list[Sent]:
    return [
        Sent(
            0, number, None if end is End.SKIPPED else 0.001, end, arrival.at_s + latency_s, reason, "m:bf16", 0.7, True
        )
        for number, arrival in made.arrivals(0)
    ]


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 1000), st.sets(st.sampled_from([*End, None]), min_size=1))
def test_every_request_of_the_plan_is_counted_once_and_shares_add_up(seed: int, possible: set[End | None]) -> None:
    made, random, ends = plan(seed=seed), Random(seed), sorted(possible, key=str)
    told = []
    for one in sent(made):
        end = random.choice(ends)
        if end is not None:
            told.append(Sent(0, one.number, None if end is End.SKIPPED else 0.001, end, one.ended_s, reason=end.name))
    found = figures(made, told, [GOOD], 1)
    requests, overall = found["requests"], found["overall"]
    arrivals = [arrival for _, arrival in made.arrivals(0)]
    assert requests["planned"] == len(arrivals)
    assert requests["sent"] + requests["skipped"] + requests["unreported"] == requests["planned"]
    assert requests["unreported"] == len(arrivals) - len(told)
    counted = sum(arrival.at_s >= 10 for arrival in arrivals)
    assert overall["sent"] == counted == sum(tier["sent"] for tier in found["tiers"].values())
    assert sum(found["ends"].values()) == counted
    names = ("attainment", "shed", "late", "dropped", "lost", "skipped")
    assert sum(overall[name] for name in names) == pytest.approx(1 if counted else 0)
    assert overall["goodput"] == pytest.approx(overall["attainment"] * counted / 50)
    budgeted = found["budget"]
    assert budgeted["missed"] == counted - round(overall["attainment"] * counted)
    for name in ("slices", "buckets"):
        offered = sum(one["offered"] * (one["to_s"] - one["from_s"]) for one in found[name])
        assert offered == pytest.approx(len(arrivals))
    assert json.loads(json.dumps(found)) == found


def test_skipped_requests_are_missed_and_shown_apart() -> None:
    made = plan()
    half = [one for one in sent(made) if one.number % 2] + [
        one for one in sent(made, End.SKIPPED) if one.number % 2 == 0
    ]
    found = figures(made, half, [GOOD], 1)
    assert found["overall"]["attainment"] == pytest.approx(0.5, abs=0.01)
    assert found["overall"]["skipped"] == pytest.approx(0.5, abs=0.01)
    assert not found["valid"]
    assert "raise --in-flight" in found["generator"]["problems"][0]


def test_percentiles_are_those_of_each_tier() -> None:
    made = plan(duration_s=200.0)
    slow = {"clicks": 0.1, "boxes": 0.5, "everything": 5.0}
    told = [
        Sent(0, number, 0.0, End.ON_TIME, arrival.at_s + slow[arrival.tier]) for number, arrival in made.arrivals(0)
    ]
    found = figures(made, told, [GOOD], 1)
    for tier, latency_s in slow.items():
        mine = found["tiers"][tier]
        assert [mine[f"p{share}_s"] for share in (50, 90, 95, 99)] == pytest.approx([latency_s] * 4)


def test_a_run_that_was_stopped_counts_until_then_and_is_not_valid() -> None:
    made = plan()
    found = figures(made, [one for one in sent(made) if one.ended_s < 30], [GOOD], 1, end_s=30.0)
    assert found["plan"]["duration_s"] == 30
    assert not found["valid"]
    assert "stopped before its end" in found["generator"]["problems"][0]
    early = figures(made, [], [], 1, end_s=0.0)
    assert early["requests"]["planned"] == 0
    assert not early["valid"]
    assert "stopped before its end" in report.html({**early, "target": "t", "workers": 1})


def test_the_error_budget_is_what_the_target_leaves() -> None:
    outcomes = [Outcome(Arrival(0.0, 0, 1.0, "point", 1, 1.0), End.ON_TIME, 0.1) for _ in range(196)]
    outcomes += [Outcome(Arrival(0.0, 0, 1.0, "point", 1, 1.0), End.REFUSED, 0.1) for _ in range(4)]
    found = budget(0.99, outcomes)
    assert (found.sent, found.missed) == (200, 4)
    assert found.allowed == pytest.approx(2)
    assert found.used == pytest.approx(2)
    assert budget(1.0, outcomes).used is None


def test_parts_are_by_when_requests_were_due() -> None:
    outcomes = [Outcome(Arrival(at_s, 0, 1.0, "point", 1, 1.0), End.ON_TIME, 9.0) for at_s in (0.0, 0.5, 1.0, 3.999)]
    found = parts(outcomes, 0.0, 4.0, 4)
    assert [one["offered"] for one in found] == [2, 1, 0, 1]
    assert found[2]["attainment"] is None
    assert found[3]["p50_s"] == pytest.approx(5.001)


def check(**changes: Any) -> list[str]:
    usual = {"planned": 100, "counted": 80, "skipped": 0, "unreported": 0, "expected_nodes": 1, "max_lag_s": 0.1}
    nodes, lags = changes.pop("nodes", [GOOD]), changes.pop("lags", [0.001] * 100)
    return list(health(nodes, lags, **{**usual, **changes}).problems)


def test_a_generator_that_kept_up_is_healthy() -> None:
    assert check() == []
    # One late in a hundred and one is the 99th percentile's business, two in a hundred are not.
    assert check(lags=[0.001] * 100 + [0.5]) == []
    assert check(skipped=round(100 * MAX_SKIPPED)) == []


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"lags": [0.001] * 98 + [0.5] * 2}, "one request in 100 was sent 500 ms late (at most 100 ms)"),
        ({"lags": []}, "nothing was sent"),
        ({"counted": 0}, "no request was due after the warm-up"),
        ({"nodes": []}, "0 of 1 generating users"),
        ({"nodes": [Node("w", 0.2, 0.3, 0.1, 1.0)]}, "event loop was 200 ms late"),
        ({"nodes": [GOOD, Node("w", 0.0, 0.0, 0.97, 1.0)], "expected_nodes": 2}, "used 97% of a core (at most 90%)"),
        ({"skipped": 2}, "2 of 100 requests were skipped"),
        ({"unreported": 1}, "of 1 requests nobody knows what became"),
        ({"interrupted": True}, "stopped before its end"),
    ],
)
def test_whatever_the_generator_did_wrong_makes_a_run_invalid(changes: dict[str, Any], problem: str) -> None:
    (found,) = check(**changes)
    assert problem in found


class Page(HTMLParser):
    """Collects tags, and what would be fetched."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.fetched: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.fetched += [f"{tag} {name}" for name, _ in attrs if name in ("src", "href", "srcset", "action", "onload")]


HOSTILE = '<script>alert("x")</script>&'


def test_the_page_needs_nothing_else_and_shows_text_as_text() -> None:
    made = plan(salt=HOSTILE)
    found = figures(made, sent(made, End.REFUSED, reason=HOSTILE), [Node(HOSTILE, 0.0, 0.0, 0.1, 0.0)], 1)
    found["target"], found["workers"] = HOSTILE, 1
    found["tiers"] = {HOSTILE: {**found["overall"], "points": {HOSTILE: 1.0}}}
    text = report.html(found)
    page = Page()
    page.feed(text)
    assert page.tags.count("svg") == 3
    assert "script" not in page.tags
    assert not page.fetched
    assert "url(" not in text
    assert "@import" not in text
    assert text.count("&lt;script&gt;alert(&quot;x&quot;)&lt;/script&gt;&amp;") >= 4


@given(
    st.lists(st.tuples(st.floats(0, 1e6), st.none() | st.floats(0, 1e6)), max_size=30),
    st.none() | st.floats(0, 1e3),
    st.text(max_size=20),
)
def test_charts_are_well_formed_whatever_is_drawn(
    points: list[tuple[float, float | None]], level: float | None, title: str
) -> None:
    printable = "".join(one for one in title if one.isprintable())
    drawn = ElementTree.fromstring(chart(printable, "x", [Line(printable, points)], level))
    assert drawn.tag == "svg"
    for path in drawn.iter("path"):
        assert "nan" not in (path.get("d") or "")
        assert "inf" not in (path.get("d") or "")


def test_reports_are_written_and_read_again(tmp_path: Path) -> None:
    made = plan()
    found = figures(made, sent(made), [GOOD], 1)
    found["target"], found["workers"] = "127.0.0.1:1", 1
    data, page = report.write(tmp_path / "new" / "run.1", found)
    assert (data.name, page.name) == ("run.1.json", "run.1.html")
    assert json.loads(data.read_text()) == found
    text, good = report.verdict(found)
    assert good
    assert text.startswith("Met: 100.00% on time of ")
    (tmp_path / "file").write_text("")
    with pytest.raises(SamgateError, match="can't be made"):
        report.write(tmp_path / "file" / "run", found)


@pytest.mark.parametrize(
    ("changes", "words", "good"),
    [
        ({}, "Capacity: 16 requests/s (99.00% on time, in 2 runs); 17 fails; 2 runs.", True),
        ({"confirmed": False}, "At least 16 requests/s (99.00% on time), not confirmed", False),
        ({"limited": True}, "the generator was the limit; 17 can't be tried by this generator", False),
        ({"failed": None, "confirmed": False}, "no rate that fails was found", False),
        ({"rate": 0.0, "failed": 0.5}, "No rate was found that passes", False),
    ],
)
def test_a_capacity_is_only_called_one_when_it_was_confirmed(changes: dict[str, Any], words: str, good: bool) -> None:
    made = plan()
    run, blamed = (figures(made, sent(made), nodes, 1) for nodes in ([GOOD], []))
    content = {
        "command": HOSTILE, "date": "2026-01-01", "machine": "m", "target": "t", "took_s": 1.0,
        "rules": {"target": 0.99, "repeats": 2}, "rate": 16.0, "failed": 17.0, "limited": False, "confirmed": True,
        "trials": [{"rate": 16.0, "share": 1.0}, {"rate": 16.0, "share": None}], "runs": [run, blamed], **changes,
    }  # fmt: skip
    text, found = capacity_report.verdict(content)
    assert words in text
    assert found is good
    page = Page()
    page.feed(capacity_report.html(content))
    assert "tr" in page.tags
    assert "script" not in page.tags
