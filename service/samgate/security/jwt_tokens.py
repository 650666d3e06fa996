"""JSON Web Tokens (RFC 7519) of an identity provider, checked with its public keys. PyJWT does the work."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from samgate.errors import InvalidArgument, Unauthenticated

_BY_KEY: tuple[tuple[type, tuple[str, ...]], ...] = (
    (rsa.RSAPublicKey, ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")),
    (ec.EllipticCurvePublicKey, ("ES256", "ES384", "ES512")),
    (ed25519.Ed25519PublicKey, ("EdDSA",)),
)
"""Signatures of the key's own kind: never none, and no shared secrets, which a public key could be passed off as."""
_LEEWAY_S = 30.0
_MAX_KEYS = 64
SCOPE = "samgate:"


@dataclass(frozen=True, slots=True)
class Keys:
    """Public keys, by key ID where they have one."""

    keys: tuple[tuple[str | None, jwt.PyJWK], ...]

    def of(self, key_id: str | None) -> jwt.PyJWK:
        """The key called ``key_id``; the only one, for a token that names none. Raises Unauthenticated."""
        for name, key in self.keys:
            if (key_id is None and len(self.keys) == 1) or (name == key_id and name is not None):
                return key
            if name is None and len(self.keys) == 1:
                return key
        raise Unauthenticated("the token is signed with a key that this server doesn't know", "unknown")


@dataclass(frozen=True, slots=True)
class Claims:
    """Of a valid token: whose it is, and the RPCs that its scope names (``samgate:Segment``; ``samgate:*`` is all)."""

    subject: str
    scopes: frozenset[str]


def read_keys(files: Sequence[bytes]) -> Keys:
    """A JSON Web Key Set, or one public key in PEM. Raises InvalidArgument."""
    (data,) = files
    try:
        if data.lstrip().startswith(b"{"):
            found = json.loads(data).get("keys", ())
            keys = [(entry.get("kid"), jwt.PyJWK(entry)) for entry in found if entry.get("use", "sig") == "sig"]
        else:
            public = load_pem_public_key(data)
            algorithm = _algorithms(public)[0]
            keys = [(None, jwt.PyJWK(jwt.get_algorithm_by_name(algorithm).to_jwk(public, as_dict=True)))]
        for _, key in keys:
            _algorithms(key.key)
    except (ValueError, TypeError, AttributeError, jwt.PyJWTError) as error:
        raise InvalidArgument("auth.jwt_keys", f"holds no usable public keys: {error}") from error
    if not 0 < len(keys) <= _MAX_KEYS:
        raise InvalidArgument("auth.jwt_keys", f"must hold 1 to {_MAX_KEYS} keys, holds {len(keys)}")
    return Keys(tuple(keys))


def check(token: str, keys: Keys, issuer: str, audience: str) -> Claims:
    """The claims of ``token``, if it is signed by one of ``keys``, current, and of this issuer for this audience.

    Raises Unauthenticated that says which of these it isn't.
    """
    try:
        key = keys.of(jwt.get_unverified_header(token).get("kid"))
        claims = jwt.decode(
            token,
            key.key,
            algorithms=list(_algorithms(key.key)),
            issuer=issuer,
            audience=audience,
            leeway=_LEEWAY_S,
            options={"require": ["exp", "iss", "aud", "sub"]},
        )
    except jwt.ExpiredSignatureError:
        raise Unauthenticated("the token has expired", "expired") from None
    except (jwt.PyJWTError, ValueError, TypeError) as error:
        raise Unauthenticated(f"the token is not valid here: {error}", "malformed") from None
    subject, scope = claims["sub"], claims.get("scope", "")
    if not isinstance(subject, str) or not subject or not isinstance(scope, str):
        raise Unauthenticated("the token's sub or scope is no text", "malformed")
    return Claims(subject, frozenset(part.removeprefix(SCOPE) for part in scope.split() if part.startswith(SCOPE)))


def _algorithms(key: object) -> tuple[str, ...]:
    for kind, names in _BY_KEY:
        if isinstance(key, kind):
            return names
    raise ValueError(f"{type(key).__name__} is no public key for RSA, ECDSA or Ed25519")
