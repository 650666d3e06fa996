"""The precision plans that most variants have: floats of every width, none of them measured on ground truth."""

from __future__ import annotations

from samgate.variants.gates import LOW_FLOAT, SAME
from samgate.variants.spec import PrecisionPlan

_RANKED = "for ambiguous prompts, whose masks a bf16 decoder may rank otherwise"


def float_plans(*, bf16: str, fp16: str, mixed: str = _RANKED) -> dict[str, PrecisionPlan]:
    """Plans by name, ``bf16`` preferred, with what is known of each: ``mixed`` is of an encoder in bf16 with a decoder
    in f32. That no accuracy was measured is said here."""
    unmeasured = "no accuracy was measured here"
    return {
        "bf16": PrecisionPlan("bf16", "bf16", f"{bf16}; {unmeasured}", LOW_FLOAT),
        "bf16-encoder": PrecisionPlan("bf16", "f32", f"{mixed}; {unmeasured}", LOW_FLOAT),
        "f32": PrecisionPlan("f32", "f32", "the reference", SAME),
        "fp16": PrecisionPlan("fp16", "fp16", f"{fp16}; {unmeasured}", LOW_FLOAT),
    }
