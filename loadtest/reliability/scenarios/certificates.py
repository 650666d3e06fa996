"""Certificates are replaced on disk while connections are open and new ones are made."""

from __future__ import annotations

import asyncio
import datetime as dt
import os
import ssl
import time
from collections.abc import Callable
from pathlib import Path

import grpc
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from loadtest.reliability.findings import Finding, Story
from loadtest.reliability.stage import Load, Scenario, Stage, idle_finding, same
from samgate.client import AsyncClient
from samgate.errors import SamgateError

_SEEN_S = 10.0
"""The server looks at its files every second."""
_ROTATIONS = 4


class Authority:
    """Roots and certificates of a test."""

    def __init__(self) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "samgate chaos")])
        root = self._builder(self._name, self._key).add_extension(x509.BasicConstraints(True, None), critical=True)
        self._root = root.sign(self._key, hashes.SHA256())

    @property
    def pem(self) -> bytes:
        """The root."""
        return self._root.public_bytes(serialization.Encoding.PEM)

    def issue(self) -> tuple[bytes, bytes, int]:
        """A certificate for the loopback address, its key (both PEM), and its serial number."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
        names = x509.SubjectAlternativeName([x509.DNSName("localhost")])
        found = self._builder(name, key).add_extension(names, critical=False).sign(self._key, hashes.SHA256())
        private = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        return found.public_bytes(serialization.Encoding.PEM), private, found.serial_number

    def _builder(self, name: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
        now = dt.datetime.now(dt.UTC)
        return x509.CertificateBuilder(
            self._name, name, key.public_key(), x509.random_serial_number(), now - dt.timedelta(days=1),
            now + dt.timedelta(days=2),
        )  # fmt: skip


def _install(folder: Path, certificate: bytes, key: bytes) -> None:
    """Each file is replaced as a whole, the one after the other: for a moment they don't belong together."""
    for name, data in (("cert.pem", certificate), ("key.pem", key)):
        new = folder / f".{name}"
        new.write_bytes(data)
        os.replace(new, folder / name)


async def _shown(target: str, root: bytes) -> int | None:
    """Serial number of what a new connection is shown; None when there is no handshake."""
    context = ssl.create_default_context(cadata=root.decode())
    context.set_alpn_protocols(["h2"])
    host, _, port = target.rpartition(":")
    try:
        async with asyncio.timeout(5.0):
            _, writer = await asyncio.open_connection(host, int(port), ssl=context, server_hostname="localhost")
    except (OSError, TimeoutError):
        return None
    found = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.close()
    return x509.load_der_x509_certificate(found).serial_number


async def _until(ask: Callable[[], object], wanted: object) -> float | None:
    """Seconds until ``ask`` gives ``wanted``."""
    started = time.monotonic()
    while time.monotonic() < started + _SEEN_S:
        found = ask()
        if (await found if asyncio.iscoroutine(found) else found) == wanted:
            return time.monotonic() - started
        await asyncio.sleep(0.2)
    return None


async def _newcomer(target: str, credentials: grpc.ChannelCredentials, load: Load) -> str:
    """Whether a client that connects only now is served."""
    await load.go_on(0.1)
    async with AsyncClient(target, credentials=credentials) as client:
        try:
            return "served" if await client.variants(timeout_s=15.0) else "nothing"
        except SamgateError as error:
            return str(error)


async def _run(stage: Stage) -> Story:
    authority = Authority()
    certificate, key, serial = authority.issue()
    _install(stage.folder, certificate, key)
    settings = {
        "SAMGATE_TLS_CERTIFICATE": str(stage.folder / "cert.pem"),
        "SAMGATE_TLS_KEY": str(stage.folder / "key.pem"),
    }
    findings: list[Finding] = []
    credentials = grpc.ssl_channel_credentials(authority.pem)
    async with stage.gateway(settings=settings) as gateway:
        target = f"localhost:{gateway.target.rpartition(':')[2]}"

        def shown() -> object:
            return _shown(gateway.target, authority.pem)

        async with stage.load(target, credentials=credentials) as load:
            await load.calm()
            findings.append(
                same("begins with its first certificate", await _shown(gateway.target, authority.pem), serial)
            )
            load.fault()
            seen: list[float | None] = []
            for number in range(_ROTATIONS):
                stage.report(f"rotation {number + 1}")
                certificate, key, serial = authority.issue()
                _install(stage.folder, certificate, key)
                seen.append(await _until(shown, serial))
                findings.append(
                    same(f"rotation {number + 1}: a new client", await _newcomer(target, credentials, load), "served")
                )
            slowest = None if None in seen else max(one for one in seen if one is not None)
            findings.append(
                Finding(
                    f"new connections see the new certificate within {_SEEN_S:g} s",
                    "never" if slowest is None else f"{slowest:.1f} s at most",
                    held=slowest is not None,
                )
            )
            other = authority.issue()
            for what, pair in {
                "a key of another certificate": (other[0], key),
                "a truncated certificate": (certificate[: len(certificate) // 2], key),
                "an empty key": (certificate, b""),
            }.items():
                stage.report(what)
                _install(stage.folder, *pair)
                await load.go_on(2.5)
                found = await _shown(gateway.target, authority.pem)
                findings += [
                    same(f"{what}: the old one stays in use", found, serial),
                    same(f"{what}: a new client", await _newcomer(target, credentials, load), "served"),
                ]
            certificate, key, serial = authority.issue()
            _install(stage.folder, certificate, key)
            findings.append(same("a good pair again is taken", await _until(shown, serial) is not None, True))
            load.over()
            await load.calm()
        findings += [
            same("the log tells of the bad ones", "TLS certificate" in gateway.log.read_text(errors="replace"), True),
            await idle_finding(gateway),
            same("ends with status 0", await gateway.stop(), 0),
        ]
    return load.story("certificates-rotated", findings)


ROTATED = Scenario(
    "certificates-rotated",
    f"certificate and key replaced {_ROTATIONS} times, then by pairs that can't be used",
    "old connections go on, new ones get the new certificate; a bad pair changes nothing; lost: 0",
    _run,
)
