"""Workload, trace and fleet files: what is wrong with one is told by field, value and limit."""

from __future__ import annotations

import json
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from samgate.errors import InvalidArgument, ProfileError, SamgateError
from samgate.simulation.fleet import Fleet, Trouble, parse_fleet, read_fleet
from samgate.simulation.trace import parse_trace
from samgate.simulation.workload import Workload, arrivals, parse_workload, read_workload
from simulation_support import workload_spec

EXAMPLES = Path(__file__).resolve().parents[2] / "loadtest"


def workload(**changes: Any) -> Workload:
    return parse_workload(yaml.safe_dump(workload_spec(**changes)).encode())


LINE = {"at_s": 1, "image": 0, "megapixels": 1, "kind": "box", "prompts": 1, "deadline_s": 1}


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"at_s": -1}, "at_s: is -1.*0 to"),
        ({"at_s": 0.5}, "at_s: is 0.5.*at least 1"),
        ({"image": 1.5}, "image: is 1.5.*whole"),
        ({"kind": "mask"}, "kind: is 'mask'.*box, point"),
        ({"points": []}, "points: is a list of 0"),
        ({"typo": 1}, "unknown field 'typo'"),
        ({"deadline_s": float("nan")}, "deadline_s: is nan"),
        ({"everything": "perhaps"}, "everything: is 'perhaps'"),
    ],
)
def test_a_damaged_trace_is_refused_by_line_field_value_and_limit(change: dict[str, Any], problem: str) -> None:
    text = json.dumps(LINE) + "\n" + json.dumps({**LINE, **change}) + "\n"
    with pytest.raises(InvalidArgument, match=f"trace.jsonl:2.*{problem}"):
        parse_trace(text.encode(), "trace.jsonl")


@pytest.mark.parametrize(
    ("data", "name"),
    [(b"", "t.jsonl"), (b"{", "t.jsonl"), (b"[1]", "t.jsonl"), (b"\xff", "t.csv"), (b"at_s,image\n1\n", "t.csv"),
     (b"at_s,image\n1,2,3\n", "t.csv"), (b'at_s\n"1', "t.csv")],
)  # fmt: skip
def test_what_is_no_trace_is_refused(data: bytes, name: str) -> None:
    with pytest.raises(InvalidArgument):
        parse_trace(data, name)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"arrivals": {"process": "poisson", "rate": -3}}, r"arrivals\.rate: is -3; it must be a number from 1e-06"),
        ({"arrivals": {"process": "poisson", "rate": 1, "rates": [1, 2]}}, "unknown field 'rates'"),
        ({"arrivals": {"process": "uniform"}}, "process: is 'uniform'; it must be one of poisson"),
        ({"arrivals": {"process": "bursty", "rates": [1], "dwell_s": [1, 1]}}, "rates: has 1 values"),
        ({"arrivals": {"process": "bursty", "rates": [0, 0], "dwell_s": [1, 1]}}, "one must be above 0"),
        ({"arrivals": {"process": "diurnal", "rate": 1, "hourly": [0]}}, "no factor above 0"),
        ({"warmup_s": 400}, "warmup_s: is 400.*less than duration_s"),
        ({"requests": []}, "needs a class"),
        ({"requests": 7}, "requests: is 7; it must be a list"),
        ({"images": {"requests_per_image": 0.5, "megapixels": 1}}, r"images\.requests_per_image: is 0.5.*from 1"),
        ({"images": {"requests_per_image": 1}}, r"images\.megapixels: is missing"),
        ({"extra": 1}, "unknown field 'extra'"),
        ({"name": ""}, "name: is ''"),
    ],
)
def test_errors_name_field_value_and_limit(change: dict[str, Any], problem: str) -> None:
    with pytest.raises(InvalidArgument, match=problem):
        workload(**change)


def test_errors_in_a_class_name_its_place() -> None:
    content = workload_spec()
    content["requests"][1]["prompts"] = {"uniform": [4, 1]}
    with pytest.raises(InvalidArgument, match=r"requests\[1\]\.prompts\.uniform: begins at 4, above its end 1"):
        parse_workload(yaml.safe_dump(content).encode())
    content["requests"][1]["prompts"] = {"choices": {1: 0}}
    with pytest.raises(InvalidArgument, match="weights of 0 alone"):
        parse_workload(yaml.safe_dump(content).encode())


