"""How commands reach a server: flags for TLS, and the token that the environment has."""

from __future__ import annotations

import argparse
import os
from dataclasses import dataclass
from pathlib import Path

import grpc

from samgate.client import Client
from samgate.errors import SamgateError

TOKEN = "SAMGATE_TOKEN"
"""Environment variable of the bearer token: flags can be seen by everybody on a machine."""


@dataclass(frozen=True, slots=True)
class Access:
    """How to get in: credentials for TLS (None without), and a bearer token (None without)."""

    credentials: grpc.ChannelCredentials | None = None
    token: str | None = None

    def client(self, target: str, timeout_s: float | None = None) -> Client:
        """A client of the server at ``target``. Raises InvalidArgument for a token that would be sent in the clear."""
        return Client(target, timeout_s=timeout_s, credentials=self.credentials, token=self.token)


def add_flags(parser: argparse.ArgumentParser) -> None:
    """``--ca``, ``--cert`` and ``--key``."""
    group = parser.add_argument_group(
        "reaching the server", f"a bearer token is taken from the environment variable {TOKEN}"
    )
    group.add_argument("--ca", metavar="FILE", type=Path, help="connect by TLS and believe these roots (PEM)")
    group.add_argument("--cert", metavar="FILE", type=Path, help="client certificate (PEM), with --key")
    group.add_argument("--key", metavar="FILE", type=Path, help="its key (PEM)")


def access(options: argparse.Namespace) -> Access:
    """What ``options`` and the environment say. Raises SamgateError for files that can't be read."""
    if options.server is None:
        if options.ca or options.cert or options.key:
            raise SamgateError("--ca, --cert and --key are for a --server")
        return Access()
    token = os.environ.get(TOKEN) or None
    if options.ca is None:
        if options.cert or options.key:
            raise SamgateError("--cert and --key are for TLS: say with --ca which roots to believe")
        return Access(token=token)
    if bool(options.cert) != bool(options.key):
        raise SamgateError("--cert and --key go together")
    key, chain = (_read(options.key), _read(options.cert)) if options.cert else (None, None)
    return Access(grpc.ssl_channel_credentials(_read(options.ca), key, chain), token)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise SamgateError(f"{path} can't be read: {error.strerror}") from error
