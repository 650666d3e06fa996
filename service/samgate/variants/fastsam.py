"""FastSAM (Zhao et al., 2023): a YOLOv8-seg that finds everything in an image, of which prompts choose.

All images go in as squares, as upstream's exported networks take them; with a checkpoint it feeds the smallest
rectangle around an image that strides divide, which has less grey. More than one detection may be the whole image,
where upstream fails. Written from the paper and from what upstream's code was seen to do; upstream's is under AGPL-3.0,
and so are the weights. Which detection a text means is CLIP's to say: :mod:`samgate.text.choice`.
"""

from __future__ import annotations

from dataclasses import replace

from samgate.domain import MaskSampling
from samgate.variants.detections import channels
from samgate.variants.gates import LOW_FLOAT, SAME
from samgate.variants.islands import PIXELS, RESIZE
from samgate.variants.spec import (
    Island,
    ManualSource,
    PaddingPoint,
    PrecisionPlan,
    PromptSupport,
    PublishedAccuracy,
    ResizeRule,
    ShapeRange,
    Shapes,
    VariantSpec,
)

_SIDE = 64
_WHY = "Google Drive asks people before it sends large files"
_DETECTING = (
    *("Add", "Cast", "Clip", "Concat", "Conv", "Div", "Expand", "Floor", "Gather", "GatherElements", "Greater", "Less"),
    *("MatMul", "Max", "Min", "Mul", "Reshape", "Sigmoid", "Slice", "Softmax", "Split", "Squeeze", "Sub", "TopK"),
    *("ConstantOfShape", "Range", "Transpose", "Unsqueeze", "Where"),
)

S = VariantSpec(
    name="fastsam-s",
    title="FastSAM-s",
    paper="arXiv 2306.12156",
    licence="AGPL-3.0",
    licence_note="who serves these weights, or what is made of them, over a network has to offer the source of the "
    "whole service to its users",
    accept_licence=True,
    parameters=11_800_000,  # ultralytics' figure for the same network
    network="samgate.variants.nets.fastsam:build",
    graph_module="samgate.variants.nets.fastsam:graph_module",
    graphs=("encoder", "decoder"),
    finds_everything=True,
    architecture={"depth": 0.33, "width": 0.50, "max_channels": 1024},
    small={"depth": 0.33, "width": 0.125},
    sources=(
        ManualSource(
            where="https://drive.google.com/file/d/10XmSj6mmpmRb8NhXbtiuO9cTTBwR_9SV (FastSAM-s.pt; others' copy has "
            "the SHA-256 e9034d7478a8e9d1bfb57b51592e521a253287c7cdcf79258f61ea6d68584a0d)",
            why=_WHY,
        ),
    ),
    reader="samgate.weights.fastsam_file:read",
    accuracy=PublishedAccuracy(box_miou=None, point_miou=None, origin="arXiv 2410.04960, table 6, has FastSAM-x alone"),
    prompts=PromptSupport(mask=False, text=True),
    embedding_shape=(channels(_SIDE), _SIDE, _SIDE),
    features=channels(_SIDE),
    resize=ResizeRule.LETTERBOX,
    padding_point=PaddingPoint.NEVER,
    point_offset=0.5,
    mask_sampling=MaskSampling.DIRECT,
    pixel_mean=(0.0, 0.0, 0.0),
    pixel_std=(255.0, 255.0, 255.0),
    shapes=Shapes(
        # The masks of all detections of an image take 80 MB while one is chosen.
        decoder=(
            {"I": ShapeRange(1, 1, 4), "P": ShapeRange(1, 1, 4), "K": ShapeRange(1, 2, 16)},
            {"I": ShapeRange(1, 1, 1), "P": ShapeRange(1, 8, 16), "K": ShapeRange(1, 2, 130)},
        ),
    ),
    # OpenVINO would run all of a graph in bf16, where pixels of boxes come in steps of 4.
    precisions={
        "f32": PrecisionPlan("f32", "f32", "the reference", SAME),
        "fp16": PrecisionPlan(
            "fp16",
            "f32",
            "with all that makes boxes in f32; the decoder chooses by areas of up to 65,536 pixels, which fp16 can't "
            "count; no accuracy was measured here",
            LOW_FLOAT,
        ),
    },
    islands=(
        Island(
            name="detections",
            operators=_DETECTING,
            names=r"^/detections/|/model\.22/(dfl/(conv/)?)?[^/]+$",
            reason="boxes in pixels, of which fp16 has steps of a half from 512 on, where an IoU of 0.9 says what is a "
            "duplicate; and the order of scores",
        ),
        RESIZE,
        PIXELS,
    ),
)
X = replace(
    S,
    name="fastsam-x",
    title="FastSAM-x",
    parameters=72_200_000,
    architecture={"depth": 1.00, "width": 1.25, "max_channels": 512},
    small={**S.small, "max_channels": 1024},
    sources=(
        ManualSource(
            where="https://drive.google.com/file/d/1m1sjY4ihXBU1fZXdQ-Xdj-mDltW-2Rqv (FastSAM.pt, SHA-256 "
            "c0be4e7ddbe4c15333d15a859c676d053c486d0a746a3be6a7a9790d52a9b6d7)",
            why=_WHY,
        ),
    ),
    accuracy=PublishedAccuracy(box_miou=60.5, point_miou=None, origin="arXiv 2410.04960, table 6"),
)
SPECS = (S, X)
