"""Plays a part in a run: in each of Locust's workers, or in its only process."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict
from itertools import count
from pathlib import Path
from typing import Any

import gevent
from gevent.event import Event
from locust.env import Environment
from locust.runners import LocalRunner, WorkerRunner

from loadtest.calls import Caller, open_channel
from loadtest.figures import Sent
from loadtest.messages import ABORT, GO, OUTCOMES, PLAN, READY
from loadtest.options import Options, files_from
from loadtest.pacing import Watch, send
from loadtest.plan import Plan, read_plan
from loadtest.targets import token_from
from samgate.bench.images import size, unique_jpegs
from samgate.errors import SamgateError
from samgate.load.requests import Photo
from samgate.simulation.arrival import Arrival
from samgate.simulation.outcome import End, Outcome

_PHOTOS = 32
_FLUSH_S = 1.0
_MOST_ROWS = 5000
_GO_TIMEOUT_S = 600.0


class Missed(Exception):
    """What Locust's own statistics count as a failure."""


class Player:
    """One of a process that sends. A user of it gets ready, waits for the others, sends its share, and is told off."""

    def __init__(self, environment: Environment, options: Options) -> None:
        self._environment, self._options = environment, options
        assert isinstance(environment.runner, LocalRunner | WorkerRunner)
        self._runner = environment.runner
        self._users = count()
        self._plan: Plan | None = None
        self._photos: list[Photo] = []
        self._go = Event()
        self._shares: dict[int, int] = {}
        self._parts: dict[int, int] = {}
        self._runner.register_message(PLAN, self._on_plan)
        self._runner.register_message(GO, self._on_go)

    def prepare(self, user_class: str) -> Callable[[], None]:
        """Get a user of that class ready; returns what sends its share, once everybody is. Raises SamgateError."""
        began = time.perf_counter()
        if self._plan is None:
            raise SamgateError("no run was announced: start it with the shape OpenLoop")
        plan = self._plan
        source = next(place for place, one in enumerate(plan.sources) if one.user == user_class)
        target, allowed, token = str(self._environment.host), self._options.allow_target, token_from()
        files = files_from(self._options)
        if not self._photos:
            self._photos = _draw(plan)
        caller = Caller(plan, source, self._photos, lambda: open_channel(target, allowed, token, files), token)
        try:
            points = caller.reach()
            if plan.sources[source].prime:
                caller.prime(points)
        except BaseException:
            # Locust kills users that are to stop.
            caller.close()
            raise
        user, ready_s = next(self._users), time.perf_counter() - began

        def play() -> None:
            try:
                self._play(plan, source, user, caller, ready_s)
            finally:
                # Else the process hangs at its end.
                caller.close()

        return play

    def abort(self, reason: str) -> None:
        """Have the run stopped."""
        self._runner.send_message(ABORT, {"reason": reason})

    def _play(self, plan: Plan, source: int, user: int, caller: Caller, ready_s: float) -> None:
        process = self._runner.client_id
        self._runner.send_message(READY, {"process": process, "user": user, "source": source})
        if not self._go.wait(_GO_TIMEOUT_S):
            return
        part, parts = self._shares[user], self._parts[source]
        outbox: list[Sent] = []

        def tell(number: int, outcome: Outcome, lag_s: float | None) -> None:
            outbox.append(Sent.of(source, number, lag_s, outcome))
            self._count(plan.tier(source, outcome.arrival), outcome)

        def flush(*nodes: dict[str, Any]) -> None:
            while outbox or nodes:
                rows, outbox[:_MOST_ROWS] = outbox[:_MOST_ROWS], []
                told, nodes = () if outbox else nodes, nodes if outbox else ()
                sent = [list(asdict(row).values()) for row in rows]
                self._runner.send_message(OUTCOMES, {"sent": sent, "nodes": list(told)})

        def flush_often() -> None:
            while True:
                gevent.sleep(_FLUSH_S)
                flush()

        flushing = gevent.spawn(flush_often)
        watch = Watch(f"{process} {user}", ready_s)
        try:
            send(plan.arrivals(source, part, parts), caller.ask, tell, plan.in_flight)
        finally:
            flushing.kill()
            flush(asdict(watch.end()))

    def _count(self, tier: str, outcome: Outcome) -> None:
        """For Locust's own statistics and UI."""
        arrival: Arrival = outcome.arrival
        good = outcome.end is End.ON_TIME
        self._environment.events.request.fire(
            request_type="SegmentEverything" if arrival.everything else "Segment",
            name=tier,
            response_time=1e3 * (outcome.ended_s - arrival.at_s),
            response_length=0,
            exception=None if good else Missed(f"{outcome.end.value}: {outcome.reason}".removesuffix(": ")),
            context={},
        )

    def _on_plan(self, environment: Environment, msg: Any, **_: Any) -> None:  # noqa: ARG002 - Locust's arguments
        self._go.clear()
        self._photos = []
        try:
            self._plan = read_plan(msg.data)
        except SamgateError as error:
            self.abort(str(error))

    def _on_go(self, environment: Environment, msg: Any, **_: Any) -> None:  # noqa: ARG002
        self._shares = {int(user): int(part) for user, part in msg.data["shares"]}
        self._parts = {int(source): int(parts) for source, parts in msg.data["parts"].items()}
        self._go.set()


def _draw(plan: Plan) -> list[Photo]:
    # The same in every process: an image that one embeds, another may click on.
    folder = Path(plan.images) if plan.images else None
    jpegs = unique_jpegs(folder, _PHOTOS, plan.seed)
    return [Photo(data, (width, height)) for data in jpegs for height, width in [size(data)]]
