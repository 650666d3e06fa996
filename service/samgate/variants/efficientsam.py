"""EfficientSAM (Xiong et al., 2023): plain ViTs pretrained to reproduce SAM's features, with a decoder of their own."""

from __future__ import annotations

from dataclasses import replace

from samgate.domain import MaskSampling
from samgate.variants.islands import SAM_ISLANDS
from samgate.variants.plans import float_plans
from samgate.variants.spec import (
    Island,
    ManualSource,
    PaddingPoint,
    PromptSupport,
    PublishedAccuracy,
    ResizeRule,
    ShapeRange,
    Shapes,
    SingleMask,
    UrlSource,
    VariantSpec,
)

_POINTS = 6
"""Of every prompt, those that are missing filled up."""
_REPOSITORY = "https://github.com/yformer/EfficientSAM/raw/main/weights"

TI = VariantSpec(
    name="efficientsam-ti",
    title="EfficientSAM-Ti",
    paper="arXiv 2312.00863",
    licence="Apache-2.0",
    parameters=10_220_000,  # of the whole system: the survey arXiv 2410.04960, table 3
    network="samgate.variants.nets.efficientsam:build",
    graph_module="samgate.variants.nets.efficientsam:graph_module",
    graphs=("encoder", "decoder"),
    architecture={"dim": 192, "heads": 3, "depth": 12, "decoder_mlp": 2048},
    small={"dim": 32, "heads": 1, "depth": 2, "decoder_mlp": 64},
    sources=(
        UrlSource(
            url=f"{_REPOSITORY}/efficient_sam_vitt.pt",
            sha256="dff858b19600a46461cbb7de98f796b23a7a888d9f5e34c0b033f7d6eb9e4e6a",
            size=40_982_470,
        ),
    ),
    accuracy=PublishedAccuracy(box_miou=74.7, point_miou=None, origin="arXiv 2410.04960, table 6"),
    prompts=PromptSupport(background=False, mask=False, most_points=_POINTS),
    resize=ResizeRule.SQUASH_ROUGH,
    padding_point=PaddingPoint.TO_MOST,
    padding_coordinate=-1.0,
    # Upstream's own calls and examples never look at the first mask.
    single_mask=SingleMask.BEST,
    mask_sampling=MaskSampling.DIRECT_CUBIC,
    shapes=Shapes(
        decoder=(
            {"I": ShapeRange(1, 1, 8), "P": ShapeRange(1, 1, 8), "K": ShapeRange(_POINTS, _POINTS, _POINTS)},
            {"I": ShapeRange(1, 1, 1), "P": ShapeRange(1, 64, 64), "K": ShapeRange(_POINTS, _POINTS, _POINTS)},
        ),
    ),
    precisions=float_plans(
        bf16="no failure is known, and its ViT has no kind of layer that SAM's has not",
        fp16="with all sums of squares in f32; how large activations become in photographs was never looked at",
    ),
    islands=(
        *SAM_ISLANDS,
        Island(
            name="whole maps",
            operators=("ReduceMean", "Sub", "Mul", "Add"),
            names=r"/final_output_upscaling_layers\.0\.1/",
            reason="means over a million values and their squares: fp16 would overflow, bf16 lose what is added late",
        ),
    ),
)
S = replace(
    TI,
    name="efficientsam-s",
    title="EfficientSAM-S",
    parameters=26_410_000,  # from the same table
    architecture={**TI.architecture, "dim": 384, "heads": 6},
    small={**TI.small, "dim": 48, "heads": 2},
    sources=(
        ManualSource(
            where=f"{_REPOSITORY}/efficient_sam_vits.pt.zip",
            why="its checksum isn't published; of the file inside one is, by others",
        ),
    ),
    reader="samgate.weights.zipped_file:read",
    accuracy=PublishedAccuracy(box_miou=76.1, point_miou=None, origin="arXiv 2410.04960, table 6"),
)
SPECS = (TI, S)
