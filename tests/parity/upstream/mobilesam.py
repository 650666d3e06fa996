"""MobileSAM: github.com/ChaoningZhang/MobileSAM at 34bbbfd, with torch 2.13.0, timm 0.9.16 and torchvision."""

from __future__ import annotations

import importlib
from collections.abc import Callable

import torch

from parity.recording import Upstream
from parity.upstream.sam_like import SamLike
from samgate.variants import get_variant
from samgate.variants.spec import VariantSpec

VARIANTS = ("mobilesam",)


def load(checkout: str, spec: VariantSpec) -> Upstream:
    """Upstream's network."""
    sam = importlib.import_module("mobile_sam").sam_model_registry["vit_t"](None)
    package = importlib.import_module("mobile_sam.modeling")
    if spec != get_variant(spec.name):
        sam.image_encoder = encoder(package.TinyViT, spec)
    return SamLike(sam)


def encoder(network: Callable[..., torch.nn.Module], spec: VariantSpec) -> torch.nn.Module:
    """TinyViT in other sizes, with all else as upstream's own builder has it."""
    return network(
        img_size=spec.input_size,
        in_chans=3,
        num_classes=1000,
        embed_dims=list(spec.architecture["dims"]),
        depths=list(spec.architecture["depths"]),
        num_heads=list(spec.architecture["heads"]),
        window_sizes=[7, 7, 14, 7],
        mlp_ratio=4.0,
        drop_rate=0.0,
        drop_path_rate=0.0,
        use_checkpoint=False,
        mbconv_expand_ratio=4.0,
        local_conv_size=3,
        layer_lr_decay=0.8,
    )
