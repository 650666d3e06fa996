"""Servers behind a name: all of its addresses, looked up again and again, for a headless service of Kubernetes."""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Callable, Sequence, Set

from samgate.errors import InvalidArgument, SamgateError, Unavailable
from samgate.logs import log

logger = logging.getLogger("samgate.triton")

NAME = "dns:///"
_POLL_S = 0.5


def endpoints(text: str) -> list[str]:
    """The addresses and names in ``text``, each once.

    Raises InvalidArgument when there is none, or one is neither host:port nor dns:///NAME:PORT.
    """
    urls = list(dict.fromkeys(url.strip() for url in text.split(",") if url.strip()))
    for url in urls:
        host, _, port = url.removeprefix(NAME).rpartition(":")
        if not host or not port.isdigit() or not 0 < int(port) < 65536 or "/" in host:
            raise InvalidArgument(
                "triton.endpoints", f"{url!r} is neither host:port of a gRPC service nor {NAME}NAME:PORT of several"
            )
    if not urls:
        raise InvalidArgument("triton.endpoints", "names no server")
    return urls


def look_up(urls: Sequence[str]) -> list[str]:
    """``urls`` with all addresses of a name in its place, each once. Blocks. Raises OSError for a name without any."""
    found: list[str] = []
    for url in urls:
        if not url.startswith(NAME):
            found.append(url)
            continue
        host, _, port = url.removeprefix(NAME).rpartition(":")
        infos = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM)
        addresses = sorted({str(info[4][0]) for info in infos})
        found += [f"[{address}]:{port}" if ":" in address else f"{address}:{port}" for address in addresses]
    return list(dict.fromkeys(found))


def look_up_first(urls: Sequence[str], timeout_s: float, report: Callable[[str], None]) -> list[str]:
    """As :func:`look_up`, waiting for names to have addresses. Raises Unavailable when they have none in time."""
    until = time.monotonic() + timeout_s
    while True:
        try:
            return look_up(urls)
        except OSError as error:
            if time.monotonic() >= until:
                raise Unavailable(f"no address for {', '.join(urls)} after {timeout_s:g} s: {error}") from error
            report(f"waiting for an address of {', '.join(urls)}")
        time.sleep(_POLL_S)


class Directory:
    """Which servers of ``urls`` there are at present, of those that ``check`` finds fit.

    Args:
        check: asks a server that has turned up, and raises SamgateError for one that can't be used. Blocks.
    """

    def __init__(self, urls: Sequence[str], check: Callable[[str], None]) -> None:
        self._urls, self._check = tuple(urls), check
        self.moves = any(url.startswith(NAME) for url in urls)
        """Whether there is anything to look up again."""

    def now(self, known: Set[str]) -> list[str]:
        """Their addresses; none when they can't be told, which says nothing of the servers. Those in ``known`` aren't
        checked again. Blocks."""
        try:
            urls = look_up(self._urls)
        except OSError as error:
            log(logger, logging.WARNING, "triton addresses not found", names=", ".join(self._urls), error=str(error))
            return []
        return [url for url in urls if url in known or self._fits(url)]

    def _fits(self, url: str) -> bool:
        try:
            self._check(url)
        except SamgateError as error:
            log(logger, logging.WARNING, "triton server not used", server=url, error=str(error))
            return False
        return True
