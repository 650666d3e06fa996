"""Downloads of known files: resumed where they stopped, never trusted before their checksum is right.

The bytes gather in ``<sha256>.part``, so that a part can only ever continue the very file it began; what it grew
into is checked as a whole, and only then gets its name.
"""

from __future__ import annotations

import http.client
import logging
import os
import re
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any

from rich.progress import Progress, TaskID

from samgate.errors import WeightsError
from samgate.variants.spec import UrlSource
from samgate.weights.home import sha256_file

logger = logging.getLogger(__name__)

CONNECT_TIMEOUT_S = 10.0
READ_TIMEOUT_S = 30.0
TOTAL_TIMEOUT_S = 3600.0
MOST_BYTES = 8 * 2**30
"""Of a file whose size nobody published: three times the largest's."""
_ATTEMPTS = 5
_CHUNK = 1 << 18


def download(source: UrlSource, folder: Path, progress: Progress) -> Path:
    """The file of ``source`` as ``folder/<sha256>``, its checksum verified; at once when it is already there.

    A download that breaks off goes on where it stopped, in this call or the next. The caller must hold a lock
    that keeps other processes out of ``folder``.

    Raises:
        WeightsError: the server can't be reached, refuses, stalls, or sends something else than the file.
    """
    path, part = folder / source.sha256, folder / f"{source.sha256}.part"
    if path.is_file() and sha256_file(path) == source.sha256:
        return path
    file = _File(source.url, _length(source.url, part) if source.size is None else source.size)
    task = progress.add_task(source.url.rsplit("/", 1)[-1], total=file.size)
    try:
        resumed = _complete(file, part, progress, task)
        if sha256_file(part) != source.sha256 and resumed:
            logger.warning("%s: the resumed download has a wrong checksum; starting again from zero", source.url)
            part.unlink()
            _complete(file, part, progress, task)
        if (actual := sha256_file(part)) != source.sha256:
            part.unlink()
            raise WeightsError(f"wrong checksum: expected SHA-256 {source.sha256}, got {actual} (deleted)")
        os.replace(part, path)
    except OSError as error:
        raise WeightsError(f"{folder} can't be written: {error}") from error
    return path


class _BrokenOffError(Exception):
    """The connection could not be made or did not last; what has arrived is worth keeping."""


@dataclass(frozen=True, slots=True)
class _File:
    url: str
    size: int


class _Connection(http.client.HTTPConnection):
    """Gives up soon on a host that doesn't answer, but is patient with one that does."""

    def connect(self) -> None:
        self.timeout = CONNECT_TIMEOUT_S
        super().connect()
        self.sock.settimeout(READ_TIMEOUT_S)


class _SecureConnection(_Connection, http.client.HTTPSConnection):
    """:class:`_Connection` over TLS."""


class _HttpHandler(urllib.request.HTTPHandler):
    def http_open(self, req: urllib.request.Request) -> Any:
        return self.do_open(_Connection, req)


class _HttpsHandler(urllib.request.HTTPSHandler):
    def https_open(self, req: urllib.request.Request) -> Any:
        return self.do_open(_SecureConnection, req)


def _length(url: str, part: Path) -> int:
    """The size of a file of which only the checksum is known, as the server says."""
    try:
        with _open(url, part, 0) as response:
            kind, length = response.headers.get_content_type(), response.length
    except _BrokenOffError as error:
        raise WeightsError(str(error)) from error
    if length is None or kind == "text/html":
        raise WeightsError(f"the server sent {kind} without a size instead of the file")
    if length > MOST_BYTES:
        raise WeightsError(f"the server would send {length:,} bytes; the limit is {MOST_BYTES:,}")
    return length


