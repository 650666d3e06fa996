"""The profile that a server starts with: given, installed, or measured now as far as it is missing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from samgate.config import Settings
from samgate.engines.base import Engine
from samgate.errors import ProfileError, SamgateError
from samgate.profiles.accuracy import Accuracy, known_accuracy
from samgate.profiles.files import install_profile, installed_profile, read_profile
from samgate.profiles.fingerprint import Fingerprint, graphs_identity, this_fingerprint
from samgate.profiles.measure import QUICK, Measurement, measure_point
from samgate.profiles.overhead import estimated_overhead
from samgate.profiles.stored import EVALUATED, PointRecord, StoredProfile, merged
from samgate.scheduling.profile import DeviceProfile
from samgate.variants.detections import MOST
from samgate.variants.spec import VariantSpec

Served = tuple[VariantSpec, Engine]


async def device_profile(
    engines: Sequence[Served], settings: Settings, path: Path | None, report: Callable[[str], None]
) -> DeviceProfile:
    """The operating points of ``engines``, in their order; nobody else may use these meanwhile.

    With ``path`` the profile in that file. Else the installed one, with the accuracies that are known today unless they
    are from a data set; points that it doesn't have, or has of other graphs, are measured quickly, 3 to 5 s each on two
    cores, and installed.

    Args:
        report: gets a line for what takes long.

    Raises:
        ProfileError: the file is damaged, of another machine, or without a point that is served.
        SamgateError: what the engines raise while they are measured.
    """
    here = this_fingerprint(settings)
    if path is not None:
        return _given(read_profile(path), path, engines, here)
    stored = installed_profile(here)
    missing = [(spec, engine) for spec, engine in engines if _record(stored, spec, engine) is None]
    if stored is None or missing:
        for spec, engine in missing:
            report(
                f"measuring how fast {spec.name}:{engine.precision} is here (once; `samgate profile` does it better)"
            )
        found = [await measure_point(spec, engine, QUICK) for spec, engine in missing]
        records = [point_record(*served, one, QUICK.origin) for served, one in zip(missing, found, strict=True)]
        measured = new_profile(here, records, await estimated_overhead(), QUICK.origin, instances(engines, settings))
        if any(one.disturbed(here.threads) for one in found):
            report("others were using the processors, so that the measurement isn't kept; the next start measures anew")
            stored = merged(stored, measured)
        else:
            stored = _install(measured, stored, report)
    return _device(_current(stored, engines), engines)


def point_record(
    spec: VariantSpec, engine: Engine, measured: Measurement, origin: str, accuracy: Accuracy | None = None
) -> PointRecord:
    """What is kept of a point that has just been ``measured``; ``accuracy`` replaces what is known without."""
    accuracy = accuracy or known_accuracy(spec, engine.precision)
    point = replace(measured.point, accuracy=accuracy.miou)
    return PointRecord(point, origin, _today(), graphs_identity(spec, engine), accuracy.origin)


def new_profile(
    here: Fingerprint, records: Sequence[PointRecord], overhead_s: float, overhead_origin: str, instances: int
) -> StoredProfile:
    """A profile of what has just been measured on this machine."""
    return StoredProfile(here, _today(), tuple(records), round(overhead_s, 7), overhead_origin, instances)


def instances(engines: Sequence[Served], settings: Settings) -> int:
    """Calls of a kind that run side by side: to Triton more are under way, so that the next is there when one ends."""
    deep = settings.triton.calls_per_instance if any(engine.name == "triton" for _, engine in engines) else 1
    return max(1, min((engine.capacity.parallel_calls // max(1, deep) for _, engine in engines), default=1))


def _given(profile: StoredProfile, path: Path, engines: Sequence[Served], here: Fingerprint) -> DeviceProfile:
    if profile.fingerprint is None:
        raise ProfileError(f"{path} holds published figures, which are for simulations: run `samgate profile`")
    profile.fingerprint.require(here, str(path))
    for spec, engine in engines:
        name = f"{spec.name}:{engine.precision}"
        record = profile.record(name)
        if record is None:
            has = ", ".join(one.point.name for one in profile.records) or "none"
            raise ProfileError(
                f"{path} has no point {name}, which is served; it has {has}: run `samgate profile --points {name}`"
            )
        if not _fits(record, spec, engine):
            raise ProfileError(
                f"{path} has {name} of other weights, graphs or call sizes than are served: "
                f"run `samgate profile --points {name}`"
            )
    return _device(profile, engines)


def _record(stored: StoredProfile | None, spec: VariantSpec, engine: Engine) -> PointRecord | None:
    found = stored.record(f"{spec.name}:{engine.precision}") if stored is not None else None
    return found if found is not None and _fits(found, spec, engine) else None


def _fits(record: PointRecord, spec: VariantSpec, engine: Engine) -> bool:
    capacity = engine.capacity
    point = record.point
    return (record.graphs, point.engine, point.max_images, point.decode_images, point.max_prompts) == (
        graphs_identity(spec, engine),
        engine.name,
        capacity.max_images,
        capacity.decode_images,
        capacity.max_prompts,
    )


def _current(stored: StoredProfile, engines: Sequence[Served]) -> StoredProfile:
    """``stored`` with what is known of accuracy by now: a later samgate may know more than the one that measured."""
    known = {f"{spec.name}:{engine.precision}": known_accuracy(spec, engine.precision) for spec, engine in engines}

    def current(record: PointRecord) -> PointRecord:
        accuracy = known.get(record.point.name)
        if accuracy is None or record.accuracy_origin.startswith(EVALUATED):
            return record
        point = replace(record.point, accuracy=accuracy.miou)
        return replace(record, point=point, accuracy_origin=accuracy.origin)

    return replace(stored, records=tuple(map(current, stored.records)))


def _install(new: StoredProfile, old: StoredProfile | None, report: Callable[[str], None]) -> StoredProfile:
    """What is installed now; where that can't be, as on a read-only disk, what would be."""
    try:
        return install_profile(new)
    except SamgateError as error:
        report(f"the profile isn't kept, the next start measures again: {error}")
        return merged(old, new)


def _device(profile: StoredProfile, engines: Sequence[Served]) -> DeviceProfile:
    wanted = [f"{spec.name}:{engine.precision}" for spec, engine in engines]
    by_name = {point.name: point for point in profile.device.points}
    points = (
        replace(
            by_name[name],
            together=engine.capacity.together,
            lanes=engine.capacity.lanes,
            most_masks=MOST if spec.finds_everything else None,
        )
        for name, (spec, engine) in zip(wanted, engines, strict=True)
    )
    return replace(profile.device, points=tuple(points))


def _today() -> str:
    return f"{datetime.now(UTC):%Y-%m-%d}"
