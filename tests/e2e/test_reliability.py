"""Chaos for real, in small: the command, two of its scenarios, what it writes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CHAOS = (sys.executable, "-m", "loadtest.reliability.chaos")


def run(*flags: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*CHAOS, *flags], cwd=ROOT, capture_output=True, text=True, timeout=250, check=False)


@pytest.mark.usefixtures("installed")
def test_nothing_is_lost_when_a_gateway_is_stopped_in_a_burst(tmp_path: Path) -> None:
    done = run("--only", "sigterm-burst", "--seconds", "1", "--output", str(tmp_path))
    assert done.returncode == 0, done.stdout + done.stderr
    (stopped,) = json.loads((tmp_path / "chaos.json").read_text())["scenarios"]
    assert (stopped["name"], stopped["passed"]) == ("sigterm-burst", True)
    assert stopped["spans"]["during"]["sent"] > 20
    assert all(span["lost"] == 0 for span in stopped["spans"].values())
    rows = run("--markdown", str(tmp_path / "chaos.json")).stdout.splitlines()
    assert [row.split("|")[1].strip() for row in rows[2:]] == ["sigterm-burst"]


def test_scenarios_are_listed_and_unknown_ones_refused() -> None:
    listed = run("--list")
    assert listed.returncode == 0
    assert "certificates-rotated" in listed.stdout
    assert run("--only", "earthquake").returncode == 2
