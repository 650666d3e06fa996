"""EfficientSAM's mask decoder (arXiv 2312.00863): SAM's, with other activations, normalisations and residuals.

* Feed-forward parts, hypernetworks and the IoU head have GELU.
* The first block's self-attention has a residual, and in all of them the prompt is in the values and the residual, too.
* The upscaling is normalised over a mask's whole map at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from samgate.variants.nets.layers import reshape
from samgate.variants.nets.mask_decoder import MaskDecoder, children
from samgate.variants.nets.two_way_transformer import TwoWayBlock, TwoWayTransformer

_Layers = list[tuple[nn.ConvTranspose2d, nn.Module, nn.GELU]]


class GeluMlp(nn.Module):
    """Linear layers with GELU between them, ``widths[0]`` → ``widths[-1]``."""

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__()
        *hidden, last = pairwise(widths)
        self.layers = nn.ModuleList(nn.Sequential(nn.Linear(a, b), nn.GELU()) for a, b in hidden)
        self.fc = nn.Linear(*last)

    def forward(self, x: Tensor) -> Tensor:
        """``[..., widths[0]]`` → ``[..., widths[-1]]``."""
        for layer in self.layers:
            x = layer(x)
        return self.fc(x)  # type: ignore[no-any-return]


class WholeNorm(nn.Module):
    """Normalisation over all pixels and channels of each map (a GroupNorm of one group); weight and bias by channel.

    Written out, since GroupNorm would want the pixels last.
    """

    def __init__(self, channels: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """``[I, P, pixels, C]`` → the same."""
        x = x - self._mean(x)
        scale = torch.rsqrt(self._mean(x * x) + self.eps)
        return x * (scale * self.weight) + self.bias

    @staticmethod
    def _mean(x: Tensor) -> Tensor:
        # In two steps: some engines add a million numbers one after the other, and lose two digits.
        return x.mean(-1, keepdim=True).mean(-2, keepdim=True)


class EfficientSamBlock(TwoWayBlock):
    """A block whose feed-forward part and self-attention are EfficientSAM's."""

    def __init__(self, dim: int, heads: int, mlp_dim: int, pixels: int, first: bool) -> None:
        super().__init__(dim, heads, mlp_dim, pixels, first)
        self.mlp = GeluMlp((dim, mlp_dim, dim))

    def among(self, tokens: Tensor, prompt: Tensor) -> Tensor:
        placed = tokens if self.first else tokens + prompt
        return placed + self.self_attn(placed, placed)  # type: ignore[no-any-return]


class EfficientSamDecoder(MaskDecoder):
    """Prompt tokens and an image embedding → masks and their predicted IoU; see :class:`MaskDecoder`.

    Args:
        depth: of the transformer.
        mlp_dim: width of its feed-forward parts.
    """

    def __init__(
        self, dim: int = 256, masks: int = 4, embedding_size: int = 64, depth: int = 2, mlp_dim: int = 2048
    ) -> None:
        super().__init__(dim, masks, embedding_size)
        pixels = embedding_size**2
        self.transformer = TwoWayTransformer(dim, pixels, depth, mlp_dim=mlp_dim, block=EfficientSamBlock)
        del self.output_upscaling
        self.final_output_upscaling_layers = nn.ModuleList(
            (
                nn.Sequential(nn.ConvTranspose2d(dim, dim // 4, 2, 2), WholeNorm(dim // 4), nn.GELU()),
                nn.Sequential(nn.ConvTranspose2d(dim // 4, dim // 8, 2, 2), nn.Identity(), nn.GELU()),
            )
        )
        self.output_hypernetworks_mlps = nn.ModuleList(GeluMlp((dim, dim, dim, dim // 8)) for _ in range(masks))
        self.iou_prediction_head = GeluMlp((dim, dim, dim, masks))

    def pixels_of(self, x: Tensor) -> Tensor:
        (_, norm, _), (second, *_) = cast("_Layers", list(self.final_output_upscaling_layers))
        x = norm(reshape(x, 0, -1, 4 * self.embedding_size**2, self.dim // 4))
        return F.gelu(children(second, reshape(F.gelu(x), 0, -1, self.dim // 4)))

    def upscale(self, tokens: Tensor, image: Tensor) -> Tensor:
        (first, *_), _ = cast("_Layers", list(self.final_output_upscaling_layers))
        return self.masks_of(tokens, children(first, reshape(image, 0, -1, self.dim)))
