"""All of ``samgate profile``: points in turns, what a gateway adds, and accuracies, installed on the way."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from samgate import loop
from samgate.api.local import local_gateway
from samgate.client import Client
from samgate.config import Settings
from samgate.engines.base import Engine
from samgate.engines.load import load_engine, own_server
from samgate.errors import InvalidArgument
from samgate.evaluation.dataset import LabelledImage
from samgate.evaluation.runner import evaluate
from samgate.evaluation.summary import summarise
from samgate.profiles.accuracy import Accuracy, evaluated_accuracy
from samgate.profiles.device import instances, new_profile, point_record
from samgate.profiles.files import install_profile
from samgate.profiles.fingerprint import this_fingerprint
from samgate.profiles.measure import Effort, Measurement, Samples, measure_point
from samgate.profiles.overhead import estimated_overhead, gateway_overhead
from samgate.profiles.stored import PointRecord, StoredProfile
from samgate.variants import get_variant
from samgate.variants.spec import VariantSpec

Stage = Callable[[str], AbstractContextManager[Callable[[float], None]]]
"""Makes a context for a stage of the work with the name that it gets; yields what is told the share that is done."""


@dataclass(frozen=True, slots=True)
class LabelledSet:
    """A data set to measure accuracy on: ``path`` of its file, and its ``images``."""

    path: Path
    images: Sequence[LabelledImage]


@dataclass(slots=True)
class _Point:
    """A point that is measured: the ``settings`` that serve it alone, and its ``record`` once it was."""

    spec: VariantSpec
    settings: Settings
    samples: Samples = field(default_factory=Samples)
    instances: int = 1
    record: PointRecord = field(init=False)


def parse_points(text: str, precision: str) -> list[tuple[VariantSpec, str]]:
    """Variants and precisions of ``variant`` and ``variant:precision``, comma-separated; those without get
    ``precision``. Raises InvalidArgument and NotFound."""
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise InvalidArgument("points", "names no point")
    parts = [name.partition(":") for name in dict.fromkeys(names)]
    return [(get_variant(variant), plan or precision) for variant, _, plan in parts]


def survey(
    points: Sequence[tuple[VariantSpec, str]],
    settings: Settings,
    effort: Effort,
    labelled: LabelledSet | None,
    stage: Stage,
    report: Callable[[str], None],
) -> StoredProfile:
    """Measures ``points`` with the engine of ``settings`` and installs them; returns these alone as they are installed.

    Raises what loading and calling engines raises, and ProfileError when nothing can be installed.
    """
    here = this_fingerprint(settings)
    found = [
        _Point(
            spec,
            replace(
                settings,
                variants=spec.name,
                engine=replace(settings.engine, precision=precision),
                scheduling=replace(settings.scheduling, profile=""),
            ),
        )
        for spec, precision in points
    ]
    # In turns, so that a machine's slow minutes are not one point's alone.
    for turn in range(effort.passes):
        with stage(f"pass {turn + 1} of {effort.passes}") as advance:
            for place, point in enumerate(found):
                measured = _take_turn(point, effort, partial(_advance, advance, place, len(found)), report)
                if turn == effort.passes - 1 and measured.disturbed(here.threads):
                    report(
                        f"{point.record.point.name} had {measured.processors:.1f} processors in the mean, of "
                        f"{here.threads}: others were using them, and the figures are too high"
                    )
    count = found[-1].instances
    records = {point.record.point.name: point.record for point in found}
    # Kept before a gateway is started, which looks for a profile of what it serves.
    install_profile(new_profile(here, list(records.values()), loop.run(estimated_overhead()), "quick", count))
    overhead_s = 0.0
    for place, point in enumerate(found if labelled else found[:1]):
        name = point.record.point.name
        with stage(f"{name} in a gateway") as advance, local_gateway(point.settings, report) as target:
            if place == 0:
                overhead_s = gateway_overhead(target, point.record.point.variant, effort.origin)
            if labelled is not None:
                accuracy = _evaluate(target, labelled, point.record.point.variant, advance)
                records[name] = _with_accuracy(point.record, accuracy)
            advance(1.0)
    everything = install_profile(new_profile(here, list(records.values()), overhead_s, effort.origin, count))
    return replace(everything, records=tuple(one for one in everything.records if one.point.name in records))


def _advance(advance: Callable[[float], None], place: int, places: int, share: float) -> None:
    advance((place + share) / places)


def _take_turn(
    point: _Point, effort: Effort, advance: Callable[[float], None], report: Callable[[str], None]
) -> Measurement:
    """One pass over the calls of ``point``, with what earlier ones found."""
    with own_server(point.settings, report) as served:
        engine = load_engine(point.spec, served, report)
        point.instances = instances([(point.spec, engine)], point.settings)
        measured = loop.run(_measure(point, engine, effort, advance))
    point.record = point_record(point.spec, engine, measured, effort.origin)
    return measured


async def _measure(point: _Point, engine: Engine, effort: Effort, advance: Callable[[float], None]) -> Measurement:
    try:
        return await measure_point(point.spec, engine, effort, advance, point.samples)
    finally:
        await engine.close()


def _evaluate(target: str, labelled: LabelledSet, variant: str, advance: Callable[[float], None]) -> Accuracy:
    done = 0

    def on_image() -> None:
        nonlocal done
        done += 1
        advance(done / len(labelled.images))

    with Client(target) as client:
        evaluation = evaluate(client, labelled.images, variant, on_image)
    return evaluated_accuracy(summarise(evaluation), labelled.path.name)


def _with_accuracy(record: PointRecord, accuracy: Accuracy) -> PointRecord:
    point = replace(record.point, accuracy=accuracy.miou)
    return replace(record, point=point, accuracy_origin=accuracy.origin)
