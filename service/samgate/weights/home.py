"""samgate's cache folder, and the file operations that keep it whole when processes die or run side by side."""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import platformdirs

from samgate.errors import SamgateError, Unavailable, WeightsError

logger = logging.getLogger(__name__)

Folder = Literal["downloads", "weights", "detectors", "graphs", "blobs", "compiled", "profiles", "bench"]

_POLL_S = 0.1


def samgate_home() -> Path:
    """``$SAMGATE_HOME``, else samgate's folder in the platform's cache folder. May not exist yet."""
    chosen = os.environ.get("SAMGATE_HOME")
    return Path(chosen).expanduser().absolute() if chosen else platformdirs.user_cache_path("samgate")


def home_folder(name: Folder, *, create: bool = True) -> Path:
    """A sub-folder of :func:`samgate_home`, made when it isn't there.

    Raises:
        WeightsError: the folder can't be made.
    """
    path = samgate_home() / name
    if create:
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise WeightsError(
                f"{path} can't be made ({error.strerror}): set SAMGATE_HOME to a folder that can be written"
            ) from error
    return path


def sha256_file(path: Path) -> str:
    """SHA-256 of a file's content, in hexadecimal. Raises ``OSError``."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def atomic_write(path: Path, write: Callable[[Path], object]) -> None:
    """Makes ``path`` appear complete or not at all, whatever happens in between.

    ``write`` gets the path of an empty file next to ``path`` and fills it; its content is on the disk before it
    takes ``path``'s place. Raises what ``write`` raises, and ``OSError``; then ``path`` is as it was.
    """
    part = path.parent / f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp"
    try:
        with part.open("xb") as file:
            mode = os.fstat(file.fileno()).st_mode & 0o777
        write(part)
        # A writer that made the file anew may have chosen a private mode; a service often runs as another user
        # than the one that pulled.
        part.chmod(mode)
        _sync(part)
        os.replace(part, path)
        _sync(path.parent)
    finally:
        part.unlink(missing_ok=True)


def atomic_write_bytes(path: Path, content: bytes) -> None:
    """:func:`atomic_write` of ``content``. Raises ``OSError``."""
    atomic_write(path, lambda part: part.write_bytes(content))


def remove_leftovers(path: Path) -> None:
    """Removes what killed writers of ``path`` left behind. Only for who holds the lock all writers of it take."""
    for part in path.parent.glob(f".{path.name}.*.tmp"):
        part.unlink(missing_ok=True)


@contextmanager
def file_lock(path: Path, timeout_s: float, *, error: type[SamgateError] = Unavailable) -> Iterator[None]:
    """Holds an exclusive lock between processes (and threads); the operating system frees it when its holder dies.

    Args:
        path: the lock's own file, made with its folder; it stays behind, as removing it would let two holders in.
        timeout_s: seconds to wait for another holder.
        error: what to raise when the time is over.
    """
    deadline = time.monotonic() + timeout_s
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except OSError as failure:
        raise error(f"the lock {path} can't be opened ({failure.strerror})") from failure
    try:
        waiting = False
        while not _try_lock(handle):
            if time.monotonic() >= deadline:
                raise error(
                    f"another process has held {path} for {timeout_s:g} s: let it finish, or end it, then try again"
                )
            if not waiting:
                logger.info("waiting for another process to release %s", path)
                waiting = True
            time.sleep(_POLL_S)
        yield
    finally:
        os.close(handle)


def _try_lock(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
