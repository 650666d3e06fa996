"""RepViT-SAM (Wang et al., 2023): a RepViT image encoder distilled from SAM ViT-H, with SAM's own decoder."""

from __future__ import annotations

from samgate.variants.islands import SAM_ISLANDS
from samgate.variants.plans import float_plans
from samgate.variants.spec import PublishedAccuracy, UrlSource, VariantSpec

_ALTERNATE = (1, 0)

PLANS = float_plans(bf16="no failure is known", fp16="no failure is known")

SPEC = VariantSpec(
    name="repvit-sam",
    title="RepViT-SAM",
    paper="arXiv 2312.05760",
    licence="Apache-2.0",
    parameters=27_220_000,  # arXiv 2410.04960, table 3
    network="samgate.variants.nets.repvit:build",
    architecture={
        "dims": (80, 160, 320, 640),
        "squeezes": (_ALTERNATE * 3 + (0,), (0, *_ALTERNATE * 3, 0), (0, *_ALTERNATE * 17, 0), (0, 1, 0)),
        "norm": True,
        "fused": False,
    },
    small={"dims": (16, 24, 320, 64), "squeezes": ((1, 0), (0, 1), (0, 1), (0, 1))},
    sources=(
        UrlSource(
            url="https://github.com/THU-MIG/RepViT/releases/download/v1.0/repvit_sam.pt",
            sha256="1fd2867cf669e6d89b1c91d0eb883d83ef4bcc590143dd2ca35e2705b21a4f2f",
        ),
    ),
    accuracy=PublishedAccuracy(box_miou=75.1, point_miou=None, origin="arXiv 2410.04960, table 6"),
    precisions=PLANS,
    islands=SAM_ISLANDS,
)
SPECS = (SPEC,)
