"""The file of clients: who they are, how they prove it, and what they may do.

clients:
  - name: studio                  # in logs and for fair shares; once
    tokens: ["ID:SHA256"]         # of `samgate token create`; two while one replaces the other
    certificates: [studio.local]  # names in client certificates (DNS or URI, else the common name)
    subjects: [user-17]           # "sub" of JSON Web Tokens
    rpcs: [Segment, Embed]        # default: all
    priority: bulk                # all of its calls are bulk work; default interactive
    weight: 2                     # its fair share, in multiples of the others'; default 1
    calls_per_s: 20               # default: no limit
    burst: 40                     # calls at once after a pause; default: a second's
    concurrent: 8                 # calls under way; default: no limit
    expires: 2027-06-30           # the first day (UTC) on which it is refused
    proxy: true                   # its word counts on who asks: scheduling.client_header
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml

from samgate.errors import InvalidArgument
from samgate.scheduling.queue import Priority
from samgate.security.tokens import StoredToken, read_stored

RPCS = ("Segment", "SegmentEverything", "Embed", "ListVariants")
_MAX_CLIENTS = 2_000
"""So many take a tenth of a second to read, for which calls wait: the file is read again by the event loop."""
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_MAX_NAME = 128
_PRIORITIES = {"interactive": Priority.INTERACTIVE, "bulk": Priority.BULK}


@dataclass(frozen=True, slots=True)
class Client:
    """One that may call, and its rights. ``calls_per_s`` and ``concurrent`` of 0 are no limits."""

    name: str
    rpcs: frozenset[str] = frozenset(RPCS)
    priority: Priority = Priority.INTERACTIVE
    weight: float = 1.0
    calls_per_s: float = 0.0
    burst: float = 1.0
    concurrent: int = 0
    expires: dt.date | None = None
    proxy: bool = False


@dataclass(frozen=True, slots=True)
class Clients:
    """All clients of a file, by what they present."""

    by_token: Mapping[str, tuple[StoredToken, Client]] = field(default_factory=dict)
    by_certificate: Mapping[str, Client] = field(default_factory=dict)
    by_subject: Mapping[str, Client] = field(default_factory=dict)
    weights: Mapping[str, float] = field(default_factory=dict)


def read_clients(data: bytes) -> Clients:
    """The clients of a YAML file. Raises InvalidArgument naming the entry, its field and what would do."""
    try:
        document = yaml.load(data.decode(), Loader=_LOADER)
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: no UTF-8, and dates such as 2027-02-30
        raise InvalidArgument("auth.clients", f"is no YAML: {error}") from error
    if not isinstance(document, dict) or set(document) != {"clients"} or not isinstance(document["clients"], list):
        raise InvalidArgument("auth.clients", "must be one list called 'clients'")
    entries = document["clients"]
    if len(entries) > _MAX_CLIENTS:
        raise InvalidArgument("auth.clients", f"has {len(entries)} clients; the limit is {_MAX_CLIENTS}")
    by_token: dict[str, tuple[StoredToken, Client]] = {}
    by_certificate: dict[str, Client] = {}
    by_subject: dict[str, Client] = {}
    weights: dict[str, float] = {}
    for index, entry in enumerate(entries):
        where = f"clients[{index}]"
        client = _client(entry, where)
        if client.name in weights:
            raise InvalidArgument(f"{where}.name", f"{client.name!r} is there twice")
        weights[client.name] = client.weight
        for stored in _list(entry, "tokens", where):
            token = read_stored(f"{where}.tokens", stored)
            _once(by_token, token.id, (token, client), f"{where}.tokens")
        for name in _names(entry, "certificates", where):
            _once(by_certificate, name, client, f"{where}.certificates")
        for name in _names(entry, "subjects", where):
            _once(by_subject, name, client, f"{where}.subjects")
    return Clients(by_token, by_certificate, by_subject, weights)


def _client(entry: Any, where: str) -> Client:
    if not isinstance(entry, dict):
        raise InvalidArgument(where, "must be a mapping with a name")
    unknown = entry.keys() - {"name", "tokens", "certificates", "subjects", *_READERS}
    if unknown:
        raise InvalidArgument(f"{where}.{min(map(str, unknown))}", "no such field")
    name = entry.get("name")
    if not isinstance(name, str) or not 0 < len(name) <= _MAX_NAME or not name.isprintable():
        raise InvalidArgument(f"{where}.name", f"must be 1 to {_MAX_NAME} printable characters")
    given = {key: read(f"{where}.{key}", entry[key]) for key, read in _READERS.items() if key in entry}
    if "calls_per_s" in given:
        given.setdefault("burst", max(1.0, given["calls_per_s"]))
    elif "burst" in given:
        raise InvalidArgument(f"{where}.burst", "needs calls_per_s as well")
    return Client(name, **given)


def _rpcs(where: str, value: Any) -> frozenset[str]:
    if not isinstance(value, list) or not value or not set(map(str, value)) <= set(RPCS):
        raise InvalidArgument(where, f"must be a list of some of {', '.join(RPCS)}")
    return frozenset(value)


def _priority(where: str, value: Any) -> Priority:
    if not isinstance(value, str) or value not in _PRIORITIES:
        raise InvalidArgument(where, f"must be one of {', '.join(_PRIORITIES)}, is {value!r}")
    return _PRIORITIES[value]


def _number(least: float, most: float) -> Callable[[str, Any], float]:
    def read(where: str, value: Any) -> float:
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or not least <= value <= most:
            raise InvalidArgument(where, f"must be a number from {least:g} to {most:g}, is {value!r}")
        return float(value)

    return read


def _count(where: str, value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= 1_000_000:
        raise InvalidArgument(where, f"must be a whole number from 1 to 1,000,000, is {value!r}")
    return value


def _date(where: str, value: Any) -> dt.date:
    if not isinstance(value, dt.date) or isinstance(value, dt.datetime):
        raise InvalidArgument(where, f"must be a date such as 2027-06-30, is {value!r}")
    return value


def _bool(where: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise InvalidArgument(where, f"must be true or false, is {value!r}")
    return value


_READERS: dict[str, Callable[[str, Any], Any]] = {
    "rpcs": _rpcs,
    "priority": _priority,
    "weight": _number(0.001, 1000),
    "calls_per_s": _number(0.001, 1e6),
    "burst": _number(1, 1e6),
    "concurrent": _count,
    "expires": _date,
    "proxy": _bool,
}


def _list(entry: Mapping[str, Any], key: str, where: str) -> Sequence[Any]:
    value = entry.get(key, [])
    if not isinstance(value, list):
        raise InvalidArgument(f"{where}.{key}", "must be a list")
    return value


def _names(entry: Mapping[str, Any], key: str, where: str) -> list[str]:
    names = _list(entry, key, where)
    if not all(isinstance(name, str) and name for name in names):
        raise InvalidArgument(f"{where}.{key}", "must be a list of names")
    return list(names)


def _once(table: dict[str, Any], key: str, value: Any, where: str) -> None:
    if key in table:
        raise InvalidArgument(where, f"{key!r} belongs to a client before")
    table[key] = value
