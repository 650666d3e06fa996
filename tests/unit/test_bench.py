"""The parts of the benchmarks that can be wrong without anyone noticing: percentiles, turns, the report."""

from __future__ import annotations

from pathlib import Path

import pytest

from samgate.bench.images import unique_jpegs
from samgate.bench.registry import BENCHMARKS
from samgate.bench.report import Result, Verdict, section, update
from samgate.bench.stats import Latency
from samgate.bench.turns import in_turns
from samgate.cli.bench import NAMES


def test_percentiles() -> None:
    latency = Latency.of([float(value) for value in range(101)])
    assert (latency.p50, latency.p95, latency.p99, latency.n) == (50, 95, 99, 101)
    with pytest.raises(ValueError, match="no latency"):
        Latency.of([])


def test_turns_alternate_who_is_first_and_skip_the_warm_up() -> None:
    calls: list[str] = []

    def note(who: str, index: int) -> str:
        calls.append(f"{who}{index}")
        return calls[-1]

    pairs = list(in_turns(lambda index: note("a", index), lambda index: note("b", index), 3, 0, skip=1))
    assert pairs == [None, ("a1", "b1"), ("a2", "b2")]
    assert calls == ["a0", "b0", "b1", "a1", "a2", "b2"]


def test_a_section_is_replaced_and_the_others_stay_in_order(tmp_path: Path) -> None:
    report = tmp_path / "docs" / "benchmarks.md"
    update(report, {"warm": "stale figures", "cold": "first"}, ["cold", "warm"])
    update(report, {"warm": "fresh figures"}, ["cold", "warm"])
    text = report.read_text(encoding="utf-8")
    assert "stale figures" not in text
    assert text.index("first") < text.index("fresh figures")


def test_a_missed_floor_shows() -> None:
    result = Result("x", "X", "How.", ("", "ms"), [("us", "3")], [Verdict("at most 2", "3", met=False)])
    assert not result.met()
    assert "| at most 2 | 3 | **missed** |" in section(result, ["here"])


def test_images_are_never_the_same() -> None:
    images = unique_jpegs(None, 3, seed=1) + unique_jpegs(None, 3, seed=2)
    assert len(set(images)) == 6


def test_the_command_knows_every_benchmark() -> None:
    assert list(BENCHMARKS) == list(NAMES)
