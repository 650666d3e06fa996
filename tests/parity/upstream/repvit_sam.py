"""RepViT-SAM: github.com/THU-MIG/RepViT at 298f420, with torch 2.13.0, timm 0.9.16 and torchvision.

The checkout is its folder ``sam``.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Sequence

from parity.recording import Upstream
from parity.upstream.sam_like import SamLike
from samgate.variants.spec import VariantSpec

VARIANTS = ("repvit-sam",)


def rows(spec: VariantSpec) -> Iterator[Sequence[int]]:
    """Upstream's table of blocks: kernel, expansion, channels, squeeze and excite, an unused switch, stride."""
    for stage, (dim, flags) in enumerate(zip(spec.architecture["dims"], spec.architecture["squeezes"], strict=True)):
        for index, flag in enumerate(flags):
            yield (3, 2, dim, flag, 0, 2 if stage and not index else 1)


def load(checkout: str, spec: VariantSpec) -> Upstream:
    """Upstream's network of the spec's numbers."""
    build = importlib.import_module("repvit_sam.build_sam")
    sam = build.build_sam_repvit(None)
    sam.image_encoder = importlib.import_module("repvit_sam.modeling.repvit").RepViT(list(rows(spec)))
    return SamLike(sam)
