"""That the benchmark of decisions makes the decisions that it says it times."""

from __future__ import annotations

from pathlib import Path

import pytest

from samgate.bench import decisions
from samgate.bench.context import Context


def test_there_is_room_where_it_says_so_and_none_where_not(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(decisions, "QUEUED", (1, 100, 1000))
    monkeypatch.setattr(decisions, "_TURNS", 1)
    # It asserts of every decision that it is the one it means to time.
    found = decisions.decisions(Context(tmp_path, "mobilesam", quick=True))
    assert [row[0] for row in found.rows] == ["1", "100", "1,000"]
