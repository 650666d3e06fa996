"""Segment Anything (Kirillov et al., 2023): the reference, with plain ViTs in three sizes."""

from __future__ import annotations

from collections.abc import Sequence

from samgate.variants.islands import SAM_ISLANDS
from samgate.variants.plans import float_plans
from samgate.variants.spec import PublishedAccuracy, UrlSource, VariantSpec

_FILES = "https://dl.fbaipublicfiles.com/segment_anything"

PLANS = float_plans(
    bf16="segment_anything_fast publishes 0.5809 instead of 0.5842 mIoU for ViT-H, 0.5416 instead of 0.5336 for ViT-B",
    fp16="with norms in f32, which users found to be what it takes (segment-anything's issue 696)",
)


def _variant(
    size: str,
    parameters: int,
    numbers: tuple[int, int, int],
    global_blocks: Sequence[int],
    source: UrlSource,
    accuracy: PublishedAccuracy,
) -> VariantSpec:
    dim, depth, heads = numbers
    return VariantSpec(
        name=f"sam-vit-{size.lower()}",
        title=f"SAM ViT-{size}",
        paper="arXiv 2304.02643",
        licence="Apache-2.0",
        parameters=parameters,
        network="samgate.variants.nets.vit:build",
        architecture={
            "dim": dim,
            "depth": depth,
            "heads": heads,
            "hidden": 4 * dim,
            "global_blocks": tuple(global_blocks),
        },
        small={"dim": 32, "depth": 2, "heads": 2, "hidden": 64, "global_blocks": (1,)},
        sources=(source,),
        accuracy=accuracy,
        precisions=PLANS,
        islands=SAM_ISLANDS,
    )


_TABLE = "arXiv 2410.04960, table 6"
_NOBODY = PublishedAccuracy(None, None, "")

# Parameters: the survey's table 3 (arXiv 2410.04960).
VIT_B = _variant(
    "B",
    93_740_000,
    (768, 12, 12),
    (2, 5, 8, 11),
    UrlSource(
        url=f"{_FILES}/sam_vit_b_01ec64.pth",
        sha256="ec2df62732614e57411cdcf32a23ffdf28910380d03139ee0f4fcbe91eb8c912",
        size=375_042_383,
    ),
    _NOBODY,
)
VIT_L = _variant(
    "L",
    312_340_000,
    (1024, 24, 16),
    (5, 11, 17, 23),
    UrlSource(
        url=f"{_FILES}/sam_vit_l_0b3195.pth",
        sha256="3adcc4315b642a4d2101128f611684e8734c41232a17c648ed1693702a49a622",
        size=1_249_524_607,
    ),
    _NOBODY,
)
VIT_H = _variant(
    "H",
    641_090_000,
    (1280, 32, 16),
    (7, 15, 23, 31),
    UrlSource(
        url=f"{_FILES}/sam_vit_h_4b8939.pth",
        sha256="a7bf3b02f3ebf1267aba913ff637d9a2d5c33d3173bb679e46d9f338c26f262e",
        size=2_564_550_879,
    ),
    PublishedAccuracy(box_miou=77.4, point_miou=53.6, origin=_TABLE),
)
SPECS = (VIT_B, VIT_L, VIT_H)
