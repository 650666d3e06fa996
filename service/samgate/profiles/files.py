"""Profiles as files: the ones installed in samgate's home, one a fingerprint, and published ones."""

from __future__ import annotations

import json
import logging
from importlib import resources
from pathlib import Path

from samgate.errors import ProfileError
from samgate.profiles.fingerprint import Fingerprint
from samgate.profiles.format import MAX_BYTES, parse_profile, profile_json
from samgate.profiles.stored import StoredProfile, merged
from samgate.weights.home import atomic_write_bytes, file_lock, home_folder, remove_leftovers

logger = logging.getLogger(__name__)

_LOCK_TIMEOUT_S = 30.0


def read_profile(path: Path) -> StoredProfile:
    """The profile in a file, every field of it checked. Raises ProfileError that names field, value and limit."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise ProfileError(f"{path} can't be read: {error.strerror}") from error
    return parse_profile(data, str(path))


def write_profile(profile: StoredProfile, path: Path) -> None:
    """Writes ``profile`` to ``path``, complete or not at all. Raises ProfileError when it can't."""
    text = json.dumps(profile_json(profile), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    try:
        atomic_write_bytes(path, text.encode())
    except OSError as error:
        raise ProfileError(f"{path} can't be written: {error.strerror}") from error


def profile_path(fingerprint: Fingerprint) -> Path:
    """Where the profile of ``fingerprint`` is, once there is one."""
    return home_folder("profiles", create=False) / f"{fingerprint.key}.json"


def installed_profile(fingerprint: Fingerprint) -> StoredProfile | None:
    """What has been measured of ``fingerprint``; None when nothing has, or when the file is damaged (which is
    logged)."""
    path = profile_path(fingerprint)
    if not path.exists():
        return None
    try:
        found = read_profile(path)
    except ProfileError as error:
        logger.warning("%s; `samgate profile` replaces it", error)
        return None
    if found.fingerprint != fingerprint:
        logger.warning("%s is of another fingerprint than its name; `samgate profile` replaces it", path)
        return None
    return found


def install_profile(profile: StoredProfile) -> StoredProfile:
    """Adds ``profile`` to what is installed for its fingerprint, and returns both together.

    Figures of a quick measurement don't replace those of a full one that still hold. Raises ProfileError when the file
    can't be written, or for published figures.
    """
    if profile.fingerprint is None:
        raise ProfileError("published figures belong to no machine: they can't be installed")
    folder = home_folder("profiles")
    path = profile_path(profile.fingerprint)
    with file_lock(folder / f"{path.stem}.lock", _LOCK_TIMEOUT_S, error=ProfileError):
        remove_leftovers(path)
        both = merged(installed_profile(profile.fingerprint), profile)
        write_profile(both, path)
    return both


def published_names() -> list[str]:
    """The published profiles that come with samgate."""
    folder = resources.files("samgate.profiles") / "published"
    return sorted(entry.name.removesuffix(".json") for entry in folder.iterdir() if entry.name.endswith(".json"))


def published_profile(name: str) -> StoredProfile:
    """One of :func:`published_names`, for simulations. Raises ProfileError that lists them."""
    if name not in published_names():
        raise ProfileError(f"there is no published profile {name!r}; there are: {', '.join(published_names())}")
    file = resources.files("samgate.profiles") / "published" / f"{name}.json"
    return parse_profile(file.read_bytes(), f"{name}.json")
