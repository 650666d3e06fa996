"""TLS on real sockets: certificates change under a running server, broken ones don't."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from grpc_health.v1 import health_pb2, health_pb2_grpc

from certificates_support import Authority, Issued
from samgate.api.health import Health
from samgate.api.server import channel_options
from samgate.config import Limits, Tls
from samgate.errors import InvalidArgument
from samgate.security.tls import ServerTls

ROOT = Authority()
UNKNOWN = b"-----BEGIN PRIVATE KEY-----\nMBECAQAwBgYEKgMEBQQEAQIDBA==\n-----END PRIVATE KEY-----\n"
"""A private key of an algorithm that nobody knows, 1.2.3.4.5."""


def foreign(certificate: bytes) -> bytes:
    """``certificate``, if its key were of an algorithm that nobody knows."""
    der = x509.load_pem_x509_certificate(certificate).public_bytes(Encoding.DER)
    elliptic = bytes.fromhex("06072a8648ce3d0201")
    assert elliptic in der
    return ssl.DER_cert_to_PEM_cert(der.replace(elliptic, elliptic[:-1] + b"\x7f")).encode()


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files are looked at with every handshake."""
    monkeypatch.setattr("samgate.security.files._LOOK_EVERY_S", 0.0)


@asynccontextmanager
async def secured(settings: Tls) -> AsyncIterator[int]:
    """The port of a server that only tells its health."""
    server = grpc.aio.server(options=channel_options(Limits()))
    health_pb2_grpc.add_HealthServicer_to_server(Health(), server)
    port = server.add_secure_port("127.0.0.1:0", ServerTls(settings).credentials)
    await server.start()
    try:
        yield port
    finally:
        await server.stop(grace=None)


async def status(port: int, root: Authority = ROOT, own: Issued | None = None) -> str:
    """What comes of a call over a connection of its own."""
    credentials = grpc.ssl_channel_credentials(root.pem, own.key if own else None, own.certificate if own else None)
    options = (("grpc.use_local_subchannel_pool", 1),)
    async with grpc.aio.secure_channel(f"127.0.0.1:{port}", credentials, options=options) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        try:
            await stub.Check(health_pb2.HealthCheckRequest(service="live"), timeout=10)
        except grpc.aio.AioRpcError as error:
            return error.code().name
    return "OK"


async def served(port: int) -> x509.Certificate:
    """The certificate that a new connection is shown."""
    pem = await asyncio.to_thread(ssl.get_server_certificate, ("127.0.0.1", port), timeout=10)
    return x509.load_pem_x509_certificate(pem.encode())


def settings_of(folder: Path, issued: Issued) -> Tls:
    certificate, key = issued.write(folder)
    return Tls(str(certificate), str(key))


async def test_a_new_certificate_is_used_by_new_connections_and_old_ones_go_on(tmp_path: Path) -> None:
    first, second = ROOT.issue("first"), ROOT.issue("second")
    async with secured(settings_of(tmp_path, first)) as port:
        credentials = grpc.ssl_channel_credentials(ROOT.pem)
        async with grpc.aio.secure_channel(f"127.0.0.1:{port}", credentials) as old:
            stub: Any = health_pb2_grpc.HealthStub(old)
            asked = health_pb2.HealthCheckRequest(service="live")
            await stub.Check(asked, timeout=10)
            assert await served(port) == x509.load_pem_x509_certificate(first.certificate)
            second.write(tmp_path)
            assert await served(port) == x509.load_pem_x509_certificate(second.certificate)
            await stub.Check(asked, timeout=10)
        assert await status(port) == "OK"


