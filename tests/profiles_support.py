"""Profiles made up for tests."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from samgate.domain import Choose, FloatArray, Survivors
from samgate.engines.base import Capacity, Decoded, Images, Prompts
from samgate.profiles.fingerprint import Fingerprint
from samgate.profiles.stored import PointRecord, StoredProfile
from samgate.scheduling.profile import DeviceProfile, Line, OperatingPoint

HERE = Fingerprint("A CPU", 2, ("avx2",), "openvino", "2026.4.1", 2, 1, 16)


def operating_point(variant: str, precision: str, encode_s: float = 0.3) -> OperatingPoint:
    """With one image and four prompts a call, as :class:`StubEngine` has them."""
    return OperatingPoint(
        variant=variant,
        precision=precision,
        engine="openvino",
        encode=Line(0.0, encode_s, 0.01, 0.9),
        decode=Line(0.005, 0.01, 0.002, 0.8),
        survivors=Line(0.006, 0.009, 0.002, 0.8),
        prepare=Line(0.002, 0.01, 0.001, 0.9),
        finish=Line(0.001, 0.001, 0.0, 0.9),
        accuracy={"box": 0.7585, "point": 0.5263},
        max_images=1,
        decode_images=1,
        max_prompts=4,
    )


def device(*points: OperatingPoint) -> DeviceProfile:
    """4 ms of overhead."""
    return DeviceProfile(points, 0.004)


def record(point: OperatingPoint, origin: str = "measured", graphs: str = "") -> PointRecord:
    return PointRecord(point, origin, "2026-01-31", graphs, "counted")


def stored(*records: PointRecord, fingerprint: Fingerprint | None = HERE, origin: str = "measured") -> StoredProfile:
    return StoredProfile(fingerprint, "2026-01-31", records, 0.004, origin)


class StubEngine:
    """Answers at once, with nothing in it."""

    name = "openvino"

    def __init__(self, precision: str = "bf16", capacity: Capacity | None = None) -> None:
        self.precision = precision
        self.capacity = capacity or Capacity(1, 1, 4, 1)
        self.calls: list[tuple[str, int]] = []

    async def encode(self, images: Images, deadline: float) -> list[FloatArray]:
        self.calls.append(("encode", len(images.pixels)))
        return [np.zeros((256, 64, 64), np.float32) for _ in images.pixels]

    async def decode(self, embeddings: Sequence[FloatArray], prompts: Prompts, deadline: float) -> Decoded:
        count = prompts.coords.shape[1]
        self.calls.append(("decode", count))
        return Decoded(np.zeros((1, count, 4, 256, 256), np.float32), np.zeros((1, count, 4), np.float32))

    async def survivors(self, embedding: FloatArray, prompts: Prompts, choose: Choose, deadline: float) -> Survivors:
        count = prompts.coords.shape[1]
        self.calls.append(("survivors", count))
        masks, kept = np.zeros((0, 256, 256), np.float32), np.zeros((0, 2), np.int32)
        return Survivors(masks, kept, np.zeros((count, 4), np.float32))

    async def healthy(self) -> bool:
        return True

    async def close(self) -> None:
        self.calls.append(("close", 0))
