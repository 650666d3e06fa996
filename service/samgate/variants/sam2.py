"""SAM 2.1 (Ravi et al., 2024) for single images: Hiera in four sizes with a decoder that sees finer features.

Checkpoints of SAM 2 from before the .1 hold the same image part, so ``--from`` takes them, too.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from samgate.domain import MaskSampling
from samgate.variants.islands import SAM_ISLANDS
from samgate.variants.plans import float_plans
from samgate.variants.spec import (
    Island,
    PaddingPoint,
    PublishedAccuracy,
    ResizeRule,
    ShapeRange,
    Shapes,
    SingleMask,
    UrlSource,
    VariantSpec,
)

VIDEO_PARAMETERS = 7_521_777
"""Of the modules for videos, counted in upstream's own network, the same in all sizes: memory attention and encoder,
object pointers, temporal positions. Published numbers include them, and they aren't loaded here."""

_ISLANDS = (
    Island(
        name="blocks",
        operators=("Add", "Gelu", "LayerNormalization", "MatMul", "Mul", "Pad", "ReduceMax", "Softmax"),
        names=r"/blocks\.\d+/",
        arithmetic="fp16",
        reason="the encoder of EfficientTAM, which is SAM 2 with another trunk, lost its accuracy in fp16 on TensorRT "
        "with LayerNorms in f32, too, and got it back with all blocks in f32 alone (EfficientTAM's issue 17). Nobody "
        "says what happens to Hiera, and it wasn't tried with real weights",
    ),
    Island(
        name="residual stream",
        operators=("Add",),
        names=r"/blocks\.\d+/Add|/trunk/Add",
        reason="up to 96 sums one after the other; autocast, by which SAM 2 is published to run in bf16, has them in "
        "f32, too",
    ),
    *SAM_ISLANDS,
)
_PRECISIONS = float_plans(
    bf16="what upstream's examples run it in",
    fp16="for GPUs without bf16: the trunk's blocks stay in f32, which see",
)
_SMALL = {"width": 16, "heads": 1, "depths": (1, 2, 3, 2), "global_blocks": (5,)}


_UNKNOWN = PublishedAccuracy(box_miou=None, point_miou=None, origin="arXiv 2410.04960, which has base-plus alone")


def _variant(
    suffix: str,
    size: str,
    parameters: int,
    architecture: Mapping[str, Any],
    source: UrlSource,
    accuracy: PublishedAccuracy = _UNKNOWN,
) -> VariantSpec:
    return VariantSpec(
        name=f"sam2.1-{suffix}",
        title=f"SAM 2.1 Hiera-{size}",
        paper="arXiv 2408.00714",
        licence="Apache-2.0",
        parameters=parameters - VIDEO_PARAMETERS,
        network="samgate.variants.nets.sam2:build",
        graph_module="samgate.variants.nets.sam2:graph_module",
        graphs=("encoder", "decoder", "masked_decoder", "scores"),
        architecture=architecture,
        small=_SMALL,
        sources=(source,),
        reader="samgate.weights.sam2_file:read",
        accuracy=accuracy,
        embedding_shape=(1024, 64, 64),
        resize=ResizeRule.SQUASH,
        padding_point=PaddingPoint.ALWAYS,
        single_mask=SingleMask.STABLE_OR_BEST,
        mask_sampling=MaskSampling.DIRECT,
        logit_limit=32.0,
        shapes=Shapes(everything=({"P": ShapeRange(1, 64, 64), "K": ShapeRange(2, 2, 3)},)),
        precisions=_PRECISIONS,
        islands=_ISLANDS,
    )


def _file(size: str, sha256: str, length: int) -> UrlSource:
    return UrlSource(
        url=f"https://dl.fbaipublicfiles.com/segment_anything_2/092824/sam2.1_hiera_{size}.pt",
        sha256=sha256,
        size=length,
    )


# Numbers of parameters: the table in upstream's README, in millions, which counts what VIDEO_PARAMETERS says.
SPECS = (
    _variant(
        "t",
        "tiny",
        38_900_000,
        {
            "width": 96,
            "heads": 1,
            "depths": (1, 2, 7, 2),
            "windows": (8, 4, 14, 7),
            "global_blocks": (5, 7, 9),
            "positions": 7,
        },
        _file("tiny", "7402e0d864fa82708a20fbd15bc84245c2f26dff0eb43a4b5b93452deb34be69", 156_008_466),
    ),
    _variant(
        "s",
        "small",
        46_000_000,
        {
            "width": 96,
            "heads": 1,
            "depths": (1, 2, 11, 2),
            "windows": (8, 4, 14, 7),
            "global_blocks": (7, 10, 13),
            "positions": 7,
        },
        _file("small", "6d1aa6f30de5c92224f8172114de081d104bbd23dd9dc5c58996f0cad5dc4d38", 184_416_285),
    ),
    _variant(
        "b-plus",
        "base-plus",
        80_800_000,
        {
            "width": 112,
            "heads": 2,
            "depths": (2, 3, 16, 3),
            "windows": (8, 4, 14, 7),
            "global_blocks": (12, 16, 20),
            "positions": 14,
        },
        _file("base_plus", "a2345aede8715ab1d5d31b4a509fb160c5a4af1970f199d9054ccfb746c004c5", 323_606_802),
        PublishedAccuracy(
            box_miou=75.7, point_miou=54.3, origin="arXiv 2410.04960, table 6, which doesn't say whether 2.0's or 2.1's"
        ),
    ),
    _variant(
        "l",
        "large",
        224_400_000,
        {
            "width": 144,
            "heads": 2,
            "depths": (2, 6, 36, 4),
            "windows": (8, 4, 16, 8),
            "global_blocks": (23, 33, 43),
            "positions": 7,
        },
        _file("large", "2647878d5dfa5098f2f8649825738a9345572bae2d4350a2468587ece47dd318", 898_083_611),
    ),
)
