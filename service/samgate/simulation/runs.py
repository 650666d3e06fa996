"""Many simulations: policies × loads, on several processor cores if wanted."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context

from samgate.scheduling.core import Options
from samgate.scheduling.policy import POLICIES
from samgate.simulation.fleet import Fleet
from samgate.simulation.outcome import Run
from samgate.simulation.simulator import merged, simulate
from samgate.simulation.summary import Summary, summarise
from samgate.simulation.workload import Workload

Progress = Callable[[float], None]
"""Is told which share of all the work is done, 0 to 1."""


@dataclass(frozen=True, slots=True)
class Study:
    """What is simulated: a workload on a fleet, for each of ``policies`` at each of ``loads`` times its rate.

    ``rate`` and ``duration_s`` replace the workload's; ``jobs`` is how many processes share the work.
    """

    workload: Workload
    fleet: Fleet
    policies: tuple[str, ...] = ("samgate",)
    loads: tuple[float, ...] = (1.0,)
    seed: int = 0
    rate: float | None = None
    duration_s: float | None = None
    jobs: int = 1

    @property
    def base_rate(self) -> float:
        """Requests a second at load 1."""
        return self.workload.rate if self.rate is None else self.rate

    def run(self, policy: str, load: float, part: tuple[int, int] = (0, 1), progress: Progress | None = None) -> Run:
        """One simulation, or part of one. ``progress`` is told its share of this one."""
        end_s = self.workload.duration_s if self.duration_s is None else self.duration_s
        report = progress or (lambda share: None)
        return simulate(
            self.workload,
            self.fleet,
            Options(policy=POLICIES[policy]),
            self.seed,
            self.base_rate * load,
            duration_s=end_s,
            part=part,
            progress=lambda at_s: report(min(1.0, at_s / end_s)),
        )


def run_study(study: Study, progress: Progress = lambda share: None) -> list[Summary]:
    """All of ``study``'s simulations, by policy and then load, in the order asked for."""
    wanted = [(policy, load) for policy in study.policies for load in study.loads]
    if study.jobs <= 1:
        found = []
        for place, (policy, load) in enumerate(wanted):

            def report(share: float, place: int = place) -> None:
                progress((place + share) / len(wanted))

            found.append(summarise(study.run(policy, load, progress=report), load))
        progress(1.0)
        return found
    return _side_by_side(study, wanted, progress)


def _side_by_side(study: Study, wanted: Sequence[tuple[str, float]], progress: Progress) -> list[Summary]:
    # Gateways that are independent of each other are divided among processes, so that one large run gains, too.
    divisible = study.fleet.gateways >= study.jobs and study.fleet.balance != "least_loaded"
    parts = study.jobs if divisible else 1
    units = [(policy, load, part) for policy, load in wanted for part in range(parts)]
    results: dict[tuple[str, float], list[Run | None]] = {one: [None] * parts for one in wanted}
    summaries: dict[tuple[str, float], Summary] = {}
    with _processes(study.jobs) as pool:
        pending = {
            pool.submit(study.run, policy, load, (part, parts)): (policy, load, part) for policy, load, part in units
        }
        for count, future in enumerate(as_completed(pending), start=1):
            policy, load, part = pending.pop(future)
            mine = results[policy, load]
            mine[part] = future.result()
            whole = [run for run in mine if run is not None]
            if len(whole) == parts:
                # Outcomes are large: what is summarised is let go of.
                summaries[policy, load] = summarise(merged(whole), load)
                results[policy, load] = []
            progress(count / len(units))
    return [summaries[one] for one in wanted]


@contextmanager
def _processes(jobs: int) -> Iterator[ProcessPoolExecutor]:
    # Not forked: the process that asks may have threads, such as that of a progress bar.
    pool = ProcessPoolExecutor(jobs, mp_context=get_context("spawn"))
    try:
        yield pool
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
