"""Which profile a server starts with, and for which machine."""

from __future__ import annotations

import importlib.metadata
from dataclasses import replace
from pathlib import Path

import pytest

from profiles_support import HERE, StubEngine, operating_point, record, stored
from samgate.config import EngineSettings, Settings, TritonSettings
from samgate.engines.base import Capacity
from samgate.engines.cpu import usable_cores
from samgate.errors import InvalidArgument, NotFound, ProfileError
from samgate.profiles import device
from samgate.profiles.accuracy import evaluated_accuracy, known_accuracy
from samgate.profiles.device import device_profile, instances
from samgate.profiles.files import install_profile, installed_profile, published_profile, write_profile
from samgate.profiles.fingerprint import graphs_identity, this_fingerprint
from samgate.profiles.measure import FULL, QUICK, Measurement, Samples, measure_point
from samgate.profiles.survey import parse_points
from samgate.variants import get_variant
from samgate.variants.spec import PublishedAccuracy

SETTINGS = Settings(engine=EngineSettings(name="openvino"))
SPEC = get_variant("mobilesam")
POINT = operating_point("mobilesam", "bf16")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SAMGATE_HOME", str(tmp_path / "home"))
    return tmp_path


def nothing(message: str) -> None:
    raise AssertionError(message)


def test_a_fingerprint_fits_itself_and_tells_differences() -> None:
    here = this_fingerprint(SETTINGS)
    assert here == this_fingerprint(SETTINGS)
    assert (here.cores, here.engine) == (usable_cores(), "openvino")
    assert here.runtime == importlib.metadata.version("openvino")
    HERE.require(replace(HERE), "p.json")
    other = replace(HERE, cores=8)
    assert other.key != HERE.key
    with pytest.raises(
        ProfileError, match=r"^p\.json was measured with 8 cores, while this machine has 2 cores: run `sam"
    ):
        other.require(HERE, "p.json")
    found = replace(HERE, cpu="Another CPU", features=(), runtime="1.0", threads=1, encode_batch=4).differences(HERE)
    assert found == [
        "the CPU Another CPU, while this machine has the CPU A CPU",
        "the CPU features none of note, while this machine has the CPU features avx2",
        "the runtime 1.0, while this machine has the runtime 2026.4.1",
        "1 engine thread, while this machine has 2 engine threads",
        "4 images a call to encode, while this machine has 1 image a call to encode",
    ]


def test_settings_that_change_calls_change_the_fingerprint() -> None:
    settings = replace(SETTINGS, engine=replace(SETTINGS.engine, threads=3, max_encode_batch=4, max_decode_prompts=32))
    found = this_fingerprint(settings)
    assert (found.threads, found.encode_batch, found.decode_prompts) == (3, 4, 32)
    on_triton = replace(SETTINGS, engine=EngineSettings(name="triton"))
    assert this_fingerprint(on_triton).runtime == "on this machine"
    here = replace(on_triton, triton=TritonSettings(endpoints="127.0.0.1:8001"))
    assert this_fingerprint(here) == this_fingerprint(on_triton)
    there = replace(on_triton, triton=TritonSettings(endpoints="b:8001,a:8001"))
    assert this_fingerprint(there).runtime == "a:8001,b:8001"
    assert "as many images a call to encode as Triton says" in this_fingerprint(there).sentence()


def test_graphs_of_engines_elsewhere_have_no_identity(home: Path) -> None:
    assert graphs_identity(SPEC, StubEngine()) == ""


