"""Made-up devices for tests of scheduling: lines without spread, so that predictions are exact. And short ways to ask a
scheduler."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from samgate.scheduling.core import Options, Scheduler
from samgate.scheduling.device import Batch
from samgate.scheduling.profile import DeviceProfile, Line, OperatingPoint
from samgate.scheduling.queue import Work
from samgate.scheduling.request import Job, Refusal, Request, Ticket


def point(
    variant: str,
    *,
    precision: str = "f32",
    encode: Line | float = 0.3,
    decode: Line | float = 0.01,
    box: float = 0.75,
    prompt: float = 0.5,
    max_images: int = 1,
    decode_images: int = 0,
    max_prompts: int = 16,
) -> OperatingPoint:
    """A point whose ``encode`` and ``decode`` are lines, or seconds an item; all else takes no time."""
    free = Line(0.0, 0.0)
    decoder = decode if isinstance(decode, Line) else Line(0.0, decode)
    return OperatingPoint(
        variant=variant,
        precision=precision,
        engine="made up",
        encode=encode if isinstance(encode, Line) else Line(0.0, encode),
        decode=decoder,
        survivors=decoder,
        prepare=free,
        finish=free,
        accuracy={"box": box, "point": prompt},
        max_images=max_images,
        decode_images=decode_images or (1 if max_images == 1 else max_prompts),
        max_prompts=max_prompts,
    )


def profile(*points: OperatingPoint, instances: int = 1, shared: bool = False) -> DeviceProfile:
    """A device with ``points`` and no overhead."""
    return DeviceProfile(points, 0.0, instances, shared)


SLOW = point("slow", encode=0.4, decode=0.01, box=0.80)
FAST = point("fast", encode=0.1, decode=0.01, box=0.70)
PAIR = profile(SLOW, FAST)


def scheduler(device: DeviceProfile = PAIR, **options: Any) -> Scheduler:
    return Scheduler({"cpu": device}, 0.0, Options(**options))


def request(seconds: float, now: float = 0.0, **fields: Any) -> Request:
    wanted = Request(now, now + seconds, "box", 1, image="photo")
    return replace(wanted, **fields)


def admit(core: Scheduler, wanted: Request) -> Ticket:
    ticket = core.admit(wanted, wanted.arrival)
    assert isinstance(ticket, Ticket), ticket
    return ticket


def refuse(core: Scheduler, wanted: Request) -> Refusal:
    refusal = core.admit(wanted, wanted.arrival)
    assert isinstance(refusal, Refusal), refusal.point.name
    return refusal


def encode(core: Scheduler, ticket: Ticket, now: float = 0.0) -> Work[Job]:
    return core.submit(ticket, "encode", 1, "image", None, now)


def decode(core: Scheduler, ticket: Ticket, now: float = 0.0, size: int = 1, key: str = "k") -> Work[Job]:
    return core.submit(ticket, "decode", size, key, None, now)


def only(core: Scheduler, now: float) -> Batch:
    (batch,) = core.step(now).start
    return batch


def busily(core: Scheduler, until: float) -> None:
    """Let one encode after the other run."""
    now = core.devices["cpu"]._now
    while now < until:
        core.submit(admit(core, request(50.0, now, image=f"at {now}")), "encode", 1, "image", None, now)
        batch = only(core, now)
        now += batch.seconds
        core.finish(batch, now)
        for work in batch.works:
            core.close(work.payload.ticket, now, answered=True)