@pytest.mark.parametrize(
    "data",
    [b"", b"- 1", b"a: [", b"name: a\nname: b", b"a: &a [*a]", b"\xff\xfe\x00", b"? {a: 1}\n: 2",
     b"!!python/object:os.x {}", b"[" * 2000, b"x" * (2**20 + 1)],
)  # fmt: skip
def test_what_is_no_workload_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidArgument):
        parse_workload(data)


def test_a_missing_file_is_an_error_with_its_name(tmp_path: Path) -> None:
    with pytest.raises(SamgateError, match=r"nothing\.yaml"):
        read_workload(tmp_path / "nothing.yaml")


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.dates(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5) | st.integers(), inner, max_size=3),
    max_leaves=4,
)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in nested lists and mappings."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, child in inner for place in places(child, (*path, key)))]


def damaged(content: Any, path: tuple[Any, ...], junk: Any) -> Any:
    """``content`` with ``junk`` at ``path``."""
    if not path:
        return junk
    copy = dict(content) if isinstance(content, dict) else list(content)
    copy[path[0]] = damaged(copy[path[0]], path[1:], junk)
    return copy


@given(data=st.data(), junk=JUNK)
def test_a_damaged_workload_is_refused_or_works(data: st.DataObject, junk: Any) -> None:
    path = data.draw(st.sampled_from(places(workload_spec())))
    text = yaml.safe_dump(damaged(workload_spec(), path, junk), allow_unicode=True).encode()
    try:
        found = parse_workload(text)
    except InvalidArgument as error:
        message = str(error)
        assert message.isprintable()
        assert len(message) < 400
        return
    for one in islice(arrivals(found, 0, duration_s=5), 20):
        assert 0 <= one.at_s < 5
        assert one.prompts >= 1
        assert one.deadline_s > 0


@pytest.mark.parametrize("path", sorted((EXAMPLES / "workloads").glob("*.yaml")), ids=lambda path: path.stem)
def test_example_workloads_are_valid_and_say_what_they_are(path: Path) -> None:
    assert path.read_text().startswith("# ")
    assert len(list(islice(arrivals(read_workload(path), 0), 100))) == 100


POINT = {
    "variant": "m",
    "precision": "x",
    "encode": {"each_s": 0.1},
    "accuracy": {"box": 0.7, "point": 0.5},
}
LINES = {name: {"fixed_s": 0.001, "each_s": 0.01} for name in ("decode", "survivors", "prepare", "finish")}


def fleet_spec(**changes: Any) -> dict[str, Any]:
    """A fleet's content."""
    profile = {"overhead_s": 0.004, "median_ratio": 0.9, **LINES, "points": [POINT, {**POINT, "variant": "n"}]}
    return {
        "name": "test",
        "gateways": 3,
        "balance": "hash",
        "imaging": {"threads": 2},
        "cache": {"bytes": 2**30},
        "devices": [{"count": 2, "profile": profile, "instances": 2, "points": ["n:x"]}, {"profile": profile}],
        "failures": [{"gateway": 2, "device": 2, "from_s": 1, "to_s": 2}],
        "slow": [{"gateway": 0, "device": 0, "from_s": 1, "to_s": 2, "factor": 3}],
        "noise_seed": 4,
        **changes,
    }


def fleet(**changes: Any) -> Fleet:
    return parse_fleet(yaml.safe_dump(fleet_spec(**changes)).encode())


