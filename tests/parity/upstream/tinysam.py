"""TinySAM: github.com/xinghaochen/TinySAM at 11589bc, with torch 2.13.0, timm 0.9.16 and torchvision."""

from __future__ import annotations

import importlib
from typing import Any

from parity.recording import Upstream
from parity.upstream.mobilesam import encoder
from parity.upstream.sam_like import SamLike
from samgate.variants import get_variant
from samgate.variants.spec import VariantSpec

VARIANTS = ("tinysam",)


def load(checkout: str, spec: VariantSpec) -> Upstream:
    """Upstream's network."""
    return SamLike(network(spec))


def network(spec: VariantSpec) -> Any:
    """Upstream's ``Sam``, reduced if ``spec`` is."""
    sam = importlib.import_module("tinysam").sam_model_registry["vit_t"](None)
    if spec != get_variant(spec.name):
        sam.image_encoder = encoder(importlib.import_module("tinysam.modeling").TinyViT, spec)
    return sam