@pytest.mark.parametrize("broken", ["half a rotation", "no certificate", "gone"])
async def test_files_that_make_no_sense_leave_what_was_there(tmp_path: Path, broken: str) -> None:
    first, second = ROOT.issue("first"), ROOT.issue("second")
    async with secured(settings_of(tmp_path, first)) as port:
        if broken == "half a rotation":
            (tmp_path / "tls.crt").write_bytes(second.certificate)
        elif broken == "no certificate":
            (tmp_path / "tls.crt").write_bytes(second.certificate[:200])
        else:
            (tmp_path / "tls.crt").unlink()
        assert await served(port) == x509.load_pem_x509_certificate(first.certificate)
        assert await status(port) == "OK"
        second.write(tmp_path)
        assert await served(port) == x509.load_pem_x509_certificate(second.certificate)


async def test_mutual_tls_wants_a_certificate_of_the_right_root(tmp_path: Path) -> None:
    clients, strangers = Authority("clients"), Authority("strangers")
    (tmp_path / "clients.pem").write_bytes(clients.pem)
    settings = replace(settings_of(tmp_path, ROOT.issue("server")), client_ca=str(tmp_path / "clients.pem"))
    async with secured(settings) as port:
        assert await status(port) == "UNAVAILABLE"
        assert await status(port, own=strangers.issue("edge", "edge.local")) == "UNAVAILABLE"
        assert await status(port, own=clients.issue("edge", "edge.local")) == "OK"
        # Its root is replaced: those of the old one don't get in any more.
        (tmp_path / "clients.pem").write_bytes(strangers.pem)
        assert await status(port, own=clients.issue("edge", "edge.local")) == "UNAVAILABLE"
        assert await status(port, own=strangers.issue("edge", "edge.local")) == "OK"


async def test_a_client_that_believes_others_does_not_connect(tmp_path: Path) -> None:
    async with secured(settings_of(tmp_path, ROOT.issue("server"))) as port:
        assert await status(port, root=Authority("another")) == "UNAVAILABLE"


async def test_old_protocols_are_refused(tmp_path: Path) -> None:
    async with secured(settings_of(tmp_path, ROOT.issue("server"))) as port:

        def connect(version: ssl.TLSVersion) -> None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            context.set_ciphers("DEFAULT:@SECLEVEL=0")
            context.set_alpn_protocols(["h2"])
            context.minimum_version = ssl.TLSVersion.TLSv1
            context.maximum_version = version
            with socket.create_connection(("127.0.0.1", port), timeout=5) as raw, context.wrap_socket(raw):
                pass

        for old in (ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1):
            with pytest.raises((ssl.SSLError, OSError)), pytest.warns(DeprecationWarning, match="deprecated"):
                await asyncio.to_thread(connect, old)
        with pytest.warns(DeprecationWarning, match="deprecated"):
            await asyncio.to_thread(connect, ssl.TLSVersion.TLSv1_3)


@pytest.mark.parametrize(
    ("certificate", "key", "told"),
    [
        (b"nothing", None, r"tls\.certificate: holds no certificates in PEM"),
        (None, b"nothing", r"tls\.key: is no private key in PEM without a password"),
        (None, ROOT.issue("other").key, r"tls\.key: is not that of the first certificate"),
        (None, UNKNOWN, r"tls\.key: is of an algorithm that isn't known: .* 1\.2\.3\.4\.5"),
        (foreign(ROOT.issue("server").certificate), None, r"tls\.certificate: is for a key that can't be used"),
    ],
)
def test_files_that_can_not_be_used_are_told_at_the_start(
    tmp_path: Path, certificate: bytes | None, key: bytes | None, told: str
) -> None:
    settings = settings_of(tmp_path, ROOT.issue("server"))
    if certificate is not None:
        Path(settings.certificate).write_bytes(certificate)
    if key is not None:
        Path(settings.key).write_bytes(key)
    with pytest.raises(InvalidArgument, match=told):
        ServerTls(settings)


def test_when_the_certificate_ends_is_known(tmp_path: Path) -> None:
    issued = ROOT.issue("server", days=3)
    tls = ServerTls(settings_of(tmp_path, issued))
    assert tls.expires == x509.load_pem_x509_certificate(issued.certificate).not_valid_after_utc
