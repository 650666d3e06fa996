"""MobileSAMv2: github.com/ChaoningZhang/MobileSAM at 34bbbfd, folder ``MobileSAMv2``, with torch 2.13.0, torchvision
and timm 0.9.16. Its detector, in the vendored ultralytics, isn't needed and never imported; of its training code the
networks only want to know a class for drop paths, which isn't used either."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest.mock import patch

import torch

from parity.recording import Upstream
from parity.upstream.sam_like import SamLike
from samgate.variants import get_variant
from samgate.variants.spec import VariantSpec

VARIANTS = ("mobilesamv2",)


def load(checkout: str, spec: VariantSpec) -> Upstream:
    """Upstream's three parts, put together as its ``Inference.py`` does, which begins with a ViT-H instead."""
    package = str(Path(checkout).resolve() / "MobileSAMv2")
    if package not in sys.path:
        sys.path.insert(0, package)
    training = ModuleType("efficientvit.apps.trainer.run_config")
    training.Scheduler = object  # type: ignore[attr-defined]
    for name in ("efficientvit.apps.trainer", training.__name__):
        sys.modules.setdefault(name, training)
    build = importlib.import_module("mobilesamv2.build_sam")
    sam = build.sam_model_registry["vit_b"]()
    parts = build.sam_model_registry["PromptGuidedDecoder"]()
    sam.prompt_encoder, sam.mask_decoder = parts["PromtEncoder"], parts["MaskDecoder"]
    sam.image_encoder = _encoder(build, spec)
    return SamLike(sam)


def _encoder(build: Any, spec: VariantSpec) -> torch.nn.Module:
    """What upstream's own function builds, without the weights that it wants to read, reduced if ``spec`` is."""
    numbers = {} if spec == get_variant(spec.name) else spec.architecture
    backbone, neck = {}, {}
    if numbers:
        widths = list(numbers["widths"])
        backbone = {"width_list": widths, "depth_list": list(numbers["depths"])}
        neck = {"in_channel_list": widths[:1:-1], "head_width": numbers["neck_width"]}
        neck["head_depth"] = numbers["neck_depth"]
    with (
        patch.object(torch, "load", return_value={"state_dict": {}}),
        patch.object(build.EfficientViTSamImageEncoder, "load_state_dict"),
        patch.object(build, "EfficientViTLargeBackbone", _with(build.EfficientViTLargeBackbone, backbone)),
        patch.object(build, "SamNeck", _with(build.SamNeck, neck)),
    ):
        encoder: torch.nn.Module = build.sam_model_registry["efficientvit_l2"]("no file")
    return encoder


def _with(make: Callable[..., Any], numbers: dict[str, Any]) -> Callable[..., Any]:
    """``make`` with ``numbers`` instead of those that it is given."""
    return lambda **given: make(**{**given, **numbers})
