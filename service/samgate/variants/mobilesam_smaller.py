"""MobileSAM's weights at smaller encoder inputs: a fraction of an encode's time, for detail that isn't seen any more.

Only the encoder differs; prompts, masks and decoders are MobileSAM's. Measured in ``docs/input-sizes.md``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from samgate.variants.mobilesam import SPEC
from samgate.variants.spec import MeasuredAccuracy, PublishedAccuracy, VariantSpec

_UNPUBLISHED = PublishedAccuracy(box_miou=None, point_miou=None, origin="published for inputs of 1024 alone")


def _at(size: int, measured: Mapping[str, tuple[MeasuredAccuracy | None, str]]) -> VariantSpec:
    """MobileSAM with an input of ``size``. ``measured`` holds accuracy and reason of MobileSAM's plans at this size."""
    return replace(
        SPEC,
        name=f"{SPEC.name}-{size}",
        title=f"{SPEC.title} at {size}",
        weights=SPEC.weights_name,
        accuracy=_UNPUBLISHED,
        input_size=size,
        precisions={
            name: replace(SPEC.precisions[name], accuracy=accuracy, reason=reason)
            for name, (accuracy, reason) in measured.items()
        },
    )


SPEC_768 = _at(
    768,
    {
        "bf16": (
            MeasuredAccuracy(box=0.7141, point=0.5014),
            "boxes lose 0.0005 against f32 and points nothing, at almost twice its speed",
        ),
        "bf16-encoder": (
            MeasuredAccuracy(box=0.7145, point=0.5014),
            "0.0001 from f32: for prompts whose masks a bf16 decoder ranks otherwise now and then",
        ),
        "f32": (MeasuredAccuracy(box=0.7146, point=0.5012), "the reference at this size"),
        "fp16": (
            None,
            "in 8 photographs and 186 prompts no activation outside of the islands passed 399, and fp16 ends at 65,504",
        ),
        "int8": (
            MeasuredAccuracy(box=0.7137, point=0.4997),
            "boxes lose 0.0009 against f32 and points 0.0015, for three quarters of bf16's time an image",
        ),
    },
)
SPEC_512 = _at(
    512,
    {
        "bf16": (
            MeasuredAccuracy(box=0.6809, point=0.4066),
            "loses nothing against f32 that can be measured, at almost twice its speed",
        ),
        "bf16-encoder": (
            MeasuredAccuracy(box=0.6810, point=0.4060),
            "f32's accuracy: for prompts whose masks a bf16 decoder ranks otherwise now and then",
        ),
        "f32": (MeasuredAccuracy(box=0.6809, point=0.4057), "the reference at this size"),
        "fp16": (
            None,
            "in 8 photographs and 186 prompts no activation outside of the islands passed 437, and fp16 ends at 65,504",
        ),
        "int8": (
            MeasuredAccuracy(box=0.6800, point=0.3989),
            "boxes lose 0.0009 against f32 and points 0.007, for seven tenths of bf16's time an image",
        ),
    },
)
SPECS = (SPEC_768, SPEC_512)
