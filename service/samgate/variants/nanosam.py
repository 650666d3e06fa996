"""NanoSAM (NVIDIA, 2023): a ResNet-18 image encoder distilled from MobileSAM's, with MobileSAM's decoder."""

from __future__ import annotations

from samgate.domain import MaskSampling
from samgate.variants.islands import SAM_ISLANDS
from samgate.variants.plans import float_plans
from samgate.variants.spec import (
    ManualSource,
    PaddingPoint,
    PublishedAccuracy,
    ResizeRule,
    SingleMask,
    VariantSpec,
)

_WHY = (
    "Google Drive asks people, not programs, and upstream publishes no checksum: put both files into a folder and give "
    "that. MobileSAM's mobile_sam.pt is as good for the decoder"
)

SPEC = VariantSpec(
    name="nanosam",
    title="NanoSAM",
    paper="github.com/NVIDIA-AI-IOT/nanosam",
    licence="Apache-2.0",
    # Published nowhere: counted in upstream's network, 15.83 M of the encoder and 4.06 M of MobileSAM's decoder.
    parameters=19_890_000,
    network="samgate.variants.nets.nanosam:build",
    architecture={"widths": (64, 128, 256, 512), "depths": (2, 2, 2, 2), "neck": 256},
    small={"widths": (64, 32, 32, 48), "depths": (1, 1, 2, 1), "neck": 32},
    reader="samgate.weights.nanosam_file:read",
    sources=(
        ManualSource(
            where="https://drive.google.com/file/d/14-SsvoaTl-esC3JOzomHDnI9OGgdO2OR (resnet18_image_encoder.onnx) and "
            "https://drive.google.com/file/d/1jYNvnseTL49SNRx9PDcbkZ9DwsY8up7n (mobile_sam_mask_decoder.onnx)",
            why=_WHY,
        ),
    ),
    # Upstream's README has 70.6 for boxes, by the best predicted of all four masks.
    accuracy=PublishedAccuracy(box_miou=69.7, point_miou=None, origin="arXiv 2410.04960, table 6"),
    resize=ResizeRule.LONGEST_SIDE_CUT,
    padding_point=PaddingPoint.NEVER,
    # Its evaluation takes the best predicted of all masks, whatever the prompt.
    single_mask=SingleMask.BEST,
    best_of=(0, 1, 2, 3),
    mask_sampling=MaskSampling.DIRECT,
    precisions=float_plans(
        bf16="no failure of it is known: convolutions, and MobileSAM's decoder, which lost a tenth of a point there",
        mixed="as upstream's, whose decoder is f32 beside an fp16 encoder",
        fp16="upstream publishes its figures with the encoder in fp16, and found no loss",
    ),
    islands=SAM_ISLANDS,
)
SPECS = (SPEC,)
