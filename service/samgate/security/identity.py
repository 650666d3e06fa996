"""Who calls: by bearer token, JSON Web Token or client certificate."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from samgate.config import Settings
from samgate.errors import PermissionDenied, Unauthenticated
from samgate.security import jwt_tokens
from samgate.security.clients import RPCS, Client, Clients, read_clients
from samgate.security.exposure import asks_who_calls
from samgate.security.files import WatchedFiles
from samgate.security.tokens import matches, token_id

HEADER = "authorization"
_SCHEME = "bearer "
_MAX_TOKEN = 8 * 1024
_HOW = "send 'authorization: Bearer TOKEN' (`samgate token create` makes tokens)"


class Identities:
    """Tells who calls, by ``settings``; None where nobody is asked to say. For one event loop.

    Raises InvalidArgument and OSError for files that can't be used.
    """

    def __init__(
        self, settings: Settings, today: Callable[[], dt.date] = lambda: dt.datetime.now(dt.UTC).date()
    ) -> None:
        auth, self._today = settings.auth, today
        self._clients: WatchedFiles[Clients] | None = None
        self._keys: WatchedFiles[jwt_tokens.Keys] | None = None
        self._issuer, self._audience = auth.jwt_issuer, auth.jwt_audience
        self.asked = asks_who_calls(settings)
        """Whether callers have to say who they are."""
        self._own_weights = settings.scheduling.weight_of
        if auth.clients:
            self._clients = WatchedFiles("file of clients", [Path(auth.clients)], lambda files: read_clients(*files))
        if auth.jwt_keys:
            self._keys = WatchedFiles("keys of JSON Web Tokens", [Path(auth.jwt_keys)], jwt_tokens.read_keys)

    def weight(self, name: str) -> float:
        """The fair share of the client called ``name``: the file's, else the setting's, else 1."""
        weights: Mapping[str, float] = self._clients.current().weights if self._clients else {}
        return weights.get(name, self._own_weights.get(name, 1.0))

    def who(self, authorization: str | None, certificate: Sequence[str]) -> Client | None:
        """Who presents ``authorization`` (the header's value) over a connection whose client certificate has these
        names, the most telling first.

        Raises Unauthenticated, for a token that is wrong even where a certificate would do.
        """
        if not self.asked:
            return None
        client = self._by_header(authorization) if authorization is not None else self._by_certificate(certificate)
        if client.expires is not None and self._today() >= client.expires:
            raise Unauthenticated(f"client {client.name!r} has expired on {client.expires}", "expired")
        return client

    def _by_header(self, authorization: str) -> Client:
        if authorization[: len(_SCHEME)].lower() != _SCHEME or len(authorization) > _MAX_TOKEN:
            told = f"authorization: is no bearer token of at most {_MAX_TOKEN} characters; {_HOW}"
            raise Unauthenticated(told, "malformed")
        token = authorization[len(_SCHEME) :].strip()
        number = token_id(token)
        if number is not None:
            stored, client = (self._clients.current().by_token if self._clients else {}).get(number, (None, None))
            if matches(token, stored) and client is not None:
                return client
        elif self._keys is not None:
            return self._by_claims(jwt_tokens.check(token, self._keys.current(), self._issuer, self._audience))
        raise Unauthenticated("authorization: the token is none of this server's", "unknown")

    def _by_claims(self, claims: jwt_tokens.Claims) -> Client:
        listed = self._clients.current().by_subject.get(claims.subject) if self._clients else None
        if listed is not None:
            return listed
        rpcs = frozenset(RPCS) if "*" in claims.scopes else claims.scopes & frozenset(RPCS)
        return Client(f"jwt:{claims.subject}"[:128], rpcs=rpcs)

    def _by_certificate(self, names: Sequence[str]) -> Client:
        if not names:
            raise Unauthenticated(f"this server wants to know who calls: {_HOW}", "missing")
        if self._clients is None:
            return Client(names[0][:128])
        listed = self._clients.current().by_certificate
        for name in names:
            if name in listed:
                return listed[name]
        told = ", ".join(names[:4])
        raise Unauthenticated(f"no client of this server has the certificate's names {told}", "unknown")


def authorise(client: Client, rpc: str) -> None:
    """Raises PermissionDenied unless ``client`` may call ``rpc``."""
    if rpc not in client.rpcs:
        allowed = ", ".join(sorted(client.rpcs)) or "nothing"
        raise PermissionDenied(f"client {client.name!r} may not call {rpc}; it may call {allowed}", "forbidden")
