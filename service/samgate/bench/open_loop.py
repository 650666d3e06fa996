"""A workload against a server, both processes of their own; and the same in the simulator."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from samgate.bench.context import Context
from samgate.bench.errors import BenchmarkError
from samgate.engines.cpu import usable_cores
from samgate.scheduling.core import Options
from samgate.scheduling.policy import POLICIES
from samgate.scheduling.profile import DeviceProfile
from samgate.simulation.arrival import Arrival
from samgate.simulation.fleet import Fleet, Trouble
from samgate.simulation.outcome import End, Outcome, Run
from samgate.simulation.simulator import simulate
from samgate.simulation.summary import Summary
from samgate.simulation.workload import Workload

REQUEST_S = (0.006, 0.001)
"""For how long an answered and a refused request keep a core busy with messages, the event loop and the load generator,
which runs on the same cores: fitted to the goodput of the fastest point at 40 and 120 requests a second."""
CROWDING = 1.1
"""An encoder and a decoder in endless loops beside each other got 87 to 93% of the work done that they do alone."""


@dataclass(frozen=True, slots=True)
class Load:
    """What came of a workload that a real server was sent: see :class:`samgate.load.generator.Measured`."""

    run: Run
    summary: Summary
    refusals_s: list[float]
    probes_s: list[float]
    lag_s: list[float]


def send(
    context: Context,
    target: str,
    workload: Path,
    *,
    rate: float,
    duration_s: float,
    slo_scale: float,
    seed: int,
    salt: str,
    label: str,
) -> Load:
    """`samgate load` in a process of its own. Raises BenchmarkError when it fails."""
    output = context.scratch / "load.json"
    command = [sys.executable, "-m", "samgate.cli.main", "load", "--workload", str(workload), "--server", target]
    command += ["--rate", str(rate), "--duration", str(duration_s), "--seed", str(seed), "--salt", salt]
    command += ["--slo-scale", str(slo_scale), "--label", label, "--json", str(output)]
    if context.images is not None:
        command += ["--images", str(context.images)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=duration_s + 600)
    if done.returncode:
        raise BenchmarkError(f"samgate load has failed: {done.stderr.strip()}")
    found = json.loads(output.read_text(encoding="utf-8"))
    run = Run(**found["run"], outcomes=[_outcome(one) for one in found["outcomes"]])
    return Load(run, Summary(**found["summary"]), found["refusals_s"], found["probes_s"], found["lag_s"])


def simulated(
    workload: Workload,
    device: DeviceProfile,
    policy: str,
    *,
    rate: float,
    duration_s: float,
    seed: int,
    pace: float = 1.0,
) -> Run:
    """The same workload on a simulated machine with ``device`` alone, where all takes ``pace`` times as long as its
    profile says."""
    slow = Trouble(0, 0, 0.0, 2 * duration_s, pace)
    cores = usable_cores()
    fleet = Fleet(
        "here", 1, (device,), embeddings=128, threads=cores + 1, weight=1 / cores, request_s=REQUEST_S,
        crowding=CROWDING, troubles=(slow,),
    )  # fmt: skip
    options = Options(policy=POLICIES[policy], max_requests=256, max_waiting=1024)
    return simulate(workload, fleet, options, seed, rate, duration_s=duration_s)


def _outcome(found: dict[str, Any]) -> Outcome:
    points = found["arrival"]["points"]
    arrival = Arrival(**{**found["arrival"], "points": tuple(points) if points else None})
    return Outcome(**{**found, "arrival": arrival, "end": End(found["end"])})
