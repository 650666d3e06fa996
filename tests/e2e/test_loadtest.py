"""Locust with two workers against a real server: what it reports is what the server saw, and a stall shows."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from support import Process, serving

ROOT = Path(__file__).resolve().parents[2]
LOCUST = (
    sys.executable, "-m", "locust", "-f", str(ROOT / "loadtest" / "locustfile.py"), "--headless", "--only-summary",
)  # fmt: skip
RATE, DURATION_S, STALL_S = 8.0, 8.0, 2.0


@pytest.fixture(scope="module")
def server(installed: None) -> Iterator[Process]:
    with serving() as running:
        yield running


@pytest.fixture
def patient(tmp_path: Path) -> Path:
    """Clicks on four images, with time enough to wait for a server that stands still."""
    content = {
        "name": "patient",
        "duration_s": DURATION_S,
        "arrivals": {"process": "poisson", "rate": RATE},
        "images": {"zipf": {"catalogue": 4, "exponent": 0}, "megapixels": 0.3},
        "requests": [{"name": "clicks", "kind": "point", "prompts": 1, "deadline_s": 30}],
    }
    path = tmp_path / "patient.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def free_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


def answered(server: Process, rpc: str) -> int:
    """Calls that the server says it has ended."""
    with urllib.request.urlopen(f"{server.http}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    found = re.findall(r"^samgate_requests_total\{([^}]*)\} (\S+)$", text, re.MULTILINE)
    return round(sum(float(value) for labels, value in found if f'rpc="{rpc}"' in labels))


def run(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*arguments], capture_output=True, text=True, check=False, timeout=120, cwd=ROOT, **options)


def test_two_workers_report_what_the_server_saw_and_a_stall_is_in_the_latencies(
    server: Process, patient: Path, tmp_path: Path
) -> None:
    before, port = answered(server, "Segment"), free_port()
    command = [*LOCUST, "SegAnyWarm", "--workload", str(patient), "--host", server.target, "--processes", "2"]
    command += ["--master-bind-port", port, "--master-port", port, "--report", str(tmp_path / "run"), "--seed", "1"]
    log = tmp_path / "log"
    with log.open("w") as output, subprocess.Popen(command, stdout=output, stderr=output, cwd=ROOT) as locust:
        try:
            give_up = time.monotonic() + 60
            while answered(server, "Segment") == before:
                assert time.monotonic() < give_up, log.read_text()
                assert locust.poll() is None, log.read_text()
                time.sleep(0.05)
            time.sleep(1.5)
            server.running.send_signal(signal.SIGSTOP)
            time.sleep(STALL_S)
            server.running.send_signal(signal.SIGCONT)
            status = locust.wait(timeout=90)
        finally:
            server.running.send_signal(signal.SIGCONT)
            locust.terminate()
    assert status in (0, 3), log.read_text()
    found = json.loads((tmp_path / "run.json").read_text())
    requests, clicks = found["requests"], found["tiers"]["clicks"]
    # Nothing is lost on the way from two workers, and the server counted the same.
    assert found["workers"] == len(found["generator"]["nodes"]) == 2
    assert requests["unreported"] == requests["skipped"] == 0
    assert requests["planned"] == requests["sent"] == answered(server, "Segment") - before
    assert clicks["attainment"] == 1
    assert clicks["points"] == {"mobilesam:" + next(iter(clicks["points"])).partition(":")[2]: 1.0}
    assert clicks["cached"] == 1
    # A closed loop would have sent one request a user during the stall. This one sent all that were due, and counts
    # from when they were: the first of them waited for two seconds, those in the middle for one.
    stalled = [one for one in found["buckets"] if (one["p95_s"] or 0) > 0.4 * STALL_S]
    assert stalled
    assert sum(one["offered"] for one in found["buckets"] if (one["p50_s"] or 0) > 0.25 * STALL_S) >= 3
    assert clicks["p99_s"] > 0.7 * STALL_S
    assert min(one["p50_s"] for one in found["buckets"] if one["p50_s"]) < 0.5
    # It wasn't the generator that was late.
    assert found["generator"]["lag_p50_s"] < 0.1


def test_a_target_elsewhere_is_refused_before_anything_is_sent(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "SAMGATE_ALLOW_TARGET"}
    done = run(*LOCUST, "--host", "192.0.2.1:50051", "--report", str(tmp_path / "run"), env=environment)
    assert done.returncode == 2
    assert "'192.0.2.1:50051', which is not this machine" in done.stderr
    assert "--allow-target 192.0.2.1:50051" in done.stderr
    assert not list(tmp_path.iterdir())
    searched = run(sys.executable, "-m", "loadtest.capacity", "--host", "192.0.2.1:50051", env=environment)
    assert searched.returncode == 2
    assert "which is not this machine" in searched.stderr


def test_the_capacity_of_a_server_is_searched_by_real_runs(server: Process, patient: Path, tmp_path: Path) -> None:
    before = answered(server, "Segment")
    command = [sys.executable, "-m", "loadtest.capacity", "Mixed", "--workload", str(patient)]
    command += ["--host", server.target, "--start", "4", "--most", "2", "--duration", "2", "--warmup", "0"]
    done = run(*command, "--max-lag", "1", "--report", str(tmp_path / "capacity"))
    # Two runs confirm nothing, and thirty seconds are enough for every click.
    assert done.returncode == 1, done.stderr
    found = json.loads((tmp_path / "capacity.json").read_text())
    assert [one["rate"] for one in found["trials"]] == [4, 8]
    assert [one["share"] for one in found["trials"]] == [1, 1]
    assert (found["rate"], found["failed"], found["confirmed"]) == (8, None, False)
    assert sum(one["requests"]["sent"] for one in found["runs"]) == answered(server, "Segment") - before
    assert "At least 8 requests/s" in (tmp_path / "capacity.html").read_text()
