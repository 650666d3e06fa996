"""Leaking and flat series, told apart; findings told as tables, JSON and Markdown."""

from __future__ import annotations

import io
import json
from random import Random

import pytest
from rich.console import Console

from loadtest.reliability.findings import Finding, Story, as_json, markdown, markdown_findings, table_of
from loadtest.reliability.http2 import DATA, frame, header_block, message
from loadtest.reliability.judgement import Bound, Series, flat, second_half, theil_sen
from loadtest.reliability.ledger import Ledger
from loadtest.reliability.metrics import parse
from loadtest.reliability.soak import BOUNDS

MINUTES = 30
MEMORY = BOUNDS["resident"]


def memory(per_minute: float, noise: float = 8.0, steps: int = 3, base: float = 1000.0) -> Series:
    """A server's: it fills caches in the first five minutes, breathes, and grows by ``per_minute`` MiB for good."""
    random = Random(1)
    at_s = [5.0 * index for index in range(MINUTES * 12)]
    values = [
        base * min(1.0, 0.6 + 0.4 * at / 300) + per_minute * at / 60 + random.gauss(0, noise)
        + (46 if steps and int(at / 97) % steps == 0 else 0)
        for at in at_s
    ]  # fmt: skip
    return Series("resident", "MiB", at_s, values)


@pytest.mark.parametrize(("per_minute", "held"), [(0.0, True), (-5.0, True), (0.5, True), (3.0, False), (20.0, False)])
def test_leaks_show_and_filling_caches_dont(per_minute: float, held: bool) -> None:
    assert flat(memory(per_minute), MEMORY).held is held


def test_a_quarter_of_outliers_changes_little() -> None:
    random = Random(2)
    at_s = [float(second) for second in range(200)]
    values = [0.5 * at + (1000 if random.random() < 0.25 else 0) for at in at_s]
    assert theil_sen(at_s, values) == pytest.approx(0.5, abs=0.5)
    assert theil_sen([0, 1, 2], [3, 2, 1]) == -1


def test_slopes_need_time() -> None:
    with pytest.raises(ValueError, match="two different times"):
        theil_sen([1.0, 1.0], [1.0, 2.0])


def test_descriptors_that_come_and_go_are_flat_and_one_a_minute_is_not() -> None:
    at_s = [5.0 * index for index in range(MINUTES * 12)]
    coming = Series("descriptors", "descriptors", at_s, [30.0 + index % 3 for index in range(len(at_s))])
    leaking = Series("descriptors", "descriptors", at_s, [30.0 + int(at / 60) for at in at_s])
    assert flat(coming, BOUNDS["descriptors"]).held
    assert not flat(leaking, BOUNDS["descriptors"]).held


def test_too_few_samples_are_no_pass() -> None:
    short = Series("threads", "threads", [0.0, 1.0, 2.0], [5.0, 5.0, 5.0])
    assert not flat(short, Bound(0.5, 100.0, "")).held
    assert not flat(Series("threads", "threads", [], []), Bound(0.5, 100.0, "")).held


def test_the_second_half_is_of_time_not_of_samples() -> None:
    half = second_half(Series("x", "", [0, 1, 2, 3, 4, 100], [1, 1, 1, 1, 1, 9]))
    assert list(half.values) == [9]


def story(held: bool) -> Story:
    ledger = Ledger()
    for status in ("OK", "OK", "FAILED_PRECONDITION"):
        entry = ledger.open("click", 0.0, 10.0)
        entry.status, entry.ended_s = status, 1.0
    findings = [Finding("no request lost", "0", held=True), Finding("back [soon]", "12 s", held=held)]
    return Story("triton-killed", {"before": ledger.tally(), "after": ledger.tally()}, findings, 12.0)


def test_a_story_passes_when_all_held_and_is_told_in_full() -> None:
    assert story(held=True).passed
    assert not story(held=False).passed
    told = json.loads(json.dumps(as_json(story(held=False))))
    assert told["spans"]["before"]["refused_by_status"] == {"FAILED_PRECONDITION": 1}
    rows = markdown([told])
    assert rows[2] == "| triton-killed | 6 | 4 | 2 | 0 | 0 | 0 | 12.0 s | **failed**: back [soon] |"
    assert rows[2].count("|") == rows[0].count("|") == rows[1].count("|")
    assert "| back [soon] | 12 s | **failed** |" in markdown_findings(told)
    console = Console(width=200, record=True, file=io.StringIO())
    for table in table_of(story(held=False)):
        console.print(table)
    text = console.export_text()
    assert "back [soon]" in text
    assert "FAILED" in text


def test_metrics_are_summed_by_label() -> None:
    scrape = parse(
        "# TYPE samgate_queue_length gauge\n"
        'samgate_queue_length{stage="encode"} 3.0\nsamgate_queue_length{stage="decode"} 4.0\n'
    )
    assert scrape.total("samgate_queue_length") == 7
    assert scrape.total("samgate_queue_length", stage="decode") == 4
    assert scrape.total("samgate_load_price") is None


def test_frames_are_http2s() -> None:
    assert frame(DATA, 1, 3, b"ab") == b"\0\0\2\0\1\0\0\0\3ab"
    assert header_block({"te": "trailers"}) == b"\0\2te\x08trailers"
    assert message(b"abc") == b"\0\0\0\0\3abc"
    assert message(b"", claimed=2**20) == b"\0\0\x10\0\0"