async def test_all_calls_are_measured_at_their_sizes(home: Path) -> None:
    engine, shares = StubEngine(capacity=Capacity(2, 1, 4, 1)), list[float]()
    measured = await measure_point(SPEC, engine, replace(FULL, megapixels=(0.1,), calls=4, encodes=2), shares.append)
    rounds = 4 + FULL.warm_up
    for kind in ("decode", "survivors"):
        expected = {1: rounds, 2: rounds, 4: rounds + (kind == "decode")}
        assert {size: engine.calls.count((kind, size)) for size in (1, 2, 4)} == expected
    assert engine.calls.count(("encode", 2)) == 2 + FULL.warm_up
    assert shares == sorted(shares)
    assert shares[-1] == 1
    assert measured.point.name == "mobilesam:bf16"
    assert measured.point.finish.each_s + measured.point.finish.fixed_s > 0
    assert measured.point.prepare(1) > 0


async def test_every_pass_counts(home: Path) -> None:
    engine, samples = StubEngine(capacity=Capacity(1, 1, 2, 1)), Samples()
    effort = replace(FULL, megapixels=(0.1,), calls=3, encodes=2)
    await measure_point(SPEC, engine, effort, samples=samples)
    samples.seconds["encode", 1] = [seconds + 1.0 for seconds in samples.seconds["encode", 1]]
    both = await measure_point(SPEC, engine, effort, samples=samples)
    assert {kind: len(taken) for (kind, _), taken in samples.seconds.items()} == {
        "encode": 4, "decode": 6, "survivors": 6, "finish": 6, "prepare": 6,
    }  # fmt: skip
    assert both.point.encode(1) > 1.0  # an earlier pass was slow, and is not forgotten
    assert both.point.encode.median_ratio < 0.6


def test_a_neighbour_shows() -> None:
    assert Measurement(POINT, 0.6).disturbed(2)
    assert not Measurement(POINT, 1.9).disturbed(2)
    assert not Measurement(POINT, 0.0).disturbed(2)


@pytest.mark.parametrize("processors", [2.0 * usable_cores(), 0.1])
async def test_a_server_measures_what_is_missing_once(
    home: Path, monkeypatch: pytest.MonkeyPatch, processors: float
) -> None:
    asked: list[str] = []

    async def measure(spec: object, engine: StubEngine, effort: object) -> Measurement:
        assert effort is QUICK
        asked.append(engine.precision)
        return Measurement(operating_point("mobilesam", engine.precision), processors)

    monkeypatch.setattr(device, "measure_point", measure)
    said: list[str] = []
    first = await device_profile([(SPEC, StubEngine("bf16"))], SETTINGS, None, said.append)
    assert [point.name for point in first.points] == ["mobilesam:bf16"]
    assert 0 < first.overhead_s < 1
    assert "mobilesam:bf16" in said[0]
    both = [(SPEC, StubEngine("f32")), (SPEC, StubEngine("bf16"))]
    second = await device_profile(both, SETTINGS, None, said.append)
    assert [point.name for point in second.points] == ["mobilesam:f32", "mobilesam:bf16"]
    installed = installed_profile(this_fingerprint(SETTINGS))
    if processors > 1:
        assert asked == ["bf16", "f32"]
        assert installed is not None
        assert installed.origin == "quick"
        assert (await device_profile(both[::-1], SETTINGS, None, nothing)).points == second.points[::-1]
    else:
        assert asked == ["bf16", "f32", "bf16"]
        assert installed is None
        assert any("isn't kept" in message for message in said)


