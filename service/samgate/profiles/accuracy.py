"""How well operating points do by kind of prompt, and who says so."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from samgate.profiles.stored import EVALUATED
from samgate.scheduling.profile import PROMPT_KINDS, PromptKind
from samgate.variants import DEFAULT_VARIANT, get_variant
from samgate.variants.spec import VariantSpec


@dataclass(frozen=True, slots=True)
class Accuracy:
    """mIoU by kind of prompt, 0 to 1, and its ``origin`` in words."""

    miou: Mapping[PromptKind, float]
    origin: str


def known_accuracy(spec: VariantSpec, precision: str) -> Accuracy:
    """What is known of ``spec`` at ``precision`` without measuring: samgate's own figures for the plan, else published
    ones for the variant, brought to the scale of samgate's. What nobody says counts as 0, so that no request that asks
    for accuracy gets there."""
    plan = spec.precisions.get(precision)
    measured = plan.accuracy if plan is not None else None
    if measured is not None:
        return Accuracy({"box": measured.box, "point": measured.point}, "samgate's own, on 616 masks: samgate.variants")
    published = spec.accuracy
    percent = {"box": published.box_miou, "point": published.point_miou}
    origin = f"published for {spec.name}: {published.origin}; on the scale of samgate's own, by {DEFAULT_VARIANT}'s"
    missing = [kind for kind in PROMPT_KINDS if percent[kind] is None]
    if missing:
        origin += f"; nothing of {' and '.join(missing)} prompts, which count as 0"
    scales = _scales()
    return Accuracy({kind: min(1.0, scales[kind] * (percent[kind] or 0.0) / 100) for kind in PROMPT_KINDS}, origin)


def _scales() -> dict[PromptKind, float]:
    """By how much more masks of ours overlap than COCO's do: that of MobileSAM, of which both are known.

    Without it, variants of which only published figures are known would be taken for less accurate than they are
    beside those that were measured.
    """
    reference = get_variant(DEFAULT_VARIANT)
    measured, published = reference.precisions["f32"].accuracy, reference.accuracy
    if measured is None or published.box_miou is None or published.point_miou is None:
        raise ValueError(f"{DEFAULT_VARIANT} needs figures of both kinds")
    return {"box": 100 * measured.box / published.box_miou, "point": 100 * measured.point / published.point_miou}


def evaluated_accuracy(summary: Mapping[str, Any], dataset: str) -> Accuracy:
    """What :func:`samgate.evaluation.summary.summarise` found on the file called ``dataset``."""
    return Accuracy(
        {kind: float(summary[kind]["miou"]) for kind in PROMPT_KINDS},
        f"{EVALUATED}{summary['box']['n']} masks of {dataset}",
    )
