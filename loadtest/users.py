"""Locust's users, its load shape and its events: the edge where Locust begins."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

from grpc.experimental.gevent import init_gevent
from locust import LoadTestShape, User, events, task
from locust.env import Environment
from locust.exception import StopUser
from locust.runners import MasterRunner, WorkerRunner

from loadtest.conductor import FAILED, Conductor
from loadtest.options import add_options
from loadtest.plan import Source
from loadtest.player import Player
from loadtest.targets import DEFAULT_TARGET, TARGET_VARIABLE
from samgate.errors import SamgateError

_WORKLOADS = Path(__file__).parent / "workloads"


class Share(User):
    """A share of a workload's arrivals. Locust's users as a rule wait for an answer before they go on; this one sends
    when requests are due, so that one a process is enough."""

    abstract = True
    workload: ClassVar[str]
    prime: ClassVar[bool] = False
    _play: Callable[[], None] | None = None

    def on_start(self) -> None:
        """Get ready."""
        player = _players[self.environment]
        try:
            self._play = player.prepare(type(self).__name__)
        except SamgateError as error:
            player.abort(str(error))

    @task
    def play(self) -> None:
        """Send all of it."""
        if self._play is not None:
            self._play()
        raise StopUser

    @classmethod
    def source(cls) -> Source:
        """For the plan."""
        return Source(cls.__name__, str(_WORKLOADS / f"{cls.workload}.yaml"), cls.prime)


class SegAnyWarm(Share):
    """Clicks on images whose embeddings the server holds."""

    workload = "warm"
    prime = True


class SegAnyCold(Share):
    """Every request brings an image that nobody has seen."""

    workload = "cold"


class SegEvery(Share):
    """Whole images, as bulk work."""

    workload = "segevery"


class Mixed(Share):
    """Clicks, boxes and whole images at once, each with deadlines of its own."""

    workload = "mixed"


class OpenLoop(LoadTestShape):
    """One user of each class in every process until the last answer; how the rate moves is the plan's."""

    def tick(self) -> tuple[int, float] | None:
        """See LoadTestShape."""
        assert self.runner is not None
        environment = self.runner.environment
        users = _conductors[environment].tick(_sources(environment))
        return None if users is None else (users, float(users))


_conductors: dict[Environment, Conductor] = {}
_players: dict[Environment, Player] = {}


def _sources(environment: Environment) -> list[Source]:
    return [one.source() for one in environment.user_classes if issubclass(one, Share)]


def _on_parser(parser: Any, **_: Any) -> None:
    add_options(parser)
    # Neither the UI nor the port for workers asks who comes.
    parser.set_defaults(web_host="127.0.0.1", master_bind_host="127.0.0.1")


def _on_init(environment: Environment, **_: Any) -> None:
    options: Any = environment.parsed_options
    environment.host = environment.host or os.environ.get(TARGET_VARIABLE) or DEFAULT_TARGET
    runner = environment.runner
    if not isinstance(runner, MasterRunner):
        # After Locust has forked its workers, and before the first channel.
        init_gevent()
        _players[environment] = Player(environment, options)
    if isinstance(runner, WorkerRunner):
        return
    if not options.user_classes and not options.class_picker:
        environment.user_classes[:] = [Mixed]
    _conductors[environment] = conductor = Conductor(environment, options)
    if options.headless:
        try:
            conductor.plan(_sources(environment))
        except SamgateError as error:
            print(f"loadtest: {error}", file=sys.stderr)
            sys.exit(FAILED)


events.init_command_line_parser.add_listener(_on_parser)
events.init.add_listener(_on_init)
