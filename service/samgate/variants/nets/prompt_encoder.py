"""SAM's prompt encoder (Kirillov et al., 2023, arXiv 2304.02643, appendix A): prompts as tokens and as a dense map."""

from __future__ import annotations

import math
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from samgate.variants.nets.layers import LayerNorm2d, reshape

_Downscaling = tuple[nn.Conv2d, LayerNorm2d, nn.GELU, nn.Conv2d, LayerNorm2d, nn.GELU, nn.Conv2d]


class RandomPositions(nn.Module):
    """Positional encoding by random spatial frequencies (Tancik et al., 2020, arXiv 2006.10739)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.register_buffer("positional_encoding_gaussian_matrix", torch.zeros(2, dim // 2))
        self.positional_encoding_gaussian_matrix: Tensor

    def forward(self, xy: Tensor) -> Tensor:
        """Positions ``[..., 2]`` as (x, y) in [0, 1] → ``[..., dim]``."""
        frequencies = self.positional_encoding_gaussian_matrix * (2 * math.pi)
        xy = 2 * xy - 1
        # Two products and a sum, not a matrix product: engines run those in TF32 or bf16, and the angle is large.
        angle = xy[..., :1] * frequencies[0] + xy[..., 1:] * frequencies[1]
        return torch.cat((angle.sin(), angle.cos()), -1)

    def grid(self, size: int) -> Tensor:
        """Encoding ``[size², dim]`` of the centres of a ``size`` × ``size`` grid, row by row."""
        centre = (torch.arange(size) + 0.5) / size
        y, x = centre.repeat_interleave(size), centre.repeat(size)
        return self(torch.stack((x, y), -1))  # type: ignore[no-any-return]


class PromptEncoder(nn.Module):
    """Points and boxes → tokens; masks → a map that is added to the image embedding.

    Args:
        dim: width of tokens and image embedding.
        embedding_size: height and width of the image embedding; a mask prompt is four times as large.
        prompt_size: side of the frame in whose pixels coordinates are: the encoder's padded square, at the size that
            the decoder was trained with.
        mask_channels: width of the mask's convolutions.
    """

    def __init__(
        self, dim: int = 256, embedding_size: int = 64, prompt_size: int = 1024, mask_channels: int = 16
    ) -> None:
        super().__init__()
        self.dim, self.embedding_size, self.prompt_size = dim, embedding_size, prompt_size
        self.pe_layer = RandomPositions(dim)
        self.point_embeddings = nn.ModuleList(nn.Embedding(1, dim) for _ in range(4))
        self.not_a_point_embed = nn.Embedding(1, dim)
        self.mask_downscaling = nn.Sequential(
            nn.Conv2d(1, mask_channels // 4, 2, 2),
            LayerNorm2d(mask_channels // 4),
            nn.GELU(),
            nn.Conv2d(mask_channels // 4, mask_channels, 2, 2),
            LayerNorm2d(mask_channels),
            nn.GELU(),
            nn.Conv2d(mask_channels, dim, 1),
        )
        self.no_mask_embed = nn.Embedding(1, dim)

    def points(self, coords: Tensor, labels: Tensor) -> Tensor:
        """Tokens ``[I, P, K, dim]``.

        Args:
            coords: ``[I, P, K, 2]`` as (x, y) in pixels of the prompt frame.
            labels: int32 ``[I, P, K]``: −1 no point, 0 background, 1 foreground, 2 and 3 a box's two corners.
        """
        embeddings = cast("list[nn.Embedding]", [self.not_a_point_embed, *self.point_embeddings])
        kinds = torch.cat([embedding.weight for embedding in embeddings])
        # "No point" has no position; every other kind adds its position to its own embedding.
        zero = torch.zeros(1, dtype=labels.dtype)  # compared with a Python number, labels would be cast to int64
        has_position = (labels >= zero).to(coords.dtype).unsqueeze(-1)
        positions: Tensor = self.pe_layer((coords + 0.5) / self.prompt_size)
        return positions * has_position + F.embedding(labels + 1, kinds)

    def no_mask(self) -> Tensor:
        """``[1, dim]``, what stands at every place for a prompt without a mask."""
        return self.no_mask_embed.weight

    def masks(self, masks: Tensor, has_mask: Tensor) -> Tensor:
        """Dense maps ``[I, P, embedding_size², dim]``.

        Args:
            masks: low-res logits ``[I, P, 1, 4·embedding_size, 4·embedding_size]``.
            has_mask: float ``[I, P]``, 1 where the prompt has a mask; 0 takes the map of a prompt without one.
        """
        first, norm1, _, second, norm2, _, last = cast("_Downscaling", tuple(self.mask_downscaling))
        size = self.embedding_size
        # A convolution whose stride is its kernel is one matrix product a patch: gather the patches' pixels once, as a
        # tree of 2 × 2 children, and stay channels-last.
        x = reshape(masks, 0, -1, size, 2, 2, size, 2, 2).permute(0, 1, 2, 5, 3, 6, 4, 7)
        x = F.gelu(norm1(self.patches(first, reshape(x, 0, -1, 4))))
        x = F.gelu(norm2(self.patches(second, reshape(x, 0, -1, 4 * second.in_channels))))
        dense = reshape(self.patches(last, x), 0, -1, size * size, self.dim)
        given = has_mask[..., None, None]
        return given * dense + (1 - given) * self.no_mask()

    def patches(self, conv: nn.Conv2d, x: Tensor) -> Tensor:
        """See :func:`parents`."""
        return parents(conv, x)


def parents(conv: nn.Conv2d, x: Tensor) -> Tensor:
    """``[..., k·k·in]``, the pixels that a ``k`` × ``k`` convolution of stride ``k`` sees → ``[..., out]``."""
    return F.linear(x, conv.weight.permute(0, 2, 3, 1).flatten(1), conv.bias)
