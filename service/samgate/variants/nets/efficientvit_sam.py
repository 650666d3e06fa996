"""EfficientViT-SAM (Zhang et al., 2024, arXiv 2402.05008): EfficientViT as image encoder, SAM's prompt encoder and
decoder."""

from __future__ import annotations

from torch import nn

from samgate.variants.nets.efficientvit import EfficientVit, EfficientVitConfig
from samgate.variants.nets.efficientvit_blocks import NORM_EPS
from samgate.variants.nets.mask_decoder import MaskDecoder
from samgate.variants.nets.prompt_encoder import PromptEncoder
from samgate.variants.nets.sam import Sam
from samgate.variants.spec import VariantSpec


def build(spec: VariantSpec) -> Sam:
    """The network for the numbers of ``spec``, with its parameters not yet loaded."""
    sam = _build(spec)
    # Upstream sets that of all LayerNorms, the decoder's too, which are SAM's 1e-5 elsewhere.
    for module in sam.modules():
        if isinstance(module, nn.LayerNorm):
            module.eps = NORM_EPS
    return sam


def build_mobilesamv2(spec: VariantSpec) -> Sam:
    """MobileSAMv2 (Zhang et al., 2023, arXiv 2312.09579) with this encoder: its decoder's LayerNorms are SAM's."""
    return _build(spec)


def _build(spec: VariantSpec) -> Sam:
    channels, size, _ = spec.embedding_shape
    config = EfficientVitConfig(spec.input_size, out_channels=channels, out_size=size, **spec.architecture)
    return Sam(EfficientVit(config), PromptEncoder(channels, size, spec.prompt_size), MaskDecoder())
