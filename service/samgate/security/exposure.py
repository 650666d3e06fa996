"""Whether a server may be reached from where it listens. Pure."""

from __future__ import annotations

import ipaddress

from samgate.config import Settings
from samgate.errors import InvalidArgument


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches ``host``: a loopback address, ``localhost`` or a Unix socket."""
    if host == "localhost" or host.startswith("unix:"):
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def asks_who_calls(settings: Settings) -> bool:
    """Whether callers have to say who they are."""
    return bool(settings.auth.clients or settings.auth.jwt_keys or settings.tls.client_ca)


def check_exposure(settings: Settings) -> str | None:
    """Raises InvalidArgument for a server beyond loopback that doesn't ask who calls and wasn't told that this is
    meant; a warning for one where anybody on the way can read along, None where all is well."""
    if is_loopback(settings.host):
        return None
    if not asks_who_calls(settings) and not settings.auth.anonymous:
        raise InvalidArgument(
            "host",
            f"{settings.host} can be reached from other machines, and nobody is asked who they are: set auth.clients, "
            "auth.jwt_keys or tls.client_ca (docs/security.md), or say with --anonymous that this is meant",
        )
    if not settings.tls.certificate:
        return f"gRPC on {settings.host} is not encrypted: images, masks and tokens can be read on the way"
    return None
