"""EfficientSAM (Xiong et al., 2023, arXiv 2312.00863): a plain ViT, and a prompt encoder and a decoder of its own."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from samgate.variants.nets.efficientsam_decoder import EfficientSamDecoder
from samgate.variants.nets.layers import reshape
from samgate.variants.nets.plain_vit import PlainViT, PlainVitConfig
from samgate.variants.nets.prompt_encoder import RandomPositions
from samgate.variants.nets.sam import EncoderGraph
from samgate.variants.spec import GraphName, VariantSpec


class PointEncoder(nn.Module):
    """Points and boxes → tokens.

    Args:
        dim: width of the tokens.
        prompt_size: side of the frame in whose pixels coordinates are.
    """

    def __init__(self, dim: int, prompt_size: int) -> None:
        super().__init__()
        self.prompt_size = prompt_size
        self.pe_layer = RandomPositions(dim)
        self.invalid_points = nn.Embedding(1, dim)
        self.point_embeddings = nn.Embedding(1, dim)
        self.bbox_top_left_embeddings = nn.Embedding(1, dim)
        self.bbox_bottom_right_embeddings = nn.Embedding(1, dim)

    def forward(self, coords: Tensor, labels: Tensor) -> Tensor:
        """Tokens ``[I, P, K, dim]``: every kind's own vector and its position, that of a padding point, too.

        Args:
            coords: ``[I, P, K, 2]`` as (x, y) in pixels of the prompt frame.
            labels: int32 ``[I, P, K]``: −1 padding, 1 a point, 2 and 3 a box's two corners. 0, which SAM has for
                background points, has no vector.
        """
        point = self.point_embeddings.weight
        corners = (self.bbox_top_left_embeddings.weight, self.bbox_bottom_right_embeddings.weight)
        kinds = torch.cat((self.invalid_points.weight, torch.zeros_like(point), point, *corners))
        positions: Tensor = self.pe_layer((coords + 0.5) / self.prompt_size)
        return positions + F.embedding(labels + 1, kinds)


class EfficientSam(nn.Module):
    """The three parts under the names that the published checkpoints use."""

    def __init__(
        self, image_encoder: PlainViT, prompt_encoder: PointEncoder, mask_decoder: EfficientSamDecoder
    ) -> None:
        super().__init__()
        self.image_encoder = image_encoder
        self.prompt_encoder = prompt_encoder
        self.mask_decoder = mask_decoder


class EfficientSamDecoderGraph(nn.Module):
    """Image embeddings and prompts → masks; see :class:`~samgate.variants.nets.sam.DecoderGraph`."""

    def __init__(self, network: EfficientSam) -> None:
        super().__init__()
        self.prompts = network.prompt_encoder
        self.decoder = network.mask_decoder

    def forward(self, image_embedding: Tensor, point_coords: Tensor, point_labels: Tensor) -> tuple[Tensor, Tensor]:
        """As :class:`~samgate.variants.nets.sam.DecoderGraph`, but every prompt comes with as many points, of which
        those of label −1 lie at (−1, −1)."""
        image = reshape(image_embedding, 0, 0, -1).transpose(1, 2).unsqueeze(1)
        positions = self.prompts.pe_layer.grid(self.decoder.embedding_size)
        tokens, image, ious = self.decoder.attend(image, self.prompts(point_coords, point_labels), positions)
        return self.decoder.upscale(tokens, image), ious


def build(spec: VariantSpec) -> EfficientSam:
    """The network for the sizes of ``spec``, with its parameters not yet loaded."""
    channels, size, _ = spec.embedding_shape
    wide = spec.architecture
    vit = PlainVitConfig(
        image_size=spec.input_size,
        patch=spec.input_size // size,
        dim=wide["dim"],
        heads=wide["heads"],
        depth=wide["depth"],
        out_channels=channels,
    )
    decoder = EfficientSamDecoder(channels, spec.mask_tokens, size, mlp_dim=wide["decoder_mlp"])
    return EfficientSam(PlainViT(vit), PointEncoder(channels, spec.prompt_size), decoder)


def graph_module(spec: VariantSpec, network: Any, name: GraphName) -> nn.Module:
    """What computes the graph ``name`` of ``spec``."""
    if name == "encoder":
        return EncoderGraph(network, spec.input_size, spec.pixel_mean, spec.pixel_std)
    return EfficientSamDecoderGraph(network)
