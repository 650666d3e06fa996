"""Bearer tokens: ``samgate_ID_SECRET``. The ID says whose it may be, the secret proves it; only its hash is kept.

Secrets are 256 random bits, so one SHA-256 is enough: nobody can try them all, as with passwords, which need slow
hashes.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass

from samgate.errors import InvalidArgument

_SECRET_BYTES = 32
_ID_BYTES = 6
_TOKEN = re.compile(r"samgate_([0-9a-f]{12})_([0-9A-Za-z_-]{43})")
_STORED = re.compile(r"([0-9a-f]{12}):([0-9a-f]{64})")
_NOBODY = "0" * 64


@dataclass(frozen=True, slots=True)
class StoredToken:
    """What a server keeps of a token: its ``id``, and the SHA-256 of all of it in hexadecimal digits."""

    id: str
    sha256: str

    def __str__(self) -> str:
        return f"{self.id}:{self.sha256}"


def make_token() -> tuple[str, StoredToken]:
    """A new token, and what is kept of it."""
    number = secrets.token_hex(_ID_BYTES)
    token = f"samgate_{number}_{secrets.token_urlsafe(_SECRET_BYTES)}"
    return token, StoredToken(number, _hash(token))


def read_stored(field: str, text: object) -> StoredToken:
    """``ID:SHA256``, as in a file of clients. Raises InvalidArgument that names ``field``, but not the value."""
    found = _STORED.fullmatch(text) if isinstance(text, str) else None
    if found is None:
        raise InvalidArgument(field, "is not ID:SHA256 as `samgate token create` prints it")
    return StoredToken(found[1], found[2])


def token_id(token: str) -> str | None:
    """The ID of ``token``; None for what isn't one."""
    found = _TOKEN.fullmatch(token)
    return found[1] if found else None


def matches(token: str, stored: StoredToken | None) -> bool:
    """Whether ``token`` is ``stored``, in the same time whatever it is, and whether or not anything is stored."""
    expected = _NOBODY if stored is None else stored.sha256
    return hmac.compare_digest(_hash(token), expected) and stored is not None


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()