async def test_a_server_on_a_read_only_disk_starts_all_the_same(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def measure(*ignored: object) -> Measurement:
        return Measurement(POINT, 2.0 * usable_cores())

    monkeypatch.setattr(device, "measure_point", measure)
    (home / "home").write_text("a file where the folder should be")
    said: list[str] = []
    found = await device_profile([(SPEC, StubEngine())], SETTINGS, None, said.append)
    assert found.points == (replace(POINT, accuracy=known_accuracy(SPEC, "bf16").miou),)
    assert "the profile isn't kept" in said[-1]


async def test_an_explicit_profile_has_to_fit(home: Path) -> None:
    path, here = home / "given.json", this_fingerprint(SETTINGS)
    served = [(SPEC, StubEngine())]
    write_profile(stored(record(POINT), fingerprint=here), path)
    assert (await device_profile(served, SETTINGS, path, nothing)).points == (POINT,)
    with pytest.raises(
        ProfileError, match=r"given.json has no point mobilesam:f32, .* run `samgate profile --points mob"
    ):
        await device_profile([(SPEC, StubEngine("f32"))], SETTINGS, path, nothing)
    with pytest.raises(ProfileError, match="mobilesam:bf16 of other weights, graphs or call sizes"):
        await device_profile([(SPEC, StubEngine(capacity=Capacity(1, 1, 16, 1)))], SETTINGS, path, nothing)
    write_profile(stored(record(POINT), fingerprint=replace(here, cores=here.cores + 6)), path)
    with pytest.raises(ProfileError, match=rf"with {here.cores + 6} cores, while this machine has {here.cores} core"):
        await device_profile(served, SETTINGS, path, nothing)
    write_profile(published_profile("a100"), path)
    with pytest.raises(ProfileError, match="published figures, which are for simulations"):
        await device_profile(served, SETTINGS, path, nothing)


async def test_full_figures_are_used_as_long_as_they_hold(home: Path) -> None:
    full = record(replace(POINT, accuracy={"box": 0.9, "point": 0.8}))
    evaluated = replace(full, accuracy_origin="measured on 31 masks of instances.json")
    for one, accuracy in ((full, known_accuracy(SPEC, "bf16").miou), (evaluated, full.point.accuracy)):
        install_profile(stored(one, fingerprint=this_fingerprint(SETTINGS)))
        found = await device_profile([(SPEC, StubEngine())], SETTINGS, None, nothing)
        assert found.points == (replace(POINT, accuracy=accuracy),)


def test_accuracy_is_our_own_else_published() -> None:
    own = SPEC.precisions["bf16"].accuracy
    assert own is not None
    assert known_accuracy(SPEC, "bf16").miou == {"box": own.box, "point": own.point}
    f32 = SPEC.precisions["f32"].accuracy
    assert f32 is not None
    # Published figures are of other masks: MobileSAM's there are what f32 has here, others' in proportion.
    published = known_accuracy(SPEC, "a plan of somebody else's")
    assert published.miou == {"box": pytest.approx(f32.box), "point": pytest.approx(f32.point)}
    assert published.origin.startswith("published for mobilesam: arXiv 2410.04960, table 6; on the scale of samgate's")
    other = known_accuracy(replace(SPEC, name="other", accuracy=PublishedAccuracy(36.7, 48.6, "a paper")), "?")
    assert other.miou == {"box": pytest.approx(f32.box / 2), "point": pytest.approx(f32.point)}
    halved = known_accuracy(replace(SPEC, accuracy=PublishedAccuracy(73.4, None, "a paper")), "?")
    assert halved.miou["point"] == 0
    assert "nothing of point prompts, which count as 0" in halved.origin
    figures = {"box": {"miou": 0.7, "n": 31}, "point": {"miou": 0.5, "n": 31}}
    assert evaluated_accuracy(figures, "instances.json").origin == "measured on 31 masks of instances.json"


def test_instances_are_counted_without_what_waits_in_triton() -> None:
    settings = Settings(triton=TritonSettings(calls_per_instance=2))
    triton = StubEngine(capacity=Capacity(4, 1, 16, 6))
    triton.name = "triton"
    assert instances([(SPEC, triton)], settings) == 3
    assert instances([(SPEC, StubEngine())], settings) == 1


def test_points_are_named_with_or_without_precision() -> None:
    assert parse_points("mobilesam, mobilesam:int8,mobilesam", "auto") == [(SPEC, "auto"), (SPEC, "int8")]
    with pytest.raises(InvalidArgument, match="names no point"):
        parse_points(" ,", "auto")
    with pytest.raises(NotFound, match="'sam3' is unknown"):
        parse_points("sam3:f32", "auto")
