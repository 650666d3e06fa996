"""JSON Web Tokens: what is accepted, and the known ways to forge one."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from samgate.config import Auth, Settings
from samgate.errors import InvalidArgument, PermissionDenied, Unauthenticated
from samgate.security.identity import Identities, authorise
from samgate.security.jwt_tokens import check, read_keys

RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048)
EC = ec.generate_private_key(ec.SECP256R1())
ED = ed25519.Ed25519PrivateKey.generate()
PEM = RSA.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def key_set() -> bytes:
    keys = []
    for name, key in (("RS256", RSA), ("ES256", EC), ("EdDSA", ED)):
        entry: dict[str, Any] = jwt.get_algorithm_by_name(name).to_jwk(key.public_key(), as_dict=True)
        keys.append({**entry, "kid": name, "use": "sig"})
    return json.dumps({"keys": keys}).encode()


def claims(**others: object) -> dict[str, object]:
    usual = {"iss": "https://id.example", "aud": "samgate", "sub": "user-1", "exp": time.time() + 60}
    return {key: value for key, value in {**usual, **others}.items() if value is not None}


def checked(token: str, keys: bytes | None = None) -> Any:
    return check(token, read_keys([key_set() if keys is None else keys]), "https://id.example", "samgate")


@pytest.mark.parametrize(("algorithm", "key"), [("RS256", RSA), ("ES256", EC), ("EdDSA", ED)])
def test_a_token_of_each_kind_of_key_is_accepted(algorithm: str, key: Any) -> None:
    token = jwt.encode(claims(scope="openid samgate:Segment"), key, algorithm, headers={"kid": algorithm})
    found = checked(token)
    assert (found.subject, found.scopes) == ("user-1", {"Segment"})


def test_one_key_in_pem_needs_no_key_id() -> None:
    assert checked(jwt.encode(claims(), RSA, "RS256"), PEM).subject == "user-1"
    assert checked(jwt.encode(claims(), RSA, "RS256", headers={"kid": "any"}), PEM).subject == "user-1"


@pytest.mark.parametrize(
    ("others", "told"),
    [
        ({"exp": time.time() - 3600}, "has expired"),
        ({"exp": None}, "exp"),
        ({"iss": "https://evil.example"}, "Invalid issuer"),
        ({"aud": "another"}, "Audience"),
        ({"aud": None}, "aud"),
        ({"sub": None}, "sub"),
        ({"sub": ""}, "sub or scope is no text"),
        ({"scope": ["samgate:*"]}, "sub or scope is no text"),
        ({"nbf": time.time() + 3600}, "not yet valid"),
    ],
)
def test_claims_that_do_not_hold_are_told(others: dict[str, object], told: str) -> None:
    with pytest.raises(Unauthenticated, match=told):
        checked(jwt.encode(claims(**others), RSA, "RS256", headers={"kid": "RS256"}))


def test_forgeries_are_refused() -> None:
    stranger = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    good = jwt.encode(claims(), RSA, "RS256", headers={"kid": "RS256"})
    head, body, signature = good.split(".")
    unsigned = jwt.encode(claims(), "", "none", headers={"kid": "RS256"})
    forged = [
        jwt.encode(claims(), stranger, "RS256", headers={"kid": "RS256"}),
        jwt.encode(claims(), RSA, "RS256", headers={"kid": "ES256"}),  # another key's name
        jwt.encode(claims(), RSA, "RS256", headers={"kid": "unknown"}),
        jwt.encode(claims(), RSA, "RS256"),  # no name, of three keys
        unsigned,
        f"{head}.{body}.",
        f"{head}.{body[:-2]}AA.{signature}",
        "a.b.c",
        "",
    ]
    for token in forged:
        with pytest.raises(Unauthenticated):
            checked(token)
    with pytest.raises(Unauthenticated):
        checked(unsigned, PEM)


def test_the_public_key_is_no_shared_secret() -> None:
    import base64
    import hashlib
    import hmac

    def part(content: object) -> str:
        return base64.urlsafe_b64encode(json.dumps(content).encode()).rstrip(b"=").decode()

    signed = f"{part({'alg': 'HS256', 'typ': 'JWT'})}.{part(claims())}"
    signature = base64.urlsafe_b64encode(hmac.digest(PEM, signed.encode(), hashlib.sha256)).rstrip(b"=").decode()
    with pytest.raises(Unauthenticated):
        checked(f"{signed}.{signature}", PEM)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{}",
        b"{",
        b'{"keys": []}',
        b'{"keys": [{"kty": "oct", "k": "c2VjcmV0", "kid": "a", "alg": "HS256"}]}',
        b'{"keys": 3}',
        b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----",
    ],
)
def test_files_without_public_keys_are_refused(data: bytes) -> None:
    with pytest.raises(InvalidArgument, match=r"auth\.jwt_keys"):
        read_keys([data])


def test_scopes_are_rights_and_listed_subjects_have_those_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "keys").write_bytes(PEM)
    (tmp_path / "clients.yaml").write_text("clients: [{name: alice, subjects: [user-9], rpcs: [Embed]}]")
    auth = Auth(
        clients=str(tmp_path / "clients.yaml"),
        jwt_keys=str(tmp_path / "keys"),
        jwt_issuer="https://id.example",
        jwt_audience="samgate",
    )
    known = Identities(Settings(auth=auth))

    def who(**others: object) -> Any:
        return known.who("Bearer " + jwt.encode(claims(**others), RSA, "RS256"), ())

    assert who(sub="user-9").name == "alice"
    everything = who(scope="samgate:*")
    authorise(everything, "SegmentEverything")
    assert everything.name == "jwt:user-1"
    limited = who(scope="samgate:Embed samgate:Nothing")
    authorise(limited, "Embed")
    with pytest.raises(PermissionDenied):
        authorise(limited, "Segment")
    with pytest.raises(PermissionDenied, match="it may call nothing"):
        authorise(who(), "Segment")
