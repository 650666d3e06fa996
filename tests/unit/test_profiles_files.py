"""Files of profiles: what comes back, and what doesn't get in."""

from __future__ import annotations

import copy
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from profiles_support import HERE, operating_point, record, stored
from samgate.errors import ProfileError
from samgate.profiles.files import (
    install_profile,
    installed_profile,
    profile_path,
    published_names,
    published_profile,
    read_profile,
    write_profile,
)
from samgate.profiles.format import parse_profile, profile_json
from samgate.profiles.stored import PUBLISHED, StoredProfile, merged

BF16, F32 = operating_point("mobilesam", "bf16"), operating_point("mobilesam", "f32", 0.6)
PROFILE = stored(record(BF16, graphs="abc"), record(F32, "quick"))
VALID: dict[str, Any] = profile_json(PROFILE)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SAMGATE_HOME", str(tmp_path))
    return tmp_path


def parse(content: object) -> StoredProfile:
    return parse_profile(json.dumps(content).encode(), "p.json")


def damaged(path: str, value: object) -> dict[str, Any]:
    """A valid file but for the field at ``path``; without ``value`` (...) it is missing."""
    content = copy.deepcopy(VALID)
    *parents, last = path.split(".")
    place: Any = content
    for name in parents:
        place = place[int(name)] if isinstance(place, list) else place[name]
    if value is ...:
        del place[last]
    else:
        place[last] = value
    return content


def test_what_is_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "here.json"
    write_profile(PROFILE, path)
    assert read_profile(path) == PROFILE
    assert [one.name for one in tmp_path.iterdir()] == ["here.json"]
    assert PROFILE.origin == "quick"
    assert PROFILE.accuracy_origins == {"mobilesam:bf16": "counted", "mobilesam:f32": "counted"}
    with pytest.raises(ProfileError, match="can't be written"):
        write_profile(PROFILE, tmp_path / "nowhere" / "here.json")
    with pytest.raises(ProfileError, match="can't be read: No such file"):
        read_profile(tmp_path / "other.json")


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (
            "points.0.encode.each_s",
            -0.1,
            r"p.json: points[0].encode.each_s is -0.1; it must be a number from 0 to 3600",
        ),
        ("points.1.decode.fixed_s", math.nan, "points[1].decode.fixed_s is nan; it must be a number from 0 to 3600"),
        ("points.1.decode.fixed_s", math.inf, "points[1].decode.fixed_s is inf"),
        ("points.0.survivors.residual_s", "1", "survivors.residual_s is '1'; it must be a number"),
        ("points.0.prepare.median_ratio", 1.01, "prepare.median_ratio is 1.01; it must be a number from 0 to 1"),
        ("points.0.finish", [], "points[0].finish is a list of 0; it must be an object"),
        ("points.0.encode.slope", 1, "points[0].encode has the unknown field 'slope'"),
        ("points.0.encode", {"fixed_s": 0, "each_s": 0, "residual_s": 0, "median_ratio": 1}, "that takes time"),
        ("points.0.accuracy.box", 75.8, "points[0].accuracy.box is 75.8; it must be a number from 0 to 1"),
        ("points.0.accuracy.point", ..., "points[0].accuracy.point is missing"),
        ("points.0.max_images", 0, "max_images is 0; it must be a whole number from 1 to 65536"),
        ("points.0.max_prompts", 1.0, "max_prompts is 1.0; it must be a whole number"),
        ("points.0.max_prompts", True, "max_prompts is True; it must be a whole number"),
        ("points.0.variant", "a:b", "points[0].variant is 'a:b'; it must be letters, digits"),
        ("points.0.variant", "", "points[0].variant is ''; it must be printable text of 1 to 64 characters"),
        ("points.0.precision", "f32", "p.json: points has mobilesam:f32 twice"),
        ("points.0.origin", "guessed", "points[0].origin is 'guessed'; it must be 'measured', 'quick' or 'published"),
        ("points.0.origin", PUBLISHED + "a paper", "points[0].origin is published, but there is a fingerprint"),
        ("points.0.accuracy_origin", "\x1b[2J", r"accuracy_origin is '\x1b[2J'; it must be printable text"),
        ("points.0.created", "2026-02-30", "points[0].created is '2026-02-30'; it must be a date"),
        ("points", {}, "p.json: points is an object of 0; it must be a list of at most 256"),
        ("points", [{}] * 257, "p.json: points is a list of 257"),
        ("fingerprint.cores", "8", "p.json: fingerprint.cores is '8'; it must be a whole number from 1 to 65536"),
        ("fingerprint.features", ["avx2", 3], "fingerprint.features[1] is 3; it must be printable text"),
        ("fingerprint", None, "p.json: fingerprint is null, which is for published figures alone"),
        ("overhead.seconds", 61, "p.json: overhead.seconds is 61; it must be a number from 0 to 60"),
        ("instances", 0, "p.json: instances is 0"),
        ("shared", 1, "p.json: shared is 1; it must be true or false"),
        ("schema", 1, "p.json has schema 1, this samgate reads 2: run `samgate profile`"),
        ("created", 10**400, "p.json: created is 1000"),
        ("comment", "x" * 100, "p.json has the unknown field 'comment'"),
    ],
)
def test_a_damaged_field_is_named_with_value_and_limit(path: str, value: object, message: str) -> None:
    with pytest.raises(ProfileError) as caught:
        parse(damaged(path, value))
    assert message in str(caught.value)


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"null", b"\xff\xfe", b"[" * 100_000, b" " * (2**20 + 1)])
def test_what_is_no_profile_at_all_is_refused(data: bytes) -> None:
    with pytest.raises(ProfileError, match=r"^p\.json "):
        parse_profile(data, "p.json")


