"""The parts of the benchmarks that can be wrong without anyone noticing: percentiles, turns, the report."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import pytest

from samgate.bench import engines
from samgate.bench.context import Context
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


def test_engines_are_compared_with_openvino_in_the_same_precision(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, str, str]] = []

    class Answering:
        """Takes its engine's time, and a second for every call that only warms up."""

        def __init__(self, engine: str, precision: str, compiled: str) -> None:
            self.way, self.calls = (engine, precision, compiled), 0

        def ask(self, **request: Any) -> dict[str, Any]:
            assert Path(request["image"]).read_bytes()[:2] == b"\xff\xd8"
            asked.append(self.way)
            self.calls += 1
            if self.calls <= 3:
                return {"encode_ms": 1000.0, "decode_ms": 1000.0}
            slow = {"openvino": 1, "onnxruntime": 2, "torch": 4}[self.way[0]] * (1 if self.way[1] == "bf16" else 10)
            return {"encode_ms": 10.0 * slow, "decode_ms": 1.0 * slow}

    def working(command: Sequence[str], *others: object) -> AbstractContextManager[Answering]:
        options = dict(zip(command[3::2], command[4::2], strict=True))
        return nullcontext(Answering(options["--engine"], options["--precision"], options["--compile"]))

    monkeypatch.setattr(engines, "working", working)
    monkeypatch.setattr(engines, "has_native_bf16", lambda: True)
    monkeypatch.setattr(engines, "_PAUSE_S", 0)
    monkeypatch.setattr("shutil.which", lambda name: name)
    rows = {row[0]: row[1:] for row in engines.engines(Context(tmp_path, "mobilesam", quick=True)).rows}
    assert rows["onnxruntime, f32"] == ("200.0", "200.0", "20.0", "20.0", "0.50×", "0.50×")
    assert rows["torch, compiled, bf16"] == ("40.0", "40.0", "4.0", "4.0", "0.25×", "0.25×")
    assert len(rows) == 7
    # Each time another is first.
    assert len({asked[turn * 7] for turn in range(4)}) == 4


def test_the_command_knows_every_benchmark() -> None:
    assert list(BENCHMARKS) == list(NAMES)
