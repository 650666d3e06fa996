"""EfficientViT-SAM (Zhang et al., 2024): EfficientViT's large networks as image encoders, first distilled from SAM
ViT-H, then trained with SAM's decoder end to end."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from samgate.variants.islands import SAM_ISLANDS
from samgate.variants.plans import float_plans
from samgate.variants.spec import (
    Island,
    PrecisionPlan,
    PublishedAccuracy,
    ResizeRule,
    UrlSource,
    VariantSpec,
)

EFFICIENTVIT_ISLANDS: tuple[Island, ...] = (
    Island(
        name="linear attention",
        operators=("Relu", "MatMul", "ReduceSum", "Add", "Div"),
        names=r"/context_module/main/[^/]+$",
        reason="sums of products over all tokens, without a softmax that would bound them, divided by one that may be "
        "no more than 1e-15, which is 0 in fp16. With these in fp16 people found L2's mIoU to be 0.0 instead of 79.1, "
        "and that f32 mends it (mit-han-lab/efficientvit, issues 113 and 116)",
    ),
    *SAM_ISLANDS,
)
"""SAM's "normalisation" among them is needed, too: upstream's LayerNorms overflow in fp16 (issue 142)."""

EFFICIENTVIT_PRECISIONS: Mapping[str, PrecisionPlan] = float_plans(
    bf16="bf16 has f32's range, so no sum of linear attention can overflow and its 1e-15 isn't 0",
    fp16="upstream's authors call it verified as long as LayerNorms stay in f32 (issue 142), others needed that for "
    "attention, too: both are islands",
)

_L: Mapping[str, Any] = {
    "widths": (32, 64, 128, 256, 512),
    "blocks": ("res", "fmb", "fmb", "mb", "att5"),
    "expands": (1, 4, 4, 4, 6),
    "fewer_norms": (False, False, False, True, True),
    "neck_expand": 1,
}
_XL: Mapping[str, Any] = {
    "widths": (32, 64, 128, 256, 512, 1024),
    "blocks": ("res", "fmb", "fmb", "fmb", "att3", "att3"),
    "expands": (1, 4, 4, 4, 4, 6),
    "fewer_norms": (False, False, False, False, True, True),
    "neck_expand": 4,
}
_SMALL_L: Mapping[str, Any] = {"widths": (8, 8, 16, 16, 64), "depths": (1, 1, 1, 1, 2), "neck_width": 32}
_SMALL_XL: Mapping[str, Any] = {"widths": (4, 4, 8, 16, 32, 64), "neck_width": 16}

L2: Mapping[str, Any] = {**_L, "depths": (1, 2, 2, 8, 8), "neck_depth": 12}
SMALL_L: Mapping[str, Any] = {**_SMALL_L, "neck_depth": 2}


def _spec(
    size: str,
    parameters: int,
    sha256: str,
    *,
    input_size: int,
    architecture: Mapping[str, Any],
    small: Mapping[str, Any],
    accuracy: PublishedAccuracy,
) -> VariantSpec:
    return VariantSpec(
        name=f"efficientvit-sam-{size}",
        title=f"EfficientViT-SAM-{size.upper()}",
        paper="arXiv 2402.05008",
        licence="Apache-2.0",
        parameters=parameters,
        network="samgate.variants.nets.efficientvit_sam:build",
        sources=(
            UrlSource(
                url=f"https://huggingface.co/mit-han-lab/efficientvit-sam/resolve/main/efficientvit_sam_{size}.pt",
                sha256=sha256,
            ),
        ),
        accuracy=accuracy,
        architecture=architecture,
        small=small,
        input_size=input_size,
        resize=ResizeRule.LONGEST_SIDE_APART,
        precisions=dict(EFFICIENTVIT_PRECISIONS),
        islands=EFFICIENTVIT_ISLANDS,
    )


_UNPUBLISHED = PublishedAccuracy(box_miou=None, point_miou=None, origin="arXiv 2410.04960, table 6, has L0 and XL1")

# Parameters as published in upstream's README: of the whole, decoder and all.
SPECS = (
    _spec(
        "l0",
        34_800_000,
        "c4f994b01a16d48bcf2fbbb089448cfbf58fae5811edfa8113c953b8b8cc64b8",
        input_size=512,
        architecture={**_L, "depths": (1, 1, 1, 4, 4), "neck_depth": 4},
        small={**_SMALL_L, "neck_depth": 1},
        accuracy=PublishedAccuracy(box_miou=78.5, point_miou=None, origin="arXiv 2410.04960, table 6"),
    ),
    _spec(
        "l1",
        47_700_000,
        "fa151df2b9b96896accd505470755cdd293a4c50cdabac95478f3fbd86d9152b",
        input_size=512,
        architecture={**_L, "depths": (1, 1, 1, 6, 6), "neck_depth": 8},
        small={**_SMALL_L, "neck_depth": 1},
        accuracy=_UNPUBLISHED,
    ),
    _spec(
        "l2",
        61_300_000,
        "d4bfd842224cbb99de09acc3325e81ac5b7e8725c8fbdab152305e5d934bfe4a",
        input_size=512,
        architecture=L2,
        small=SMALL_L,
        accuracy=_UNPUBLISHED,
    ),
    _spec(
        "xl0",
        117_000_000,
        "9bc2f87bd23d6e6d1f7b5beff910f98835c7c333fac73e695bac0bec685968f8",
        input_size=1024,
        architecture={**_XL, "depths": (0, 1, 1, 2, 3, 3), "neck_depth": 6},
        small={**_SMALL_XL, "depths": (0, 1, 1, 1, 1, 1), "neck_depth": 1},
        accuracy=_UNPUBLISHED,
    ),
    _spec(
        "xl1",
        203_300_000,
        "10f42277679427c1183dcff19758e536aa86bcc4304e4b387ff48865784be05c",
        input_size=1024,
        architecture={**_XL, "depths": (1, 2, 2, 4, 6, 6), "neck_depth": 12},
        small={**_SMALL_XL, "depths": (1, 1, 1, 1, 1, 2), "neck_depth": 1},
        accuracy=PublishedAccuracy(box_miou=79.9, point_miou=54.3, origin="arXiv 2410.04960, table 6"),
    ),
)
