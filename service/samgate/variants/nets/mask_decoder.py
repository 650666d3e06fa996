"""SAM's mask decoder (arXiv 2304.02643, appendix A), in two stages that can run apart."""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from samgate.variants.nets.layers import LayerNorm2d, Mlp, repeat, reshape
from samgate.variants.nets.two_way_transformer import TwoWayTransformer

_Upscaling = tuple[nn.ConvTranspose2d, LayerNorm2d, nn.GELU, nn.ConvTranspose2d, nn.GELU]


class MaskDecoder(nn.Module):
    """Prompt tokens and an image embedding → masks and their predicted IoU.

    :meth:`attend` is all that the predicted IoU needs; :meth:`upscale` makes the masks, about half of the work.

    Args:
        dim: width of tokens and image embedding.
        masks: mask tokens: one for unambiguous prompts and the alternatives.
        embedding_size: height and width of the image embedding.
    """

    def __init__(self, dim: int = 256, masks: int = 4, embedding_size: int = 64) -> None:
        super().__init__()
        self.dim, self.masks, self.embedding_size = dim, masks, embedding_size
        self.transformer = TwoWayTransformer(dim, embedding_size**2)
        self.iou_token = nn.Embedding(1, dim)
        self.mask_tokens = nn.Embedding(masks, dim)
        self.output_upscaling = nn.Sequential(
            nn.ConvTranspose2d(dim, dim // 4, 2, 2),
            LayerNorm2d(dim // 4),
            nn.GELU(),
            nn.ConvTranspose2d(dim // 4, dim // 8, 2, 2),
            nn.GELU(),
        )
        self.output_hypernetworks_mlps = nn.ModuleList(Mlp((dim, dim, dim, dim // 8)) for _ in range(masks))
        self.iou_prediction_head: nn.Module = Mlp((dim, dim, dim, masks))

    def attend(self, image: Tensor, points: Tensor, positions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The transformer and the IoU head.

        Args:
            image: image tokens ``[I, 1 or P, L, C]`` with the dense prompt added.
            points: prompt tokens ``[I, P, K, C]``.
            positions: encoding of the image tokens' places ``[L, C]``.

        Returns:
            mask tokens ``[I, P, M, C]``, image tokens ``[I, P, L, C]``, predicted IoU ``[I, P, M]``.
        """
        tokens, image = self.transformer(self.prompt(points), image, positions)
        mask_tokens, ious = self.ends(tokens)
        return mask_tokens, image, ious

    def prompt(self, points: Tensor) -> Tensor:
        """The decoder's own tokens and ``points`` ``[I, P, K, C]``: ``[I, P, T, C]``."""
        own = repeat(torch.cat((self.iou_token.weight, self.mask_tokens.weight)), points)
        return torch.cat((own, points), 2)

    def ends(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens ``[I, P, T, C]`` at the end → mask tokens ``[I, P, M, C]`` and predicted IoU ``[I, P, M]``."""
        return tokens[:, :, 1 : 1 + self.masks], self.iou_prediction_head(tokens[:, :, 0])

    def upscale(self, tokens: Tensor, image: Tensor) -> Tensor:
        """Mask tokens ``[I, P, M, C]`` and image tokens ``[I, P, H², C]`` → logits ``[I, P, M, 4H, 4H]``.

        A transposed convolution whose stride is its kernel is one matrix product a pixel, so the pixels stay where they
        are, as a tree of 2 × 2 children, until there are only M channels left to bring in order.
        """
        first = cast("_Upscaling", tuple(self.output_upscaling))[0]
        return self.masks_of(tokens, children(first, reshape(image, 0, -1, self.dim)))

    def masks_of(self, tokens: Tensor, x: Tensor) -> Tensor:
        """The rest of :meth:`upscale` after its first layer, which has made ``x`` ``[I, P·4H², C/4]``."""
        return self.logits(tokens, self.pixels_of(x))

    def logits(self, tokens: Tensor, pixels: Tensor) -> Tensor:
        """Mask tokens ``[I, P, M, C]`` and ``pixels`` ``[I, P·16H², C/8]``, the last layer's, as a tree of 2 × 2
        children → logits ``[I, P, M, 4H, 4H]``."""
        size = self.embedding_size
        x = reshape(pixels, 0, -1, 16 * size * size, self.dim // 8)
        logits = reshape(self.hyper(tokens) @ x.transpose(-2, -1), 0, -1, size, size, 2, 2, 2, 2)
        logits = logits.permute(0, 1, 2, 4, 6, 3, 5, 7)
        return reshape(logits, 0, -1, self.masks, 4 * size, 4 * size)

    def pixels_of(self, x: Tensor) -> Tensor:
        """What the other layers make of ``x`` ``[I, n, C/4]`` before the masks: ``[I, n·4, C/8]``."""
        _, norm, _, second, _ = cast("_Upscaling", tuple(self.output_upscaling))
        return F.gelu(children(second, F.gelu(norm(x))))

    def coarse_of(self, tokens: Tensor, x: Tensor) -> Tensor:
        """Every fourth row and column of the logits, from the second on, for a part of the cost: ``[I, P, M, H, H]``.

        Args:
            tokens: as those of :meth:`upscale`.
            x: ``[I, P·H², C/4]``, what the first layer makes for the first of its four pixels each, see
                :meth:`first_child`.
        """
        size = self.embedding_size
        x = reshape(self.coarse_pixels(x), 0, -1, size * size, self.dim // 8)
        return reshape(self.hyper(tokens) @ x.transpose(-2, -1), 0, -1, self.masks, size, size)

    def coarse_pixels(self, x: Tensor) -> Tensor:
        """What :meth:`coarse_of` makes of ``x`` ``[..., C/4]`` before the masks: ``[..., C/8]``."""
        _, norm, _, second, _ = cast("_Upscaling", tuple(self.output_upscaling))
        # Of the second layer's four the last: a pixel in the middle of the 4 × 4.
        weight = child_weight(second)[-second.out_channels :]
        return F.gelu(F.linear(F.gelu(norm(x)), weight, second.bias))

    def first_child(self) -> tuple[Tensor, Tensor]:
        """Weight ``[C/4, C]`` and bias ``[C/4]`` of the first layer for the first of its four pixels."""
        first = cast("_Upscaling", tuple(self.output_upscaling))[0]
        bias = torch.zeros(first.out_channels) if first.bias is None else first.bias
        return child_weight(first)[: first.out_channels], bias

    def hyper(self, tokens: Tensor) -> Tensor:
        """Mask tokens ``[I, P, M, C]`` → what each mask is of the last layer's channels, ``[I, P, M, C/8]``."""
        return torch.stack([mlp(tokens[:, :, i]) for i, mlp in enumerate(self.output_hypernetworks_mlps)], 2)


def child_weight(conv: nn.ConvTranspose2d) -> Tensor:
    """Of a 2 × 2 transposed convolution of stride 2 as one matrix product a pixel: ``[4·out, in]``, the four pixels
    that it makes of each row by row."""
    return conv.weight.permute(2, 3, 1, 0).reshape(4 * conv.out_channels, conv.in_channels)


def children(conv: nn.ConvTranspose2d, x: Tensor) -> Tensor:
    """``[I, pixels, in]`` → ``[I, pixels·4, out]``."""
    bias = conv.bias.repeat(4) if conv.bias is not None else None
    return reshape(F.linear(x, child_weight(conv), bias), 0, -1, conv.out_channels)
