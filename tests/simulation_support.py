"""Small fleets and workloads for tests of the simulator and, through it, of the scheduler."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import yaml

from samgate.scheduling.core import Options, Scheduler
from samgate.scheduling.policy import POLICIES
from samgate.scheduling.profile import DeviceProfile, Line, OperatingPoint, PromptKind
from samgate.scheduling.request import Step
from samgate.simulation.fleet import Fleet
from samgate.simulation.outcome import Run
from samgate.simulation.simulator import simulate
from samgate.simulation.workload import Workload, parse_workload

NOTHING = Line(0.0, 0.0)
DECODE = Line(0.004, 0.01)


def point(
    name: str = "a:x",
    encode_s: float = 0.1,
    decode: Line = DECODE,
    accuracy: float = 0.7,
    *,
    prepare: Line = NOTHING,
    finish: Line = NOTHING,
    ratio: float = 1.0,
    max_images: int = 1,
    decode_images: int = 0,
    max_prompts: int = 16,
) -> OperatingPoint:
    """An operating point whose encoder takes ``encode_s`` an image."""
    variant, precision = name.split(":")
    encode = Line(0.0, encode_s, 0.0, ratio)
    decode = Line(decode.fixed_s, decode.each_s, 0.0, ratio)
    accuracies: dict[PromptKind, float] = {"box": accuracy, "point": accuracy}
    images = decode_images or (1 if max_images == 1 else max_prompts)
    return OperatingPoint(
        variant, precision, "test", encode, decode, decode, prepare, finish, accuracies, max_images, images, max_prompts
    )  # fmt: skip


def fleet(
    *points: OperatingPoint,
    devices: int = 1,
    overhead_s: float = 0.0,
    instances: int = 1,
    shared: bool = True,
    **options: Any,
) -> Fleet:
    """A fleet of one gateway, unless ``options`` say otherwise."""
    profile = DeviceProfile(points or (point(),), overhead_s, instances, shared)
    return Fleet("test", **{"gateways": 1, "devices": (profile,) * devices, **options})


def two_cores(**options: Any) -> Fleet:
    """A CPU with four points between fast and accurate, as measured on two cores."""
    made = [
        point(
            name, seconds, Line(0.004, 0.0105), accuracy,
            prepare=Line(0.003, 0.008), finish=Line(0, 0.0015), ratio=0.9,
        )
        for name, seconds, accuracy in (
            ("m:bf16", 0.3, 0.7585), ("m:int8", 0.2, 0.758), ("m-768:bf16", 0.14, 0.71), ("m-512:bf16", 0.05, 0.67),
        )
    ]  # fmt: skip
    return fleet(*made, overhead_s=0.004, weight=0.5, **options)


def workload(*classes: dict[str, Any], rate: float = 5.0, per_image: float = 1, **changes: Any) -> Workload:
    """A Poisson workload of a minute; ``classes`` default to one point within a second."""
    content: dict[str, Any] = {
        "name": "test",
        "duration_s": 60,
        "arrivals": {"process": "poisson", "rate": rate},
        "images": {"requests_per_image": per_image, "session_s": 10, "megapixels": 1},
        "requests": [
            {"name": str(place), "kind": "point", "prompts": 1, "deadline_s": 1, **one}
            for place, one in enumerate(classes or ({},))
        ],
        **changes,
    }
    return parse_workload(yaml.safe_dump(content).encode())


def workload_spec(**changes: Any) -> dict[str, Any]:
    """A workload's content, with something of everything."""
    return {
        "name": "test",
        "duration_s": 400,
        "arrivals": {"process": "poisson", "rate": 25},
        "images": {"requests_per_image": 8, "session_s": 20, "megapixels": {"uniform": [0.5, 2]}},
        "requests": [
            {"name": "clicks", "weight": 3, "kind": "point", "prompts": 1, "deadline_s": 0.5},
            {
                "name": "boxes",
                "kind": "box",
                "prompts": {"choices": {1: 1, 4: 1}},
                "deadline_s": {"choices": {1: 1, 2: 3}},
                "clients": {"a": 1, "b": 9},
                "min_accuracy": 0.7,
                "points": ["m:bf16"],
            },
        ],
        **changes,
    }


def trace(folder: Any, entries: Sequence[dict[str, Any]]) -> Workload:
    """Exactly these requests; what they don't say is one point on a megapixel, within ten seconds."""
    basis = {"image": 0, "megapixels": 1, "kind": "point", "prompts": 1, "deadline_s": 10}
    (folder / "trace.jsonl").write_text("".join(json.dumps({**basis, **entry}) + "\n" for entry in entries))
    content = {"name": "trace", "duration_s": 1000, "arrivals": {"process": "replay", "file": "trace.jsonl"}}
    return parse_workload(yaml.safe_dump(content).encode(), folder=folder)


def run(work: Workload, on: Fleet, policy: str = "samgate", seed: int = 0, **options: Any) -> Run:
    """Simulate."""
    return simulate(work, on, Options(policy=POLICIES[policy]), seed, **options)


class Rules:
    """Watches every step for what the scheduler must never do."""

    def __init__(self) -> None:
        self.started: list[tuple[float, str, str, tuple[int, ...]]] = []
        self.schedulers: list[Scheduler] = []

    def at_rest(self) -> None:
        """Check that nothing is left of requests that have all ended."""
        for scheduler in self.schedulers:
            assert scheduler.open == 0
            for device in scheduler.devices.values():
                assert not any(device.running.values())
                assert not any(len(queue) for queue in device.queues.values())
                for row in range(3):
                    assert abs(device.timeline.total[row]) < 1e-6, f"row {row} keeps {device.timeline.total[row]:.4f} s"

    def __call__(self, scheduler: Scheduler, step: Step, now: float) -> None:
        if scheduler not in self.schedulers:
            self.schedulers.append(scheduler)
        for batch in step.start:
            device = scheduler.devices[batch.device]
            head, mates = batch.works[0], batch.works[1:]
            place = f"{batch.stage} on {batch.device} at {now:.4f}"
            point = device.points[batch.point]
            limit = point.max_images if batch.stage == "encode" else point.max_prompts
            if batch.stage == "decode" and point.decode_images > 1:
                assert len(batch.works) <= point.decode_images, f"{len(batch.works)} images in a call: {place}"
            assert batch.size <= max(limit, head.size), f"batch of {batch.size} > {limit}: {place}"
            assert {work.key for work in batch.works} == {head.key}, f"mixed keys: {place}"
            assert len(device.running[batch.stage]) <= device.profile.instances, f"too many calls: {place}"
            assert device.available, f"on a device that is down: {place}"
            waiting = device.queues[batch.stage].head()
            if waiting is not None:
                first, then = (head.priority, head.deadline), (waiting.priority, waiting.deadline)
                assert first <= then, f"{first} started before {then}: {place}"
            for work in batch.works:
                job = work.payload
                latest = job.ticket.encoding.hard if job.ticket.encoding is not None else job.hard
                assert now <= max(latest, job.hard), (
                    f"{work.priority!r}, started {now - job.hard:.4f} s too late: {place}"
                )
                if not job.ticket.joined and (job.ticket.encoding is None or job.ticket.encoding.users == 1):
                    assert now <= job.ticket.request.deadline, f"started after its deadline: {place}"
                assert job.ticket.device is device
            assert all(mate.deadline >= head.deadline for mate in mates if mate.priority is head.priority)
            self.started.append((now, batch.device, batch.stage, tuple(work.size for work in batch.works)))
        for work in step.dropped:
            assert not work.waiting
