"""Leads a run, in Locust's master or in its only process: users say when they are ready, are told to begin all at once,
and send what became of their requests."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from locust.env import Environment
from locust.runners import LocalRunner, MasterRunner

from loadtest import report
from loadtest.figures import Sent, figures
from loadtest.health import Node
from loadtest.messages import ABORT, GO, OUTCOMES, PLAN, READY
from loadtest.options import Options, plan_from
from loadtest.plan import Plan, Source
from loadtest.targets import check_target
from samgate.errors import SamgateError

MET, MISSED, FAILED, INVALID = 0, 1, 2, 3
"""Exit statuses: the target's share was on time; it wasn't; there was no run; the generator was to blame."""

_READY_TIMEOUT_S = 300.0
"""Drawing images takes a second, embedding those of a catalogue half a minute."""
_GRACE_S = 15.0

_log = logging.getLogger("locust.samgate")


@dataclass(slots=True)
class _Run:
    plan: Plan
    users: int
    since: float
    ready: list[tuple[str, int, int]] = field(default_factory=list)
    """(process, the user's number in it, source)."""
    sent: list[Sent] = field(default_factory=list)
    nodes: list[Node] = field(default_factory=list)
    began: float | None = None
    longest_s: float = 0.0
    over: bool = False
    """Nobody stopped it."""


class Conductor:
    """One of a process that leads."""

    def __init__(self, environment: Environment, options: Options) -> None:
        self._environment, self._options = environment, options
        assert isinstance(environment.runner, LocalRunner | MasterRunner)
        self._runner = environment.runner
        self._run: _Run | None = None
        self._abort = ""
        self._runner.register_message(READY, self._on_ready)
        self._runner.register_message(OUTCOMES, self._on_outcomes)
        self._runner.register_message(ABORT, self._on_abort)
        environment.events.test_stop.add_listener(self._on_stop)

    def plan(self, sources: Sequence[Source]) -> Plan:
        """The run that options and UI ask for. Raises SamgateError."""
        check_target(str(self._environment.host), self._options.allow_target)
        return plan_from(self._options, sources)

    def tick(self, sources: Sequence[Source]) -> int | None:
        """How many users there should be now; None when the run is over, or can't begin, which is logged."""
        try:
            run = self._run = self._run or self._begun(sources)
            self._check(run)
        except SamgateError as error:
            _log.error("%s", error)
            self._run = None
            self._environment.process_exit_code = FAILED
            return None
        done = len(run.nodes) >= run.users
        overdue = run.began is not None and time.monotonic() > run.began + run.longest_s + _GRACE_S
        run.over = done or overdue
        return None if run.over else run.users

    def _check(self, run: _Run) -> None:
        if self._abort:
            raise SamgateError(self._abort)
        if run.began is None and time.monotonic() > run.since + _READY_TIMEOUT_S:
            raise SamgateError(f"{len(run.ready)} of {run.users} users were ready after {_READY_TIMEOUT_S:g} s")

    def _begun(self, sources: Sequence[Source]) -> _Run:
        plan, workers = self.plan(sources), self._runner.worker_count
        if not workers:
            raise SamgateError("there are no workers yet: start some, and then the test")
        self._abort = ""
        self._runner.send_message(PLAN, plan.message())
        return _Run(plan, workers * len(plan.sources), time.monotonic())

    def _on_ready(self, environment: Environment, msg: Any, **_: Any) -> None:  # noqa: ARG002 - Locust's arguments
        run = self._run
        if run is None or run.began is not None:
            return
        run.ready.append((str(msg.data["process"]), int(msg.data["user"]), int(msg.data["source"])))
        if len(run.ready) < run.users:
            return
        places: dict[int, int] = {}
        shares: dict[str, list[list[int]]] = {}
        for process, user, source in sorted(run.ready, key=lambda one: (self._index(one[0]), one[1])):
            place = places[source] = places.get(source, -1) + 1
            shares.setdefault(process, []).append([user, place])
        run.longest_s = run.plan.longest_s
        run.began = time.monotonic()
        for process, mine in shares.items():
            counts = {str(source): place + 1 for source, place in places.items()}
            self._runner.send_message(GO, {"shares": mine, "parts": counts}, process)
        _log.info("sending %.4g requests/s for %g s", sum(run.plan.rates), run.plan.duration)

    def _index(self, process: str) -> int:
        return int(self._runner.get_worker_index(process)) if isinstance(self._runner, MasterRunner) else 0

    def _on_outcomes(self, environment: Environment, msg: Any, **_: Any) -> None:  # noqa: ARG002
        if self._run is not None:
            self._run.sent += [Sent.read(row) for row in msg.data["sent"]]
            self._run.nodes += [Node(**node) for node in msg.data["nodes"]]

    def _on_abort(self, environment: Environment, msg: Any, **_: Any) -> None:  # noqa: ARG002
        self._abort = self._abort or str(msg.data["reason"])

    def _on_stop(self, environment: Environment, **_: Any) -> None:  # noqa: ARG002
        run, self._run = self._run, None
        if run is None or run.began is None:
            return
        end_s = None if run.over else time.monotonic() - run.began
        found = figures(run.plan, run.sent, run.nodes, run.users, end_s)
        found["target"] = str(self._environment.host)
        found["workers"] = self._runner.worker_count
        try:
            paths = report.write(Path(self._options.report), found)
        except SamgateError as error:
            _log.error("no report: %s", error)
            self._environment.process_exit_code = FAILED
            return
        report.show(found)
        _log.info("report: %s", ", ".join(map(str, paths)))
        self._environment.process_exit_code = INVALID if not found["valid"] else MET if found["met"] else MISSED
