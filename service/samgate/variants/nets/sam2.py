"""SAM 2 (Ravi et al., 2024, arXiv 2408.00714) for single images: Hiera, a pyramid's neck, SAM's prompt encoder and a
decoder that also sees finer features of the image.

The decoder needs three maps of an image. They travel as one embedding ``[N, 1024, 64, 64]``: 256 channels of the image
embedding, the four pixels of 64 channels that :attr:`Sam2MaskDecoder.conv_s1` makes for each of its places, and the
sixteen of 32 channels of ``conv_s0``. Pixels of a place are in the order of the decoder's tree of 2 × 2 children, so
that they are added there as they come.
"""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from samgate.variants.nets.hiera import Hiera, HieraConfig
from samgate.variants.nets.layers import to_map
from samgate.variants.nets.prompt_encoder import PromptEncoder
from samgate.variants.nets.sam import DecoderGraph, EncoderGraph, MaskedDecoderGraph, Sam
from samgate.variants.nets.sam2_mask_decoder import Sam2MaskDecoder
from samgate.variants.spec import GraphName, VariantSpec

_DIM = 256
"""Width of tokens and image embedding."""


class Lateral(nn.Module):
    """A stage's tokens → the neck's width: a 1 × 1 convolution, as one product."""

    def __init__(self, dim: int, out_dim: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(dim, out_dim, 1)

    def forward(self, x: Tensor) -> Tensor:
        """``[N, L, dim]`` → ``[N, L, out_dim]``."""
        return F.linear(x, self.conv.weight.flatten(1), self.conv.bias)

    def then(self, x: Tensor, conv: nn.Conv2d) -> Tensor:
        """What the 1 × 1 convolution ``conv`` makes of :meth:`forward`'s result: both are one product."""
        if conv.bias is None or self.conv.bias is None:
            raise TypeError("both convolutions have biases")
        weight = conv.weight.flatten(1)
        return F.linear(x, weight @ self.conv.weight.flatten(1), weight @ self.conv.bias + conv.bias)


class FpnNeck(nn.Module):
    """Laterals of all stages, the coarsest stage's first."""

    def __init__(self, widths: tuple[int, ...], out_dim: int) -> None:
        super().__init__()
        self.convs = nn.ModuleList(Lateral(width, out_dim) for width in reversed(widths))


class ImageEncoder(nn.Module):
    """Trunk and neck under the names of published checkpoints."""

    def __init__(self, config: HieraConfig) -> None:
        super().__init__()
        self.trunk = Hiera(config)
        self.neck = FpnNeck(config.widths, _DIM)


class Sam2(nn.Module):
    """What SAM 2 needs for images, under the names of published checkpoints, which also hold what it needs for videos.

    ``no_mem_embed`` is what an image embedding becomes where there is no memory of earlier frames.
    """

    def __init__(self, config: HieraConfig, embedding_size: int, prompt_size: int) -> None:
        super().__init__()
        self.image_encoder = ImageEncoder(config)
        self.sam_prompt_encoder = PromptEncoder(_DIM, embedding_size, prompt_size)
        self.sam_mask_decoder = Sam2MaskDecoder(_DIM, embedding_size=embedding_size)
        self.no_mem_embed = nn.Parameter(torch.zeros(1, 1, _DIM))

    def parts(self) -> Sam:
        """The same as SAM's three parts."""
        return Sam(Embedder(self), self.sam_prompt_encoder, self.sam_mask_decoder)


class Embedder(nn.Module):
    """Normalised pixels → everything that the decoder needs of an image."""

    def __init__(self, network: Sam2) -> None:
        super().__init__()
        self.trunk, self.neck = network.image_encoder.trunk, network.image_encoder.neck
        self.decoder = network.sam_mask_decoder
        self.no_mem_embed = network.no_mem_embed

    def forward(self, x: Tensor) -> Tensor:
        """``[N, 3, S, S]`` → ``[N, 1024, H, H]``."""
        finest, fine, middle, coarse = self.trunk(x)
        size, decoder = self.decoder.embedding_size, self.decoder
        top, lateral, fine_lateral, finest_lateral = cast("list[Lateral]", list(self.neck.convs))
        # The coarsest map repeated to the next one's resolution, which alone gets anything from above.
        above = top(coarse).reshape(-1, size // 2, 1, size // 2, 1, _DIM)
        image = lateral(middle).reshape(-1, size // 2, 2, size // 2, 2, _DIM) + above
        image = to_map(image.reshape(-1, size * size, _DIM) + self.no_mem_embed, size, _DIM)
        return torch.cat(
            (
                image,
                _children_first(fine_lateral.then(fine, decoder.conv_s1), size, 1, decoder.conv_s1.out_channels),
                _children_first(finest_lateral.then(finest, decoder.conv_s0), size, 2, decoder.conv_s0.out_channels),
            ),
            1,
        )


def _children_first(x: Tensor, size: int, levels: int, dim: int) -> Tensor:
    """Tokens ``[N, L, dim]`` of a map ``2^levels`` times as wide as ``size`` → ``[N, 4^levels·dim, size, size]``: each
    place's pixels, as a tree of 2 × 2 children, and the channels of each."""
    halves = (2,) * levels
    x = x.reshape(-1, size, *halves, size, *halves, dim)
    rows = range(2, 2 + levels)
    pixels = [axis for row in rows for axis in (row, row + levels + 1)]
    return x.permute(0, *pixels, x.dim() - 1, 1, 2 + levels).reshape(-1, 4**levels * dim, size, size)


class Sam2DecoderGraph(DecoderGraph):
    """SAM's, with an embedding that holds the finer features, too."""

    decoder: Sam2MaskDecoder

    def _decode(self, embedding: Tensor, coords: Tensor, labels: Tensor, dense: Tensor) -> tuple[Tensor, Tensor]:
        image, *finer = self.decoder.split(embedding)
        tokens, image, ious = self._attend(image, coords, labels, dense)
        return self.decoder.upscale_with(tokens, image, *finer), ious


class Sam2MaskedDecoderGraph(Sam2DecoderGraph, MaskedDecoderGraph):
    """The same for prompts of which some have a mask of an earlier round."""


class Sam2ScoresGraph(Sam2DecoderGraph):
    """As :class:`~samgate.variants.nets.sam.ScoresGraph`."""

    def forward(self, image_embedding: Tensor, point_coords: Tensor, point_labels: Tensor) -> tuple[Tensor, Tensor]:
        """What the masks would be worth, and coarsely what they are."""
        image, *finer = self.decoder.split(image_embedding)
        tokens, image, ious = self._attend(image, point_coords, point_labels, self.prompts.no_mask())
        return ious, self.decoder.coarse_with(tokens, image, *finer)


def build(spec: VariantSpec) -> Sam2:
    """The network for the sizes of ``spec``, with its parameters not yet loaded."""
    config = HieraConfig(image_size=spec.input_size, **spec.architecture)
    return Sam2(config, spec.embedding_shape[1], spec.prompt_size)


def graph_module(spec: VariantSpec, network: Sam2, name: GraphName) -> nn.Module:
    """What computes the graph ``name`` of ``spec``."""
    match name:
        case "encoder":
            return EncoderGraph(network.parts(), spec.input_size, spec.pixel_mean, spec.pixel_std)
        case "decoder":
            return Sam2DecoderGraph(network.parts())
        case "masked_decoder":
            return Sam2MaskedDecoderGraph(network.parts())
        case "scores":
            return Sam2ScoresGraph(network.parts())
        case _:
            raise ValueError(f"SAM 2 has no graph {name}")
