"""SAM: github.com/facebookresearch/segment-anything at dca509f, with torch 2.13.0 and torchvision."""

from __future__ import annotations

import importlib

import torch

from parity.recording import Upstream
from parity.upstream.sam_like import SamLike
from samgate.variants.spec import VariantSpec

VARIANTS = ("sam-vit-b", "sam-vit-l", "sam-vit-h")


def load(checkout: str, spec: VariantSpec) -> Upstream:
    """Upstream's network of the spec's numbers."""
    build = importlib.import_module("segment_anything.build_sam")
    encoder = importlib.import_module("segment_anything.modeling").ImageEncoderViT
    sam = build._build_sam(768, 0, 12, [])
    numbers = spec.architecture
    sam.image_encoder = encoder(
        img_size=spec.input_size,
        embed_dim=numbers["dim"],
        depth=numbers["depth"],
        num_heads=numbers["heads"],
        mlp_ratio=numbers["hidden"] / numbers["dim"],
        global_attn_indexes=numbers["global_blocks"],
        window_size=14,
        out_chans=256,
        patch_size=16,
        qkv_bias=True,
        use_rel_pos=True,
        norm_layer=lambda dim: torch.nn.LayerNorm(dim, eps=1e-6),
    )
    return SamLike(sam)
