"""MobileSAM: github.com/ChaoningZhang/MobileSAM at 34bbbfd, with torch 2.13.0, timm 0.9.16 and torchvision."""

from __future__ import annotations

import importlib

from parity.recording import Upstream
from parity.upstream.sam_like import SamLike
from samgate.variants.spec import VariantSpec

VARIANTS = ("mobilesam",)


def load(checkout: str, spec: VariantSpec) -> Upstream:
    """Upstream's network."""
    return SamLike(importlib.import_module("mobile_sam").sam_model_registry["vit_t"](None))
