"""NanoSAM (NVIDIA, 2023): a ResNet-18 distilled from MobileSAM's image encoder, with MobileSAM's decoder."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from samgate.variants.nets.mask_decoder import MaskDecoder
from samgate.variants.nets.prompt_encoder import PromptEncoder
from samgate.variants.nets.resnet import ResNet, start
from samgate.variants.nets.sam import Sam
from samgate.variants.spec import VariantSpec

STRIDE = 16
"""Pixels a side of what one place of the embedding stands for."""
_LAST_STD = 0.01


class NanoSamEncoder(nn.Module):
    """A ResNet's last map, made twice as large, and a learned embedding of places.

    Args:
        backbone: what ends in a map of a 32nd of the input's size.
        neck: channels between.
        channels, size: of the image embedding.
    """

    def __init__(self, backbone: ResNet, neck: int = 256, channels: int = 256, size: int = 64) -> None:
        super().__init__()
        self.backbone = backbone
        self.up_1 = nn.Sequential(
            nn.Conv2d(backbone.channels, neck, 3, padding=1),
            nn.GELU(),
            nn.Conv2d(neck, neck, 3, padding=1),
            nn.GELU(),
            nn.Conv2d(neck, neck, 3, padding=1),
            nn.GELU(),
            nn.ConvTranspose2d(neck, neck, 3, 2, 1, 1),
            nn.GELU(),
        )
        self.proj = nn.Sequential(nn.Conv2d(neck, neck, 3, padding=1), nn.GELU(), nn.Conv2d(neck, channels, 1))
        self.pos_embedding = nn.Parameter(torch.zeros(1, channels, size, size))
        # Nothing normalises what these pass on: with torch's own beginnings it shrinks from layer to layer until the
        # student learns a constant, and without the small last one it first unlearns what was too large.
        for layer in (*self.up_1, *self.proj):
            start(layer)
        nn.init.normal_(cast("nn.Conv2d", self.proj[-1]).weight, std=_LAST_STD)

    def forward(self, x: Tensor) -> Tensor:
        """``[N, 3, S, S]`` normalised and padded → image embedding ``[N, channels, size, size]``."""
        return self.proj(self.up_1(self.backbone(x))) + self.pos_embedding  # type: ignore[no-any-return]

    def window(self, x: Tensor, places: Sequence[tuple[int, int]]) -> Tensor:
        """The part of the embedding that each square part of an input stands for, for training on parts.

        Args:
            x: ``[N, 3, s, s]``, ``s`` a multiple of 32.
            places: row and column of each one's first place in the embedding.
        """
        side = x.shape[-1] // STRIDE
        parts = [self.pos_embedding[0, :, row : row + side, column : column + side] for row, column in places]
        return self.proj(self.up_1(self.backbone(x))) + torch.stack(parts)  # type: ignore[no-any-return]


def build(spec: VariantSpec) -> Sam:
    """The network for ``spec``: ``architecture`` has ``widths`` and ``depths`` of the ResNet's stages, and ``neck``."""
    channels, size, _ = spec.embedding_shape
    sizes = spec.architecture
    encoder = NanoSamEncoder(ResNet(sizes["widths"], sizes["depths"]), sizes["neck"], channels, size)
    return Sam(encoder, PromptEncoder(channels, size, spec.prompt_size), MaskDecoder())
