"""What a server takes while it serves: memory, descriptors, threads, shared memory, queues; sampled."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field, fields
from pathlib import Path

import psutil

from loadtest.reliability.judgement import Series
from loadtest.reliability.process import Gateway

_SHARED_MEMORY = Path("/dev/shm")
_MIB = 2**20

UNITS = {
    "resident": "MiB",
    "proportional": "MiB",
    "descriptors": "descriptors",
    "threads": "threads",
    "shared_files": "files",
    "shared": "MiB",
    "queued": "pieces",
    "in_flight": "calls",
    "cached": "MiB",
    "loop_lag": "ms",
}


@dataclass(frozen=True, slots=True)
class Sample:
    """One look at a gateway and its children, ``at_s`` seconds after the first. ``proportional`` is PSS: what is shared
    counts in parts. ``shared`` is in /dev/shm. None where the metrics don't say."""

    at_s: float
    resident: float
    proportional: float
    descriptors: int
    threads: int
    shared_files: int
    shared: float
    queued: float | None
    in_flight: float | None
    cached: float | None
    loop_lag: float | None


@dataclass(slots=True)
class Watch:
    """The samples of a run. A look that fails while the server goes is left out."""

    gateway: Gateway
    samples: list[Sample] = field(default_factory=list)
    _start: float = field(default_factory=time.monotonic)

    async def run(self, every_s: float) -> None:
        """Looks until it is cancelled."""
        while True:
            await self.look()
            await asyncio.sleep(every_s)

    async def look(self) -> None:
        """Take one sample."""
        try:
            scrape = await self.gateway.scrape()
            taken = await asyncio.to_thread(self._processes)
        except (OSError, psutil.NoSuchProcess):
            return
        resident, proportional, descriptors, threads, files, shared = taken
        lag, cached = scrape.total("samgate_event_loop_lag_seconds"), scrape.total("samgate_embedding_cache_bytes")
        self.samples.append(
            Sample(
                time.monotonic() - self._start,
                resident,
                proportional,
                descriptors,
                threads,
                files,
                shared,
                scrape.total("samgate_queue_length"),
                scrape.total("samgate_requests_in_flight"),
                None if cached is None else cached / _MIB,
                None if lag is None else 1e3 * lag,
            )
        )

    def series(self) -> list[Series]:
        """One a quantity that was ever known."""
        found = []
        for name in (one.name for one in fields(Sample) if one.name != "at_s"):
            known = [(one.at_s, getattr(one, name)) for one in self.samples if getattr(one, name) is not None]
            if known:
                found.append(Series(name, UNITS[name], [at for at, _ in known], [float(value) for _, value in known]))
        return found

    def _processes(self) -> tuple[float, float, int, int, int, float]:
        resident = proportional = 0.0
        descriptors = threads = 0
        names = [f"samgate-gateway-{self.gateway.pid}-"]
        for process in self.gateway.family():
            memory = process.memory_full_info()
            resident, proportional = resident + memory.rss / _MIB, proportional + memory.pss / _MIB
            descriptors, threads = descriptors + process.num_fds(), threads + process.num_threads()
            names += [part.removeprefix("--id=") for part in process.cmdline() if part.startswith("--id=")]
        shared = [path for path in _SHARED_MEMORY.iterdir() if any(name in path.name for name in names)]
        return resident, proportional, descriptors, threads, len(shared), sum(map(_blocks, shared))


def _blocks(path: Path) -> float:
    try:
        return path.stat().st_blocks * 512 / _MIB
    except FileNotFoundError:
        return 0.0
