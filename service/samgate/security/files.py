"""Files that are replaced under a running server: certificates, keys, lists of clients."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Generic, TypeVar

from samgate.logs import log

logger = logging.getLogger("samgate.security")

T = TypeVar("T")

_LOOK_EVERY_S = 1.0
_Signature = tuple[tuple[int, int, int], ...]


class WatchedFiles(Generic[T]):
    """What ``read`` makes of the files at ``paths``, again when one has changed.

    Files that can't be read, or not be used, are reported, and what was read before stays in force: half a rotation
    must not take a server down. Safe to share between threads.

    Args:
        name: of what the files are, for the log.
        read: the bytes of each file → a value; raises for what can't be used.

    Raises what ``read`` raises, at the beginning.
    """

    def __init__(
        self,
        name: str,
        paths: Sequence[Path],
        read: Callable[[Sequence[bytes]], T],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._name, self._paths, self._read, self._clock = name, tuple(paths), read, clock
        self._lock = threading.Lock()
        self._seen = self._signature()
        self._value = read([path.read_bytes() for path in self._paths])
        self._looked = clock()

    def current(self) -> T:
        """The value of the files as they are, or as they last made sense."""
        with self._lock:
            now = self._clock()
            if now - self._looked >= _LOOK_EVERY_S:
                self._looked = now
                self._look()
            return self._value

    def _look(self) -> None:
        try:
            signature = self._signature()
            if signature == self._seen:
                return
            value = self._read([path.read_bytes() for path in self._paths])
        except Exception as error:  # whatever is wrong with a new file must not end the calls that look at it
            log(logger, logging.ERROR, f"{self._name} not reloaded: what was there before is used", error=str(error))
            return
        # Only what was used counts as seen: a key that arrives a moment after its certificate makes it whole.
        self._seen, self._value = signature, value
        log(logger, logging.INFO, f"{self._name} reloaded")

    def _signature(self) -> _Signature:
        """Changes with the files. Follows links: Kubernetes replaces mounted secrets by turning one round."""
        found = (path.stat() for path in self._paths)
        return tuple((stat.st_ino, stat.st_mtime_ns, stat.st_size) for stat in found)
