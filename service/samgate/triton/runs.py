"""One run of the server: a folder, a token, and the certainty that nothing outlives it.

The token is in the command line of every process and in the name of every shared-memory region of the run, so all of
them can be found again, also by somebody else: whoever starts a run holds its lock, which the operating system frees
when the holder dies, however it dies. The next run on this machine then clears up after the dead one.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from samgate.triton.errors import TritonError
from samgate.triton.install import triton_home
from samgate.weights.home import file_lock

SHARED_MEMORY = Path("/dev/shm")
_SERVER, _STUB = "tritonserver", "triton_python_backend_stub"
_PREFIX = "samgate-triton-"
_POLL_S = 0.02
_KILL_TIMEOUT_S = 10.0
_LOCK_TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True)
class Process:
    """One process of a run, and the model that it runs; the server itself runs none."""

    pid: int
    model: str | None


@dataclass(frozen=True, slots=True)
class Run:
    """``token`` is in every command line and region of the run; ``folder`` is its own, and gone afterwards."""

    token: str
    folder: Path

    @property
    def log(self) -> Path:
        """What the server writes to its standard output and error."""
        return self.folder / "server.log"

    @property
    def models(self) -> Path:
        """A place for a repository of this run."""
        return self.folder / "models"

    def processes(self) -> list[Process]:
        """What lives of the run."""
        return [
            Process(pid, _model(arguments) if program == _STUB else None)
            for pid, program, arguments in _commands()
            if program in (_SERVER, _STUB) and any(self.token in argument for argument in arguments)
        ]

    def regions(self) -> list[Path]:
        """The run's shared-memory regions."""
        return sorted(SHARED_MEMORY.glob(f"*{self.token}*"))

    def clear(self) -> None:
        """Kill what is left of the run's processes and remove its regions. Nothing happens to processes of others."""
        deadline = time.monotonic() + _KILL_TIMEOUT_S
        while left := self.processes():
            for process in left:
                with suppress(ProcessLookupError):
                    os.kill(process.pid, signal.SIGKILL)
            if time.monotonic() > deadline:
                break
            time.sleep(_POLL_S)
        for region in self.regions():
            region.unlink(missing_ok=True)


@contextmanager
def new_run() -> Iterator[Run]:
    """A run with its folder, for the time of the block. Clears up after runs whose holders have died."""
    runs = triton_home() / "run"
    runs.mkdir(exist_ok=True)
    run = Run(token := _PREFIX + secrets.token_hex(4), runs / token)
    # Nobody sweeps between a lock's file and its lock.
    with file_lock(runs / "sweep.lock", _LOCK_TIMEOUT_S, error=TritonError):
        _sweep(runs)
        run.folder.mkdir(mode=0o700)
        lock = os.open(_lock(run), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(lock, fcntl.LOCK_EX)
    try:
        yield run
    finally:
        _remove(run)
        os.close(lock)


def _sweep(runs: Path) -> None:
    for lock in runs.glob(f"{_PREFIX}*.lock"):
        run = Run(lock.stem, lock.with_suffix(""))
        with suppress(OSError):
            handle = os.open(lock, os.O_RDWR | os.O_CLOEXEC)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                _remove(run)
            finally:
                os.close(handle)


def _lock(run: Run) -> Path:
    return run.folder.with_name(f"{run.token}.lock")


def _remove(run: Run) -> None:
    run.clear()
    shutil.rmtree(run.folder, ignore_errors=True)
    _lock(run).unlink(missing_ok=True)


def _model(arguments: list[str]) -> str:
    """The model of a backend's process, which begins its arguments with …/MODEL/VERSION/model.py."""
    return Path(arguments[0]).parent.parent.name


def _commands() -> Iterator[tuple[int, str, list[str]]]:
    """Id, program and arguments of every living process that may be read."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):  # it has ended since, or is somebody else's
                path, *arguments = (entry / "cmdline").read_text(errors="replace").split("\0")
                yield int(entry.name), Path(path).name, arguments
