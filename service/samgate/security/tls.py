"""TLS: certificates that are replaced under a running server, and what clients need to connect."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import grpc
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from samgate.config import Tls
from samgate.errors import InvalidArgument
from samgate.security.files import WatchedFiles


@dataclass(frozen=True, slots=True)
class Pair:
    """A certificate chain with its key, PEM, and the roots of clients (None: they need no certificate)."""

    chain: bytes
    key: bytes
    client_ca: bytes | None
    expires: dt.datetime


def read_pair(files: Sequence[bytes]) -> Pair:
    """The certificate chain, its key and, if there is a third file, the clients' roots.

    Raises InvalidArgument for what isn't PEM, for unknown algorithms, and for a key of another certificate.
    """
    chain, key = files[0], files[1]
    client_ca = files[2] if len(files) > 2 else None
    certificates = _certificates("tls.certificate", chain)
    try:
        private = load_pem_private_key(key, password=None)
    except UnsupportedAlgorithm as error:
        raise InvalidArgument("tls.key", f"is of an algorithm that isn't known: {error}") from error
    except (ValueError, TypeError) as error:
        raise InvalidArgument("tls.key", f"is no private key in PEM without a password: {error}") from error
    try:
        public = certificates[0].public_key()
    except (UnsupportedAlgorithm, ValueError) as error:
        raise InvalidArgument("tls.certificate", f"is for a key that can't be used: {error}") from error
    if _spki(private.public_key()) != _spki(public):
        raise InvalidArgument("tls.key", "is not that of the first certificate in tls.certificate")
    if client_ca is not None:
        _certificates("tls.client_ca", client_ca)
    return Pair(chain, key, client_ca, min(one.not_valid_after_utc for one in certificates))


class ServerTls:
    """What a server listens with. ``credentials`` follow the files of ``settings``: a handshake that begins after they
    changed is made with what they hold.

    Raises InvalidArgument and OSError for files that can't be used.
    """

    def __init__(self, settings: Tls) -> None:
        paths = [Path(settings.certificate), Path(settings.key)]
        if settings.client_ca:
            paths.append(Path(settings.client_ca))
        self._files = WatchedFiles("TLS certificate", paths, read_pair)
        self._served = self._files.current()
        self.credentials: grpc.ServerCredentials = grpc.dynamic_ssl_server_credentials(
            _configuration(self._served),
            self._changed,  # type: ignore[arg-type]  # the types don't know that None is "as before"
            require_client_authentication=bool(settings.client_ca),
        )

    @property
    def expires(self) -> dt.datetime:
        """When the first certificate of the chain in use ends."""
        return self._files.current().expires

    def _changed(self) -> grpc.ServerCertificateConfiguration | None:
        # Called at each handshake, from threads of gRPC's, under a lock of its own.
        pair = self._files.current()
        if pair is self._served:
            return None
        self._served = pair
        return _configuration(pair)


def _configuration(pair: Pair) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration([(pair.key, pair.chain)], root_certificates=pair.client_ca)


def _certificates(field: str, data: bytes) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(data)
    except ValueError as error:
        raise InvalidArgument(field, f"holds no certificates in PEM: {error}") from error


def _spki(key: object) -> bytes:
    encoded: bytes = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)  # type: ignore[attr-defined]
    return encoded
