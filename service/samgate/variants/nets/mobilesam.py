"""MobileSAM (Zhang et al., 2023, arXiv 2306.14289): TinyViT-5M as image encoder, SAM's prompt encoder and decoder.

TinySAM (Shu et al., 2023, arXiv 2312.13789) is the same network.
"""

from __future__ import annotations

from samgate.variants.nets.mask_decoder import MaskDecoder
from samgate.variants.nets.prompt_encoder import PromptEncoder
from samgate.variants.nets.sam import Sam
from samgate.variants.nets.tiny_vit import TinyViT, TinyVitConfig
from samgate.variants.spec import VariantSpec


def build(spec: VariantSpec) -> Sam:
    """The network for the sizes of ``spec``, with its parameters not yet loaded; these are the same for all sizes.
    ``architecture`` has ``dims``, ``depths`` and ``heads`` of :class:`~samgate.variants.nets.tiny_vit.TinyVitConfig`.
    """
    channels, size, _ = spec.embedding_shape
    config = TinyVitConfig(image_size=spec.input_size, out_channels=channels, out_size=size, **spec.architecture)
    return Sam(TinyViT(config), PromptEncoder(channels, size, spec.prompt_size), MaskDecoder())
