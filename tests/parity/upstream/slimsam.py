"""SlimSAM: github.com/czg1225/SlimSAM at b612c1b, with torch 2.13.0 and torchvision."""

from __future__ import annotations

import importlib

from parity.recording import Upstream
from parity.upstream.sam_like import SamLike
from samgate.variants.spec import VariantSpec

VARIANTS = ("slimsam-50", "slimsam-77")


def load(checkout: str, spec: VariantSpec) -> Upstream:
    """Upstream's network of the spec's numbers."""
    numbers = spec.architecture
    build = importlib.import_module("segment_anything.build_sam")
    names = ("dim", "hidden", "depth", "heads", "global_blocks")
    return SamLike(build._build_sam(*(numbers[name] for name in names)))