def _complete(source: _File, part: Path, progress: Progress, task: TaskID) -> bool:
    """Grows ``part`` to the full size; True when its first bytes are from an earlier connection."""
    deadline = time.monotonic() + TOTAL_TIMEOUT_S
    had, attempts = _size(part), 0
    if had > source.size:
        part.unlink()
        had = 0
    resumed = had > 0
    while had < source.size:
        progress.update(task, completed=had)
        attempts, resumed = attempts + 1, had > 0
        try:
            _receive(source, part, had, deadline, progress, task)
        except _BrokenOffError as error:
            has = _size(part)
            # Without a new byte the host is out of reach, and another source may not be.
            if attempts == _ATTEMPTS or not (has > had or has == 0 < had) or time.monotonic() > deadline:
                kept = f"; {has:,} of {source.size:,} bytes are kept: pull again to go on from there" if has else ""
                raise WeightsError(f"{error}{kept}") from error
            logger.info("%s: %s; going on at byte %d", source.url, error, has)
        had = _size(part)
    progress.update(task, completed=had)
    return resumed


def _receive(source: _File, part: Path, offset: int, deadline: float, progress: Progress, task: TaskID) -> None:
    """One request: appends to ``part`` from ``offset`` on, or writes it anew when the server sends all of it."""
    with _open(source.url, part, offset) as response:
        at = _check(source, response, offset)
        with part.open("r+b" if at else "wb") as file:
            file.seek(at)
            while chunk := _read(response):
                at += len(chunk)
                if at > source.size:
                    part.unlink()
                    raise WeightsError(f"the server sent more than the {source.size:,} bytes of the file (deleted)")
                file.write(chunk)
                progress.update(task, completed=at)
                if time.monotonic() > deadline:
                    raise _BrokenOffError(f"not finished within {TOTAL_TIMEOUT_S:g} s")
    if at < source.size:
        raise _BrokenOffError(f"the connection ended after {at:,} of {source.size:,} bytes")


def _open(url: str, part: Path, offset: int) -> http.client.HTTPResponse:
    headers = {"User-Agent": "samgate", "Accept-Encoding": "identity"}
    if offset:
        headers["Range"] = f"bytes={offset}-"
    opener = urllib.request.build_opener(_HttpHandler, _HttpsHandler)
    try:
        response: http.client.HTTPResponse = opener.open(urllib.request.Request(url, headers=headers))
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and offset:
            part.unlink()
            raise _BrokenOffError("the server can't go on where the last download stopped") from error
        raise WeightsError(f"the server answered {error.code} {error.reason}") from error
    except urllib.error.URLError as error:
        reason = error.reason
        timeout = f"no connection within {CONNECT_TIMEOUT_S:g} s"
        raise _BrokenOffError(timeout if isinstance(reason, TimeoutError) else _describe(reason)) from error
    except (http.client.HTTPException, OSError) as error:
        raise _BrokenOffError(_describe(error)) from error
    return response


def _read(response: http.client.HTTPResponse) -> bytes:
    """What has arrived, at most a chunk."""
    try:
        return response.read1(_CHUNK)
    except (http.client.HTTPException, OSError) as error:
        raise _BrokenOffError(_describe(error)) from error


def _check(source: _File, response: http.client.HTTPResponse, offset: int) -> int:
    """The byte at which the answer starts; refuses one that can't be the file before anything is overwritten."""
    start = 0
    if response.status == HTTPStatus.PARTIAL_CONTENT:
        answered = response.headers.get("Content-Range", "")
        found = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", answered)
        if found is None or int(found[1]) != offset or found[2] not in ("*", str(source.size)):
            raise WeightsError(f"the server sent another range than asked for: {answered!r}")
        start = offset
    kind, length = response.headers.get_content_type(), response.length
    if (length is None and kind == "text/html") or (length is not None and start + length != source.size):
        amount = "" if length is None else f" of {start + length:,} bytes"
        raise WeightsError(f"the server sent {kind}{amount} instead of the file of {source.size:,} bytes")
    return start


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _describe(error: object) -> str:
    if isinstance(error, TimeoutError):
        return f"no data for {READ_TIMEOUT_S:g} s"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__
