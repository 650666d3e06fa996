"""TinySAM (Shu et al., 2023): MobileSAM's network, all of it distilled from SAM ViT-H; and in 8 bits."""

from __future__ import annotations

from samgate.variants.gates import LOW_FLOAT, SAME
from samgate.variants.islands import SAM_ISLANDS
from samgate.variants.mobilesam import SPEC as MOBILESAM
from samgate.variants.plans import float_plans
from samgate.variants.spec import (
    Island,
    ManualSource,
    PrecisionPlan,
    PublishedAccuracy,
    SingleMask,
    UrlSource,
    VariantSpec,
)

_RELEASES = "https://github.com/xinghaochen/TinySAM/releases/download"

TINYSAM = VariantSpec(
    name="tinysam",
    title="TinySAM",
    paper="arXiv 2312.13789",
    licence="Apache-2.0",
    parameters=10_130_000,  # with the classifier that comes with the encoder: the survey arXiv 2410.04960, table 3
    network=MOBILESAM.network,
    architecture=MOBILESAM.architecture,
    small=MOBILESAM.small,
    sources=(
        ManualSource(
            where=f"{_RELEASES}/3.0/tinysam_42.3.pth",
            why="neither its authors nor others say which checksum it has",
        ),
    ),
    accuracy=PublishedAccuracy(box_miou=73.7, point_miou=None, origin="arXiv 2410.04960, table 6"),
    # Upstream's decoder gives the three masks alone, whatever the prompt, and all that use it take the best predicted.
    single_mask=SingleMask.BEST,
    precisions=float_plans(
        bf16="as accurate as f32 with MobileSAM's weights in the same network",
        fp16="MobileSAM's activations reach a hundredth of fp16's range; TinySAM's own were never looked at",
    ),
    islands=SAM_ISLANDS,
)
Q_TINYSAM = VariantSpec(
    name="q-tinysam",
    title="Q-TinySAM",
    paper=TINYSAM.paper,
    licence="Apache-2.0",
    parameters=TINYSAM.parameters,  # the same, at 256 levels; a file of f32 like TinySAM's
    network="samgate.variants.nets.q_tinysam:build",
    architecture=TINYSAM.architecture,
    small=TINYSAM.small,
    sources=(
        UrlSource(
            url=f"{_RELEASES}/2.0/tinysam_w8a8.pth",
            sha256="bf611cf86b9af930cfc865747f6a11ddddb867fd0103ba98a54e5d248b657eeb",
        ),
    ),
    reader="samgate.weights.tinysam_file:read",
    accuracy=PublishedAccuracy(
        box_miou=None, point_miou=None, origin="COCO AP alone: 41.4 where TinySAM has 42.3 (README of the repository)"
    ),
    graphs=("encoder", "decoder", "masked_decoder"),
    single_mask=SingleMask.BEST,
    rounds=True,
    precisions={
        "f32": PrecisionPlan(
            encoder="f32",
            decoder="f32",
            reason="upstream's own arithmetic, 256 levels that floats calculate with: for its answers alone, since it "
            "is neither faster nor smaller than TinySAM; the published file itself was never run here",
            gate=SAME,
        ),
        "fp16": PrecisionPlan(
            encoder="fp16",
            decoder="fp16",
            reason="the same with levels counted in f32 and products between in fp16; never run on photographs",
            gate=LOW_FLOAT,
        ),
    },
    islands=(
        *SAM_ISLANDS,
        Island(
            name="levels",
            operators=("Div", "Round", "Clip", "QuantizeLinear", "DequantizeLinear"),
            reason="an input between two levels goes to the nearer: rounded before, it would change sides",
        ),
    ),
)
SPECS = (TINYSAM, Q_TINYSAM)
