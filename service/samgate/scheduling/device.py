"""A processor and what runs on it: calls under way, how far they are, how its speed compares with its profile."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from samgate.scheduling.learning import Decaying
from samgate.scheduling.profile import DeviceProfile, Line, OperatingPoint
from samgate.scheduling.queue import BatchQueue, Priority, Work
from samgate.scheduling.timeline import NOISE_S, Timeline

Stage = Literal["encode", "decode"]
STAGES: tuple[Stage, ...] = ("encode", "decode")

_PACE_WEIGHT, _SKEW_WEIGHT = 0.2, 0.1
_PACE_RANGE = (0.1, 8.0)
_LEAST_RATIO = 0.05
_PACE_MEMORY_S = 30.0
"""A pace that nothing confirms is forgotten at this rate: a slow spell must not keep work away for good."""
_FADE_EVERY_S = 0.05
_BUSY_MEMORY_S = 1.0
_SHARE_MEMORY_S = 10.0
_BATCH_IDS = itertools.count()


@dataclass(slots=True, eq=False)
class Batch:
    """Work that runs as one call. ``seconds`` is what the profile says it takes of the device; ``attained`` how much of
    that it has had. One of several ``lanes`` has as small a part of the device, whether the others are in use or
    not."""

    device: str
    stage: Stage
    point: str
    works: list[Work[Any]]
    line: Line
    started: float
    seconds: float
    lanes: int = 1
    attained: float = 0.0
    number: int = field(default_factory=lambda: next(_BATCH_IDS))
    interactive: bool = field(init=False)
    """Whether any of its work is."""
    due: float = field(init=False)
    """The earliest deadline of its work."""

    def __post_init__(self) -> None:
        self.due = min(work.deadline for work in self.works)
        self.interactive = any(work.priority is Priority.INTERACTIVE for work in self.works)

    @property
    def size(self) -> int:
        """Images or prompts."""
        return sum(work.size for work in self.works)


class Device:
    """State of one device.

    A device runs ``profile.instances`` calls of each stage at once, of SegEvery's as many on each lane. Where it is
    shared, an encoder call and a decoder call that run side by side have half of it each: measured on two cores, 293 ms
    alone become 530 and 16 become 38.
    """

    def __init__(self, name: str, profile: DeviceProfile, max_waiting: int, now: float) -> None:
        self.name = name
        self.profile = profile
        self.points: Mapping[str, OperatingPoint] = {point.name: point for point in profile.points}
        self.timeline = Timeline(3, now)
        """Rows: interactive encodes, interactive decodes, and bulk work of both kinds."""
        self.queues: dict[Stage, BatchQueue[Any]] = {stage: BatchQueue(max_waiting) for stage in STAGES}
        self.running: dict[Stage, list[Batch]] = {stage: [] for stage in STAGES}
        self.available = True
        self._busy = Decaying(_BUSY_MEMORY_S, now)
        self._interactive = Decaying(_SHARE_MEMORY_S, now)
        self._pace, self._skew = 1.0, 1.0
        self._faded = now
        self._capacity: tuple[float, NDArray[np.float64], NDArray[np.float64]] | None = None
        self._now = now

    def resize(self, instances: int) -> None:
        """From now on it runs so many calls of each stage at once; those under way go on."""
        self.profile = replace(self.profile, instances=instances)
        self._capacity = None

    def pace(self, stage: Stage, now: float) -> float:
        """How many times its profile's time a call of ``stage`` takes lately; 1 when it keeps to it."""
        pace, skew = self.paces(now)
        return pace * skew if stage == "encode" else pace

    def paces(self, now: float) -> tuple[float, float]:
        """How many times its profile's time a decoder call takes lately, and how many times that an encoder call does:
        of what threads wait for each other, those that share one image's work have more than those with prompts of
        their own."""
        if now - self._faded > _FADE_EVERY_S:
            kept = math.exp((self._faded - now) / _PACE_MEMORY_S)
            self._pace, self._skew = 1.0 + (self._pace - 1.0) * kept, 1.0 + (self._skew - 1.0) * kept
            self._faded = now
        return self._pace, self._skew

    def capacity(self, pace: float) -> NDArray[np.float64]:
        """Seconds of the profile's time that the device does from time 0 to each of the timeline's edges."""
        edges = self.timeline.edges
        if self._capacity is None or self._capacity[0] != pace or self._capacity[1] is not edges:
            self._capacity = (pace, edges, edges * (self.profile.instances / pace))
        return self._capacity[2]

    def advance(self, now: float) -> None:
        """Let the calls under way get on until ``now``."""
        elapsed = now - self._now
        if elapsed <= 0:
            return
        self._now = now
        both = self.profile.shared and all(self.running.values())
        share = elapsed / 2 if both else elapsed
        worked = 0.0
        for batches in self.running.values():
            for batch in batches:
                batch.attained += share / batch.lanes
            if batches and batches[0].interactive:
                worked += share * len(batches) / self.profile.instances
        if worked > 0:
            self._busy.add(worked, now)
            self._interactive.add(worked, now)

    def busy(self, now: float) -> float:
        """The share of its time that interactive work has had in the last moments, 0 to 1."""
        return min(1.0, self._busy.rate(now))

    def interactive_share(self, now: float) -> float:
        """The share of its time that interactive work has had lately, 0 to 0.95."""
        return min(0.95, self._interactive.rate(now))

    def left(self, stage: Stage, pace: float) -> float:
        """Seconds of this device that the calls of ``stage`` under way still need, in the profile's seconds."""
        seconds = 0.0
        for batch in self.running[stage]:
            # A call that takes longer than it should is expected to take a little more.
            seconds += max(batch.seconds - batch.attained / pace, 0.05 * batch.seconds)
        return seconds

    def takes(self, stage: Stage, point: str, lanes: int) -> bool:
        """Whether a call of ``stage`` at ``point`` can start beside those under way, of which some may be on others of
        its ``lanes``."""
        running, instances = self.running[stage], self.profile.instances
        if len(running) < instances:
            return True
        mates = lanes > 1 and all(batch.lanes == lanes and batch.point == point for batch in running)
        return mates and len(running) < instances * lanes

    def start(self, batch: Batch) -> None:
        """``batch`` runs from now on."""
        self.running[batch.stage].append(batch)

    def finish(self, batch: Batch, now: float, *, failed: bool) -> None:
        """``batch`` has ended. How long it took teaches the pace unless it ``failed``."""
        self.advance(now)
        self.running[batch.stage].remove(batch)
        if not failed and batch.seconds > 0:
            expected = batch.seconds * max(batch.line.median_ratio, _LEAST_RATIO)
            low, high = _PACE_RANGE
            sample = min(max(batch.attained / expected, low), high)
            pace, skew = self.paces(now)
            if batch.stage == "encode":
                # Until decoder calls tell which of both it is: a little of each.
                self._skew += _SKEW_WEIGHT * (sample / pace - skew)
                sample /= skew
            self._pace += _PACE_WEIGHT * (sample - pace)

    def running_due(self, stage: Stage) -> float:
        """The earliest deadline of the calls of ``stage`` under way; infinite without any."""
        due = math.inf
        for batch in self.running[stage]:
            due = min(due, batch.due)
        return due

    def holds(self, stage: Stage, work: Work[Any], seconds: float, now: float) -> bool:
        """Whether ``work``, which takes ``seconds``, must not start: on a shared device it would slow down calls of the
        other stage that are more urgent and can't spare the time."""
        if not self.profile.shared:
            return False
        other: Stage = "decode" if stage == "encode" else "encode"
        pace, others = self.pace(stage, now), self.pace(other, now)
        own_s, left = pace * seconds, self.left(other, others)
        left_s = others * left
        due = self.running_due(other)
        if due < work.deadline and due - now < left_s + min(own_s, left_s):
            return True
        head = self.queues[other].head()
        if head is None or head.deadline >= work.deadline or head.priority > work.priority:
            return False
        row, timeline = STAGES.index(other), self.timeline
        if other == "encode":
            # The timeline counts as decodes do.
            return head.deadline - now < left_s + pace * timeline.before(row, timeline.slot(head.deadline)) + own_s
        # While the encode runs, decodes take twice as long.
        until = timeline.slot(work.deadline)
        first = int(timeline.rows[row].searchsorted(NOISE_S, side="right"))
        room = (timeline.edges[first:until] - now) * (self.profile.instances / others)
        return bool((room < 2.0 * (timeline.rows[row][first:until] + left)).any())

    def interactive(self) -> bool:
        """Whether interactive work runs or waits here."""
        if any(batch.interactive for batches in self.running.values() for batch in batches):
            return True
        heads = (queue.head() for queue in self.queues.values())
        return any(head is not None and head.priority is Priority.INTERACTIVE for head in heads)
