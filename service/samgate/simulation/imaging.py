"""The threads that decode images and make masks."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from samgate.simulation.processor import Processor


class ImagingThreads:
    """Runs at most ``threads`` tasks at once on ``host``, first come first served."""

    def __init__(self, host: Processor, threads: int) -> None:
        self._host = host
        self._free = threads
        self._waiting: deque[tuple[float, Callable[[Any], None], Any, Callable[[], bool]]] = deque()

    def run(self, seconds: float, done: Callable[[Any], None], load: Any, wanted: Callable[[], bool]) -> None:
        """A task that takes ``seconds`` alone; ``done(load)`` when it has ended. One that isn't ``wanted`` any more
        when its turn comes isn't run."""
        self._waiting.append((seconds, done, load, wanted))
        self._begin()

    def _begin(self) -> None:
        while self._free and self._waiting:
            seconds, done, load, wanted = self._waiting.popleft()
            if wanted():
                self._free -= 1
                self._host.start("imaging", seconds, self._ended, (done, load))

    def _ended(self, task: tuple[Callable[[Any], None], Any]) -> None:
        self._free += 1
        done, load = task
        done(load)
        self._begin()
