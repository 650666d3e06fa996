"""Fleets: gateways, their devices, and what goes wrong with them, as YAML."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from samgate.errors import InvalidArgument
from samgate.profiles.files import published_profile, read_profile
from samgate.scheduling.profile import DeviceProfile
from samgate.simulation import spec
from samgate.simulation.cache import EMBEDDING_BYTES
from samgate.simulation.points import read_inline
from samgate.simulation.processes import MAX_SECONDS
from samgate.simulation.spec import Section

Balance = Literal["round_robin", "random", "least_loaded", "hash"]
BALANCES: tuple[Balance, ...] = ("round_robin", "random", "least_loaded", "hash")
PUBLISHED = "published:"

_MOST_GATEWAYS = 100_000
_MOST_DEVICES = 1024
_MOST_TROUBLES = 10_000


@dataclass(frozen=True, slots=True)
class Trouble:
    """A device that is down (``factor`` None), or takes ``factor`` times as long, from ``from_s`` to ``to_s``."""

    gateway: int
    device: int
    from_s: float
    to_s: float
    factor: float | None = None


@dataclass(frozen=True, slots=True)
class Fleet:
    """``gateways`` alike, each with ``devices`` and a scheduler of its own.

    ``balance`` is how requests get to a gateway: ``hash`` sends those of an image to the same one. ``embeddings`` is
    the size of each gateway's cache, ``threads`` how many imaging tasks it runs at once; each of them takes
    ``weight`` of the device's processor (0: they have processors of their own). ``request_s`` is for how long an
    answered and a refused request keep one of these busy with messages and the event loop. ``crowding`` is for how many
    times as long as by turns everything takes on the processor of these threads while several things run at once.
    """

    name: str
    gateways: int
    devices: tuple[DeviceProfile, ...]
    balance: Balance = "round_robin"
    embeddings: int = 1024
    threads: int = 3
    weight: float = 0.0
    request_s: tuple[float, float] = (0.0, 0.0)
    crowding: float = 1.0
    troubles: tuple[Trouble, ...] = ()
    noise_seed: int = 0
    origin: str = ""

    @property
    def all_devices(self) -> int:
        """In all gateways."""
        return self.gateways * len(self.devices)


def read_fleet(path: Path) -> Fleet:
    """The fleet in a YAML file; profiles that it names are looked for beside it.

    Raises InvalidArgument that names field, value and limit, ProfileError for a profile, SamgateError when the file
    can't be read.
    """
    return _parse(spec.read_yaml(path), path.parent)


def parse_fleet(data: bytes, name: str = "fleet", folder: Path | None = None) -> Fleet:
    """The fleet that ``data`` holds as YAML; ``folder`` is where profiles are looked for. Raises InvalidArgument,
    ProfileError."""
    return _parse(spec.parse_yaml(data, name), folder or Path())


def _parse(top: Section, folder: Path) -> Fleet:
    name = top.text("name")
    gateways = top.whole("gateways", 1, _MOST_GATEWAYS, default=1)
    devices: list[DeviceProfile] = []
    origins: list[str] = []
    for where, value in top.items("devices", _MOST_DEVICES):
        found, origin = _devices(Section(value, where), folder)
        devices += found
        origins.append(origin)
    if not 1 <= len(devices) <= _MOST_DEVICES:
        raise InvalidArgument(top.where("devices"), f"are {len(devices)} a gateway; it must be 1 to {_MOST_DEVICES}")
    balance = top.choice("balance", BALANCES, default="round_robin")
    threads, weight, request_s, crowding = 3, 0.0, (0.0, 0.0), 1.0
    if top.has("imaging"):
        imaging = top.section("imaging")
        threads = imaging.whole("threads", 1, 4096, default=threads)
        weight = imaging.number("weight", 0, 1, default=0.0)
        request_s = (
            imaging.number("answer_s", 0, 1, default=0.0),
            imaging.number("refusal_s", 0, 1, default=0.0),
        )
        crowding = imaging.number("crowding", 1, 10, default=1.0)
        imaging.end()
        if weight > 0 and len(devices) > 1:
            limit = f"0 where a gateway has several devices (here {len(devices)}): it is about a CPU that is the device"
            raise spec.refuse(imaging.where("weight"), weight, limit)
        if crowding > 1 and weight == 0:
            limit = "1 where weight is 0: it is about imaging threads on the CPU that is the device"
            raise spec.refuse(imaging.where("crowding"), crowding, limit)
    embeddings = _cache(top)
    troubles = (*_troubles(top, "failures", gateways, len(devices)), *_troubles(top, "slow", gateways, len(devices)))
    noise_seed = top.whole("noise_seed", 0, 2**63 - 1, default=0)
    top.end()
    return Fleet(
        name, gateways, tuple(devices), next(one for one in BALANCES if one == balance), embeddings, threads, weight,
        request_s, crowding, troubles, noise_seed, "; ".join(dict.fromkeys(origins)),
    )  # fmt: skip


def _devices(section: Section, folder: Path) -> tuple[list[DeviceProfile], str]:
    count = section.whole("count", 1, _MOST_DEVICES, default=1)
    profile, origin = _profile(section, folder)
    if section.has("instances"):
        profile = replace(profile, instances=section.whole("instances", 1, 1024))
    if section.has("points"):
        wanted = [spec.text(value, where) for where, value in section.items("points", 256)]
        there = {point.name: point for point in profile.points}
        unknown = next((name for name in wanted if name not in there), None)
        if unknown is not None or not wanted:
            limit = f"some of {', '.join(there)}"
            raise spec.refuse(section.where("points"), unknown if wanted else [], limit)
        profile = replace(profile, points=tuple(there[name] for name in dict.fromkeys(wanted)))
    section.end()
    return [profile] * count, origin


def _profile(section: Section, folder: Path) -> tuple[DeviceProfile, str]:
    if isinstance(section.peek("profile"), dict):
        return read_inline(section.section("profile")), "inline figures"
    named = section.text("profile")
    if named.startswith(PUBLISHED):
        stored = published_profile(named.removeprefix(PUBLISHED))
    else:
        stored = read_profile(folder / named)
    return stored.device, f"{named} ({stored.origin})"


def _cache(top: Section) -> int:
    if not top.has("cache"):
        return 1024
    cache = top.section("cache")
    if cache.has("bytes"):
        embeddings = cache.whole("bytes", 0, 2**50) // EMBEDDING_BYTES
    else:
        embeddings = cache.whole("embeddings", 0, 2**28)
    cache.end()
    return embeddings


def _troubles(top: Section, name: str, gateways: int, devices: int) -> list[Trouble]:
    found: list[Trouble] = []
    entries: list[Any] = []
    for where, value in top.items(name, _MOST_TROUBLES, default=entries):
        section = Section(value, where)
        gateway = section.whole("gateway", 0, gateways - 1)
        device = section.whole("device", 0, devices - 1)
        from_s = section.number("from_s", 0, MAX_SECONDS)
        to_s = section.number("to_s", 0, MAX_SECONDS)
        factor = section.number("factor", 0.1, 1000) if name == "slow" else None
        section.end()
        if to_s <= from_s:
            raise spec.refuse(section.where("to_s"), to_s, f"later than from_s, which is {from_s:g}")
        same = [one for one in found if (one.gateway, one.device) == (gateway, device)]
        if any(from_s < one.to_s and one.from_s < to_s for one in same):
            raise InvalidArgument(where, "overlaps with another of the same device")
        found.append(Trouble(gateway, device, from_s, to_s, factor))
    return found
