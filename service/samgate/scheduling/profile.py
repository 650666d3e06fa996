"""What the scheduler knows about speed and accuracy, measured: pure data, see :mod:`samgate.profiles` for the files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

PromptKind = Literal["box", "point"]
"""Accuracy differs between them by more than between variants. A prompt with a box counts as one, all others as a
point."""

PROMPT_KINDS: tuple[PromptKind, ...] = ("box", "point")


@dataclass(frozen=True, slots=True)
class Line:
    """How long a call takes that holds ``n`` items: ``fixed_s + each_s · n`` seconds at the 95th percentile.

    ``residual_s`` is the largest distance of a measured 95th percentile from the line; ``median_ratio`` (0 to 1) what
    the median is of the 95th percentile.
    """

    fixed_s: float
    each_s: float
    residual_s: float = 0.0
    median_ratio: float = 1.0

    def __call__(self, n: float) -> float:
        """Seconds for ``n`` items."""
        return self.fixed_s + self.each_s * n


@dataclass(frozen=True, slots=True)
class OperatingPoint:
    """One way to answer: a variant at a precision, on the engine that it was measured on.

    ``encode`` is by images, ``decode`` by prompts (I × P), ``survivors`` by prompts of SegEvery; ``prepare`` is what
    happens to an image before it is encoded (decode, resize), by megapixels; ``finish`` what happens to logits after
    the decoder (masks, formats), by prompts. ``accuracy`` is mIoU, 0 to 1. ``max_images`` bounds an encoder call;
    ``decode_images`` and ``max_prompts`` bound a decoder call. ``lanes`` of SegEvery's calls run side by side, each
    with its share of the device, and ``together`` of a call's prompts take as long as one.
    """

    variant: str
    precision: str
    engine: str
    encode: Line
    decode: Line
    survivors: Line
    prepare: Line
    finish: Line
    accuracy: Mapping[PromptKind, float]
    max_images: int
    decode_images: int
    max_prompts: int
    together: int = 1
    lanes: int = 1
    most_masks: int | None = None
    """Of one image or crop, where SegEvery has these masks without a prompt for each."""
    name: str = field(init=False, compare=False)
    """``variant:precision``, which requests may name."""
    lane: Line = field(init=False, compare=False)
    """What a call of SegEvery takes of the device while all lanes are in use, by prompts."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", f"{self.variant}:{self.precision}")
        object.__setattr__(self, "lane", replace(self.survivors, fixed_s=self.survivors.fixed_s / self.lanes))


@dataclass(frozen=True, slots=True)
class DeviceProfile:
    """What shares one processor: its operating points, measured one call at a time.

    ``overhead_s`` is a request's time outside of everything that has a line (gRPC, scheduling), at the 95th
    percentile. ``instances`` calls of a kind run side by side at full speed; where ``shared`` an encoder call and a
    decoder call that run at once share the processor and take turns.
    """

    points: tuple[OperatingPoint, ...]
    overhead_s: float
    instances: int = 1
    shared: bool = True
