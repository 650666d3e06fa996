"""Runs a workload against a fleet in virtual time, with the scheduler that serves real requests making all decisions.

Each gateway has a :class:`~samgate.scheduling.core.Scheduler` of its own and mirrors the serving code: admit, prepare
the image on an imaging thread, encode (once an image and point, however many wait for it), decode in pieces, make masks
on an imaging thread, answer. What calls really take is up to :class:`~samgate.simulation.processor.Processor`.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from random import Random

from samgate.scheduling.core import Options
from samgate.scheduling.request import Refusal
from samgate.simulation.arrival import Arrival
from samgate.simulation.fleet import Balance, Fleet, Trouble
from samgate.simulation.flow import Flow
from samgate.simulation.gateway import Gateway, Watch
from samgate.simulation.loop import Loop
from samgate.simulation.outcome import End, Outcome, Run
from samgate.simulation.workload import Workload, arrivals

_LEAST_RETRY_S = 0.001


def simulate(
    workload: Workload,
    fleet: Fleet,
    options: Options | None = None,
    seed: int = 0,
    rate: float | None = None,
    *,
    duration_s: float | None = None,
    part: tuple[int, int] = (0, 1),
    progress: Callable[[float], None] = lambda at_s: None,
    watch: Watch | None = None,
) -> Run:
    """What becomes of ``workload``'s requests, at ``rate`` a second (default: its own). Same arguments, same result.

    ``part`` ``(k, n)`` simulates every n-th gateway from the k-th on, which is the whole for ``(0, 1)``: parts are
    independent of each other unless the balance is ``least_loaded``, and :func:`merged` makes them one. ``progress``
    is told the virtual time now and then, ``watch`` sees all of the schedulers' steps.
    """
    options = options or Options()
    end_s = workload.duration_s if duration_s is None else duration_s
    run = Run(options.policy.name, workload.rate if rate is None else rate, workload.warmup_s, end_s)
    simulation = _Simulation(workload, fleet, options, seed, run, part, watch)
    with _rare_collections():
        simulation.feed(arrivals(workload, seed, rate, end_s), progress)
    return simulation.result()


def merged(runs: list[Run]) -> Run:
    """Parts of one simulation as the whole. Outcomes are in the order of arrivals."""
    first = runs[0]
    whole = Run(first.policy, first.rate, first.warmup_s, first.duration_s)
    whole.outcomes = sorted((one for run in runs for one in run.outcomes), key=lambda one: one.arrival.at_s)
    weights = [run.devices for run in runs]
    whole.devices = sum(weights)
    whole.utilisation = sum(run.utilisation * run.devices for run in runs) / max(1, whole.devices)
    return whole


@contextmanager
def _rare_collections() -> Iterator[None]:
    """Look for reference cycles less often: a quarter of the time goes into it else, for some MB less memory."""
    before = gc.get_threshold()
    gc.set_threshold(100_000, 50, 50)
    try:
        yield
    finally:
        gc.set_threshold(*before)


class _Simulation:
    def __init__(
        self,
        workload: Workload,
        fleet: Fleet,
        options: Options,
        seed: int,
        run: Run,
        part: tuple[int, int],
        watch: Watch | None,
    ) -> None:
        self._run, self._retries = run, workload.retries
        self._loop = Loop()
        self._flows: list[tuple[int, Outcome]] = []
        mine = range(part[0], fleet.gateways, part[1])
        self._gateways: dict[int, Gateway] = {}
        for place in mine:
            self._gateways[place] = Gateway(
                self._loop,
                fleet.devices,
                options,
                self._done,
                Random(f"{fleet.noise_seed} {seed} {place}"),
                embeddings=fleet.embeddings,
                threads=fleet.threads,
                weight=fleet.weight,
                request_s=fleet.request_s,
                crowding=fleet.crowding,
                watch=watch,
            )
            for processor in self._gateways[place].processors.values():
                processor.busy_from, processor.busy_to = run.warmup_s, run.duration_s
        self._balancer = Balancer(fleet.balance, fleet.gateways, Random(f"{seed} balance"))
        for trouble in fleet.troubles:
            if trouble.gateway in self._gateways:
                self._loop.at(trouble.from_s, self._begin_trouble, trouble)
                self._loop.at(trouble.to_s, self._end_trouble, trouble)

    def feed(self, stream: Iterator[Arrival], progress: Callable[[float], None]) -> None:
        """Let the requests of ``stream`` arrive, and run until all have ended."""
        loop = self._loop
        numbered = enumerate(stream)

        def arrive(flow: Flow | None) -> None:
            if flow is not None:
                self._admit(flow)
            for number, arrival in numbered:
                gateway = self._balancer.choose(arrival.image)
                if gateway in self._gateways:
                    self._balancer.begin(gateway)
                    loop.at(arrival.at_s, arrive, Flow(arrival, gateway, number))
                    if number % 256 == 0:
                        progress(loop.now)
                    return

        arrive(None)
        loop.run()

    def result(self) -> Run:
        """Everything that happened."""
        self._flows.sort(key=lambda entry: entry[0])
        self._run.outcomes = [outcome for _, outcome in self._flows]
        busy = [one.busy_s for gateway in self._gateways.values() for one in gateway.processors.values()]
        self._run.devices = len(busy)
        self._run.utilisation = sum(busy) / max(1, len(busy)) / (self._run.duration_s - self._run.warmup_s)
        return self._run

    def _admit(self, flow: Flow, *, again: bool = False) -> None:
        """``again``: it was admitted before, to a device that failed."""
        refusal = self._gateways[flow.gateway].arrive(flow)
        if refusal is None:
            return
        now = self._loop.now
        if again:
            self._done(flow, flow.outcome(End.LOST, now, refusal.reason.value))
            return
        retry_at = _retry_at(refusal, now)
        if retry_at is not None and flow.attempts <= self._retries and retry_at < flow.deadline:
            flow.attempts += 1
            self._loop.at(retry_at, self._admit, flow)
        else:
            self._done(flow, flow.outcome(End.REFUSED, now, refusal.reason.value))

    def _done(self, flow: Flow, outcome: Outcome) -> None:
        self._balancer.end(flow.gateway)
        self._flows.append((flow.number, outcome))

    def _begin_trouble(self, trouble: Trouble) -> None:
        gateway, name = self._gateways[trouble.gateway], f"device{trouble.device}"
        if trouble.factor is not None:
            gateway.processors[name].slow(trouble.factor)
            return
        for flow in gateway.fail(name):
            self._admit(flow, again=True)

    def _end_trouble(self, trouble: Trouble) -> None:
        gateway, name = self._gateways[trouble.gateway], f"device{trouble.device}"
        if trouble.factor is not None:
            gateway.processors[name].slow(1.0)
        else:
            gateway.recover(name)


class Balancer:
    """Chooses gateways for requests, as a load balancer in front of them does."""

    def __init__(self, balance: Balance, gateways: int, random: Random) -> None:
        self._balance, self._gateways, self._random = balance, gateways, random
        self._count = 0
        self._open = [0] * gateways

    def choose(self, image: int) -> int:
        """The gateway for a request about ``image``."""
        if self._balance == "random":
            return self._random.randrange(self._gateways)
        if self._balance == "hash":
            # Knuth's multiplicative hash: neighbours go far apart.
            return (image * 2654435761 & 0xFFFFFFFF) * self._gateways >> 32
        self._count += 1
        if self._balance == "round_robin":
            return self._count % self._gateways
        # Among equals the next in turn.
        first = self._count % self._gateways
        order = self._open[first:] + self._open[:first]
        return (first + order.index(min(order))) % self._gateways

    def begin(self, gateway: int) -> None:
        """A request is on its way to ``gateway``."""
        self._open[gateway] += 1

    def end(self, gateway: int) -> None:
        """It has ended."""
        self._open[gateway] -= 1


def _retry_at(refusal: Refusal, now: float) -> float | None:
    """When a client tries again; None if that makes no sense."""
    return None if refusal.retry_after_s is None else now + max(refusal.retry_after_s, _LEAST_RETRY_S)
