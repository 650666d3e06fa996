"""What a scheduler thinks of its devices at one moment, for those who watch it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from samgate.scheduling.core import Scheduler
from samgate.scheduling.device import STAGES, Device, Stage
from samgate.scheduling.view import BULK, View


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Of all devices together.

    ``queued_s`` is how long they need, at the pace that is seen, for all that runs, waits or was promised, bulk work
    included; ``busy`` the share of their time (0 to 1) that interactive work has had in the last moments; ``paces`` how
    many times its profile's time a call of each stage takes lately, on the slowest device; ``margins_s`` ε by operating
    point and whether its image is new.
    """

    queued_s: float
    busy: float
    paces: Mapping[Stage, float]
    margins_s: Mapping[tuple[str, bool], float]


def snapshot(scheduler: Scheduler, now: float) -> Snapshot:
    """``scheduler`` as it is ``now``."""
    devices = scheduler.devices.values()
    points = {name for device in devices for name in device.points}
    return Snapshot(
        queued_s=sum(_queued_s(device, now) for device in devices),
        busy=sum(device.busy(now) for device in devices) / len(devices),
        paces={stage: max(device.pace(stage, now) for device in devices) for stage in STAGES},
        margins_s={(name, new): scheduler.margin(name, new, now) for name in points for new in (False, True)},
    )


def _queued_s(device: Device, now: float) -> float:
    device.advance(now)
    view = View(device, now)
    return view.queued_s + view.timeline.total[BULK] * view.pace / view.instances
