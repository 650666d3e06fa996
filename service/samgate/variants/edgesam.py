"""EdgeSAM (Zhou et al., 2023): a small RepViT, distilled together with the decoder on prompts in a loop."""

from __future__ import annotations

from dataclasses import replace

from samgate.variants.islands import SAM_ISLANDS
from samgate.variants.repvit_sam import PLANS
from samgate.variants.spec import Island, PublishedAccuracy, UrlSource, VariantSpec

_FILES = "https://huggingface.co/spaces/chongzhou/EdgeSAM/resolve/main/weights"
_BYTES = 38_807_540

SPEC = VariantSpec(
    name="edgesam",
    title="EdgeSAM",
    paper="arXiv 2312.06660",
    licence="NTU S-Lab License 1.0",
    licence_note="code and weights are for non-commercial purposes alone; others need the authors' leave",
    accept_licence=True,
    parameters=9_600_000,  # upstream's README
    network="samgate.variants.nets.repvit:build",
    graph_module="samgate.variants.nets.repvit:stability_graph_module",
    # Without SegEvery's halves: masks are ranked by what only whole ones tell.
    graphs=("encoder", "decoder", "masked_decoder"),
    architecture={
        "dims": (48, 96, 192, 384),
        "squeezes": ((1, 0, 0), (0, 1, 0, 0), (0, *(1, 0) * 7, 0), (0, 1, 0)),
        "norm": False,
        "fused": True,
    },
    small={"dims": (16, 24, 32, 48), "squeezes": ((1, 0), (0, 1), (0, 1), (0, 1))},
    sources=(
        UrlSource(
            url=f"{_FILES}/edge_sam.pth",
            sha256="439b086a20ab6fba90c12cba32e0001ba3aa726da5791ff8738acdd440330991",
            size=_BYTES,
        ),
    ),
    accuracy=PublishedAccuracy(box_miou=75.9, point_miou=None, origin="arXiv 2410.04960, table 6"),
    precisions=PLANS,
    islands=(
        Island(
            name="stability",
            operators=("Cast", "ReduceSum", "Max", "Clip", "Div"),
            names=r"/stability/",
            reason="counts of up to 65,536 pixels: fp16 ends below, and bf16 counts in steps of 256 there",
        ),
        *SAM_ISLANDS,
    ),
)
SPEC_3X = replace(
    SPEC,
    name="edgesam-3x",
    title="EdgeSAM-3x",
    sources=(
        UrlSource(
            url=f"{_FILES}/edge_sam_3x.pth",
            sha256="5a3e3261da9e2f4c8154410885689ae57d09cbf4cf5d0c848b9d80b6df336ece",
            size=_BYTES,
        ),
    ),
    accuracy=PublishedAccuracy(None, None, "published for detectors' boxes alone"),
)
SPECS = (SPEC, SPEC_3X)
