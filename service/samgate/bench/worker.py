"""A process that answers one JSON line with another: what is measured runs apart from what measures."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from samgate.bench.errors import BenchmarkError

_STOP_TIMEOUT_S = 30.0
_TAIL_LINES = 12


class Worker:
    """A running worker; ``ready`` is the line that it wrote when it was."""

    def __init__(self, process: subprocess.Popen[str], log: Path) -> None:
        self._process, self._log = process, log
        self.ready = self._read()

    def ask(self, **request: Any) -> dict[str, Any]:
        """The answer to ``request``. Raises :class:`BenchmarkError` with the end of the worker's log if it died."""
        if self._process.stdin is None:
            raise BenchmarkError("the worker takes no requests")
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise self._failed() from None
        return self._read()

    def _read(self) -> dict[str, Any]:
        line = self._process.stdout.readline() if self._process.stdout is not None else ""
        if not line:
            raise self._failed()
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _failed(self) -> BenchmarkError:
        command = " ".join(map(str, self._process.args)) if isinstance(self._process.args, list) else "a process"
        return BenchmarkError(f"`{command}` has ended too early:\n{tail(self._log)}".rstrip())


@contextmanager
def working(command: Sequence[str], log: Path, environment: Mapping[str, str], folder: Path) -> Iterator[Worker]:
    """Runs ``command`` for the block, in ``folder``; what it writes to standard error goes to ``log``."""
    with log.open("w", encoding="utf-8") as errors:
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            env=dict(environment),
            cwd=folder,
            text=True,
        )
    with process:
        try:
            yield Worker(process, log)
        finally:
            if process.stdin is not None:
                process.stdin.close()
            try:
                process.wait(_STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                process.kill()


def tail(log: Path) -> str:
    """The last lines of a log."""
    return "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-_TAIL_LINES:])