def _places(value: Any, path: str = "") -> list[str]:
    children = enumerate(value) if isinstance(value, list) else value.items() if isinstance(value, dict) else ()
    found = [path.removeprefix(".")] if path else []
    for name, child in children:
        found += _places(child, f"{path}.{name}")
    return [one for one in found if not one.rpartition(".")[2].isdigit()]


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=80),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=300)
@given(place=st.sampled_from(_places(VALID)), value=anything | st.just(...))
def test_whatever_is_in_a_field_is_read_or_refused(place: str, value: object) -> None:
    found, refusal = None, ""
    try:
        found = parse(damaged(place, value))
    except ProfileError as error:
        refusal = str(error)
    if found is None:
        assert refusal.isprintable()
        assert len(refusal) < 300
        return
    assert parse(profile_json(found)) == found
    for point in found.device.points:
        assert 0 < point.encode(1) < math.inf
        assert all(0 <= accuracy <= 1 for accuracy in point.accuracy.values())


def test_a_quick_measurement_never_replaces_a_full_one() -> None:
    full = stored(record(BF16, graphs="abc"))
    quick = stored(record(replace(BF16, encode=F32.encode), "quick", "abc"), record(F32, "quick"), origin="quick")
    both = merged(full, replace(quick, overhead_s=0.02))
    assert [one.point for one in both.records] == [BF16, F32]
    assert (both.overhead_s, both.overhead_origin) == (0.004, "measured")
    again = merged(quick, full)
    assert [one.origin for one in again.records] == ["measured", "quick"]
    assert again.records[0].point == BF16


def test_a_full_one_of_other_graphs_or_calls_is_replaced() -> None:
    full, larger = stored(record(BF16, graphs="abc")), replace(BF16, max_prompts=16)
    assert merged(full, stored(record(BF16, "quick", "def"))).records[0].origin == "quick"
    assert merged(full, stored(record(larger, "quick", "abc"))).records[0].point == larger


def test_accuracy_from_a_data_set_outlasts_other_figures() -> None:
    known, better = record(BF16), replace(BF16, accuracy={"box": 0.9, "point": 0.8})
    evaluated = replace(record(better), accuracy_origin="measured on 31 masks of instances.json")
    faster = replace(BF16, encode=F32.encode)
    (kept,) = merged(stored(evaluated), stored(record(faster))).records
    assert kept.point == replace(better, encode=F32.encode)
    assert kept.accuracy_origin == evaluated.accuracy_origin
    quick = replace(evaluated, origin="quick", point=replace(better, encode=F32.encode))
    (kept,) = merged(stored(known), stored(quick)).records
    assert (kept.origin, kept.point) == ("measured", better)
    (kept,) = merged(stored(evaluated), stored(record(faster, graphs="def"))).records
    assert kept.point == faster


def test_installed_profiles_grow_by_point(home: Path) -> None:
    assert installed_profile(HERE) is None
    install_profile(stored(record(BF16)))
    both = install_profile(stored(record(BF16, "quick"), record(F32, "quick")))
    assert installed_profile(HERE) == both
    assert [one.origin for one in both.records] == ["measured", "quick"]
    assert installed_profile(replace(HERE, cores=8)) is None
    with pytest.raises(ProfileError, match="no machine"):
        install_profile(published_profile("a100"))


def test_a_damaged_installed_profile_counts_as_none(home: Path, caplog: pytest.LogCaptureFixture) -> None:
    install_profile(PROFILE)
    path = profile_path(HERE)
    path.write_text(path.read_text().replace('"instances": 1', '"instances": -1'))
    assert installed_profile(HERE) is None
    assert "instances is -1" in caplog.text
    other = replace(HERE, cores=8)
    write_profile(PROFILE, profile_path(other))
    assert installed_profile(other) is None
    assert "another fingerprint" in caplog.text
    assert install_profile(PROFILE) == installed_profile(HERE) == PROFILE


def test_published_profiles_are_whole_and_say_what_they_assume() -> None:
    assert "a100" in published_names()
    for name in published_names():
        profile = published_profile(name)
        assert profile.fingerprint is None
        assert profile.origin.startswith(PUBLISHED)
        assert all("assumed" in one.origin for one in profile.records)
        assert len(profile.records) >= 4
    with pytest.raises(ProfileError, match=r"there are: .*a100"):
        published_profile("../a100")
