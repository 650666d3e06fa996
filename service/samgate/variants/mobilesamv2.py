"""MobileSAMv2 (Zhang et al., 2023): EfficientViT-L2 as image encoder, and SAM's decoder with weights of its own, made
for the boxes that a detector proposes (the strategy ``object_aware`` of SegmentEverything).

Upstream asks it for single masks of boxes alone; the decoder is SAM's, and takes all that SAM's does. Upstream's
repository also has the detector's code, under AGPL-3.0: nothing of that is used here.
"""

from __future__ import annotations

from samgate.variants.efficientvit_sam import EFFICIENTVIT_ISLANDS, EFFICIENTVIT_PRECISIONS, L2, SMALL_L
from samgate.variants.spec import ManualSource, PublishedAccuracy, VariantSpec

SPEC = VariantSpec(
    name="mobilesamv2",
    title="MobileSAMv2",
    paper="arXiv 2312.09579",
    licence="Apache-2.0",
    # Of EfficientViT-SAM-L2, whose network it is; its own paper gives no sum.
    parameters=61_300_000,
    network="samgate.variants.nets.efficientvit_sam:build_mobilesamv2",
    sources=(
        ManualSource(
            where="a folder with both l2.pt, out of the archive of MobileSAMv2's weights that the README of "
            "https://github.com/ChaoningZhang/MobileSAM links (Google Drive), and "
            "https://github.com/ChaoningZhang/MobileSAM/raw/master/MobileSAMv2/PromptGuidedDecoder/"
            "Prompt_guided_Mask_Decoder.pt",
            why="Google Drive asks people before it sends large files, and no checksum of either is published",
        ),
    ),
    reader="samgate.weights.mobilesamv2_file:read",
    accuracy=PublishedAccuracy(box_miou=None, point_miou=None, origin="not in arXiv 2410.04960, table 6"),
    # Images are resized and padded at 1,024; upstream's encoder halves that itself.
    architecture={**L2, "halved": True},
    small=SMALL_L,
    precisions=dict(EFFICIENTVIT_PRECISIONS),
    islands=EFFICIENTVIT_ISLANDS,
)
SPECS = (SPEC,)
