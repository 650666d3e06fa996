"""MobileSAM (Zhang et al., 2023, arXiv 2306.14289): TinyViT-5M as image encoder, SAM's prompt encoder and decoder."""

from __future__ import annotations

from samgate.variants.nets.mask_decoder import MaskDecoder
from samgate.variants.nets.prompt_encoder import PromptEncoder
from samgate.variants.nets.sam import Sam
from samgate.variants.nets.tiny_vit import TinyViT, TinyVitConfig


def build() -> Sam:
    """The network, with its parameters not yet loaded."""
    return Sam(TinyViT(TinyVitConfig()), PromptEncoder(), MaskDecoder())
