"""A profile with all that says what it is worth: where, when and how each of its figures came about. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from samgate.profiles.fingerprint import Fingerprint
from samgate.scheduling.profile import DeviceProfile, OperatingPoint

MEASURED, QUICK = "measured", "quick"
PUBLISHED = "published: "
"""What origins of figures that nobody measured here begin with; the rest says whose they are and what is assumed."""
EVALUATED = "measured on "
"""What origins of accuracies begin with that come from a data set of the user's."""


@dataclass(frozen=True, slots=True)
class PointRecord:
    """An operating point, and about it: ``origin`` ("measured", "quick" or "published: …"), ``created`` (ISO date), the
    identity of the ``graphs`` that ran (empty where only servers know), and where its accuracy is from."""

    point: OperatingPoint
    origin: str
    created: str
    graphs: str
    accuracy_origin: str

    def outlasts(self, newer: PointRecord) -> bool:
        """Whether it stays when ``newer`` comes: a full measurement isn't given up for a quick one of the same."""
        return self.origin == MEASURED and newer.origin == QUICK and self.same_calls(newer.point, newer.graphs)

    def after(self, older: PointRecord) -> PointRecord:
        """This in place of ``older``, whose accuracy stays if it is from a data set and this one's isn't."""
        mine, theirs = (one.accuracy_origin.startswith(EVALUATED) for one in (self, older))
        if mine or not theirs or not older.same_calls(self.point, self.graphs):
            return self
        point = replace(self.point, accuracy=older.point.accuracy)
        return replace(self, point=point, accuracy_origin=older.accuracy_origin)

    def same_calls(self, point: OperatingPoint, graphs: str) -> bool:
        """Whether it is about ``point``'s graphs, in calls of the same size."""
        return (self.point.name, self.point.engine, self.graphs) == (point.name, point.engine, graphs) and (
            self.point.max_images,
            self.point.decode_images,
            self.point.max_prompts,
        ) == (point.max_images, point.decode_images, point.max_prompts)


@dataclass(frozen=True, slots=True)
class StoredProfile:
    """What a file holds. ``fingerprint`` is None for published figures, which belong to no machine of ours.

    ``overhead_s``, ``instances`` and ``shared`` are :class:`~samgate.scheduling.profile.DeviceProfile`'s.
    """

    fingerprint: Fingerprint | None
    created: str
    records: tuple[PointRecord, ...]
    overhead_s: float
    overhead_origin: str
    instances: int = 1
    shared: bool = True

    @property
    def device(self) -> DeviceProfile:
        """The figures alone, as the scheduler takes them."""
        points = tuple(record.point for record in self.records)
        return DeviceProfile(points, self.overhead_s, self.instances, self.shared)

    @property
    def origin(self) -> str:
        """Its figures' worst: "quick" if any is, else "measured" or "published: …"."""
        origins = [*(record.origin for record in self.records), self.overhead_origin]
        return min(origins, key=lambda origin: (origin != QUICK, not origin.startswith(PUBLISHED)))

    @property
    def accuracy_origins(self) -> Mapping[str, str]:
        """Where accuracies are from, by the point's name."""
        return {record.point.name: record.accuracy_origin for record in self.records}

    def record(self, name: str) -> PointRecord | None:
        """Of the point ``variant:precision``."""
        return next((record for record in self.records if record.point.name == name), None)


def merged(old: StoredProfile | None, new: StoredProfile) -> StoredProfile:
    """``old`` with what is ``new``, of the same fingerprint: quick figures never replace full ones that still hold, and
    accuracies from a data set are replaced by such alone.

    Points of ``new`` come after those of ``old`` that it doesn't have.
    """
    if old is None:
        return new
    kept = {record.point.name: record for record in old.records}
    for record in new.records:
        before = kept.get(record.point.name)
        if before is None:
            kept[record.point.name] = record
        elif not before.outlasts(record):
            kept[record.point.name] = record.after(before)
        elif record.accuracy_origin.startswith(EVALUATED):
            accurate = replace(before.point, accuracy=record.point.accuracy)
            kept[record.point.name] = replace(before, point=accurate, accuracy_origin=record.accuracy_origin)
    overhead = old if old.overhead_origin == MEASURED and new.overhead_origin == QUICK else new
    return replace(
        new,
        records=tuple(kept.values()),
        overhead_s=overhead.overhead_s,
        overhead_origin=overhead.overhead_origin,
    )
