"""Made-up devices for tests of scheduling: lines without spread, so that predictions are exact."""

from __future__ import annotations

from samgate.scheduling.profile import DeviceProfile, Line, OperatingPoint


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
