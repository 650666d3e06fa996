"""Whom a load test may hit: this machine, or a target that was named on purpose. Pure."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

from samgate.errors import InvalidArgument, SamgateError

DEFAULT_TARGET = "127.0.0.1:50051"
TARGET_VARIABLE, ALLOW_VARIABLE, TOKEN_VARIABLE = "SAMGATE_TARGET", "SAMGATE_ALLOW_TARGET", "SAMGATE_TOKEN"
_UNIX = ("unix:", "unix-abstract:")
_MOST_PORT = 65535


@dataclass(frozen=True, slots=True)
class Files:
    """PEM files: the authorities that the server's certificate is checked with (empty: no TLS), and a client's own."""

    ca: str = ""
    certificate: str = ""
    key: str = ""


def is_local(target: str) -> bool:
    """Whether ``target`` can only be on this machine: a Unix socket, or a port of a loopback address."""
    if target.startswith(_UNIX):
        return True
    host, colon, port = target.rpartition(":")
    if not colon or not port.isascii() or not port.isdigit() or not 0 < int(port) <= _MOST_PORT:
        return False
    if host == "localhost":
        return True
    bracketed = host.startswith("[") and host.endswith("]")
    try:
        address = ip_address(host[1:-1] if bracketed else host)
    except ValueError:
        return False
    return address.is_loopback and bracketed == (address.version == 6)


def check_target(target: str, allowed: str) -> None:
    """Raises InvalidArgument unless ``target`` is on this machine or is ``allowed``, letter for letter."""
    if "://" in target.removeprefix("dns://"):
        raise InvalidArgument("host", f"is {target!r}; it must be HOST:PORT, without a scheme")
    if is_local(target) or (allowed and target == allowed):
        return
    named = f"; allowed is {allowed!r}" if allowed else ""
    raise InvalidArgument(
        "host",
        f"is {target!r}, which is not this machine{named}. A load test can take a service down: if that is meant, name "
        f"the target a second time, with --allow-target {target} or {ALLOW_VARIABLE}={target}",
    )


def check_token(target: str, token: str, files: Files) -> None:
    """Raises SamgateError where ``token`` would cross a network in plain text."""
    if token and not files.ca and not is_local(target):
        raise SamgateError(
            f"{TOKEN_VARIABLE} is set, and {target} is not this machine: a token must not cross a network unencrypted. "
            f"Name the server's certificate authority with --ca FILE, or unset {TOKEN_VARIABLE}"
        )


def read_files(files: Files) -> tuple[bytes, bytes | None, bytes | None]:
    """(authorities, certificate, key) of ``files``, which has authorities. Raises InvalidArgument, SamgateError."""
    if bool(files.certificate) != bool(files.key):
        raise InvalidArgument("cert", "and key go together: name both files, or neither")
    certificate = _read(files.certificate) if files.certificate else None
    return _read(files.ca), certificate, _read(files.key) if files.key else None


def token_from(environment: Mapping[str, str] = os.environ) -> str:
    """The bearer token; never an option, since options are logged, shown in the UI and sent to workers."""
    return environment.get(TOKEN_VARIABLE, "")


def _read(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise SamgateError(f"{path} can't be read: {error.strerror}") from error