def test_a_fleet_is_read() -> None:
    found = fleet()
    assert (found.gateways, found.balance, found.threads, found.noise_seed, found.all_devices) == (3, "hash", 2, 4, 9)
    assert [[point.name for point in device.points] for device in found.devices] == [["n:x"], ["n:x"], ["m:x", "n:x"]]
    assert [device.instances for device in found.devices] == [2, 2, 1]
    # An embedding is 4 MiB.
    assert found.embeddings == 256
    assert found.troubles == (Trouble(2, 2, 1, 2), Trouble(0, 0, 1, 2, 3))
    line = found.devices[0].points[0].decode
    assert line(1) == pytest.approx(0.011)
    assert line.median_ratio == 0.9


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"gateways": 0}, "gateways: is 0; it must be a whole number from 1 to 100000"),
        ({"balance": "fair"}, "balance: is 'fair'; it must be one of round_robin, random, least_loaded, hash"),
        ({"devices": []}, "devices: are 0 a gateway; it must be 1 to 1024"),
        ({"imaging": {"weight": 0.5}}, r"imaging\.weight: is 0.5; it must be 0 where a gateway has several devices"),
        ({"imaging": {"crowding": 1.1}}, r"imaging\.crowding: is 1.1; it must be 1 where weight is 0"),
        ({"imaging": {"weight": 0.5, "crowding": 0.9}}, r"imaging\.crowding: is 0.9; it must be"),
        ({"cache": {"bytes": -1}}, r"cache\.bytes: is -1"),
        ({"cache": {"bytes": 1, "embeddings": 1}}, "unknown field 'embeddings'"),
        ({"failures": [{"gateway": 3, "device": 0, "from_s": 0, "to_s": 1}]}, r"failures\[0\]\.gateway: is 3.* 0 to 2"),
        ({"failures": [{"gateway": 0, "device": 0, "from_s": 1, "to_s": 1}]}, "to_s: is 1.0; it must be later"),
        ({"failures": [{"gateway": 0, "device": 0, "from_s": at, "to_s": 5} for at in (1, 2)]}, r"\[1\]: overlaps"),
        ({"slow": [{"gateway": 0, "device": 0, "from_s": 0, "to_s": 1}]}, "factor: is missing"),
        ({"devices": [{"profile": {"overhead_s": 0, "points": []}}]}, "points: is empty"),
        ({"devices": [{"profile": {"overhead_s": 0, "points": [POINT]}}]}, r"points\[0\]\.decode: is missing"),
        ({"devices": [{"profile": {"overhead_s": 0, **LINES, "points": [POINT, POINT]}}]}, "has m:x twice"),
        (
            {"devices": [{"profile": {"overhead_s": 0, **LINES, "points": [{**POINT, "encode": {}}]}}]},
            r"encode: takes no time",
        ),
        (
            {"devices": [{"profile": {"overhead_s": 0, **LINES, "points": [POINT]}, "points": ["o:x"]}]},
            r"devices\[0\]\.points: is 'o:x'; it must be some of m:x",
        ),
    ],
)
def test_errors_in_a_fleet_name_field_value_and_limit(change: dict[str, Any], problem: str) -> None:
    with pytest.raises(InvalidArgument, match=problem):
        fleet(**change)


def test_a_fleet_takes_published_profiles_and_files(tmp_path: Path) -> None:
    published = fleet(devices=[{"count": 2, "profile": "published:a100"}], failures=[], slow=[])
    assert len(published.devices) == 2
    assert "published" in published.origin
    with pytest.raises(ProfileError, match="no published profile 'h900'"):
        fleet(devices=[{"profile": "published:h900"}])
    with pytest.raises(ProfileError, match=r"none\.json can't be read"):
        fleet(devices=[{"profile": "none.json"}])
    with pytest.raises(SamgateError, match=r"nothing\.yaml"):
        read_fleet(tmp_path / "nothing.yaml")


@given(data=st.data(), junk=JUNK)
def test_a_damaged_fleet_is_refused_or_works(data: st.DataObject, junk: Any) -> None:
    path = data.draw(st.sampled_from(places(fleet_spec())))
    try:
        found = parse_fleet(yaml.safe_dump(damaged(fleet_spec(), path, junk), allow_unicode=True).encode())
    except (InvalidArgument, ProfileError) as error:
        message = str(error)
        assert len(message) < 1000
        return
    assert found.gateways >= 1
    assert all(device.points for device in found.devices)


@pytest.mark.parametrize("path", sorted((EXAMPLES / "fleets").glob("*.yaml")), ids=lambda path: path.stem)
def test_example_fleets_are_valid_and_say_what_they_are(path: Path) -> None:
    assert path.read_text().startswith("# ")
    assert read_fleet(path).devices
