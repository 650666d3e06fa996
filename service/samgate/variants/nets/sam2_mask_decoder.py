"""SAM 2's mask decoder (Ravi et al., 2024, arXiv 2408.00714): SAM's, which adds finer features as it enlarges masks.

It also has a token for whether the object is in the frame at all, which only says something in videos.
"""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from samgate.variants.nets.layers import LayerNorm2d, Mlp, MlpBlock, repeat, reshape
from samgate.variants.nets.mask_decoder import MaskDecoder, child_weight, children
from samgate.variants.nets.two_way_transformer import TwoWayBlock

_Upscaling = tuple[nn.ConvTranspose2d, LayerNorm2d, nn.GELU, nn.ConvTranspose2d, nn.GELU]


class Sam2MaskDecoder(MaskDecoder):
    """Prompt tokens and an embedding as :mod:`samgate.variants.nets.sam2` has it → masks and their predicted IoU.

    Shapes: I images, P prompts an image, M mask tokens, H height and width of the image embedding, C channels.
    """

    def __init__(self, dim: int = 256, masks: int = 4, embedding_size: int = 64) -> None:
        super().__init__(dim, masks, embedding_size)
        for block in self.transformer.layers:
            lin1 = cast("MlpBlock", cast("TwoWayBlock", block).mlp).lin1
            # The same function under other names.
            block.mlp = Mlp((dim, lin1.out_features, dim))
        self.obj_score_token = nn.Embedding(1, dim)
        self.pred_obj_score_head = Mlp((dim, dim, dim, 1))
        self.conv_s0 = nn.Conv2d(dim, dim // 8, 1)
        self.conv_s1 = nn.Conv2d(dim, dim // 4, 1)

    def prompt(self, points: Tensor) -> Tensor:
        """The decoder's own tokens and ``points`` ``[I, P, K, C]``: ``[I, P, T, C]``."""
        own = (self.obj_score_token.weight, self.iou_token.weight, self.mask_tokens.weight)
        return torch.cat((repeat(torch.cat(own), points), points), 2)

    def ends(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens ``[I, P, T, C]`` at the end → mask tokens ``[I, P, M, C]`` and predicted IoU ``[I, P, M]``."""
        mask_tokens, ious = super().ends(tokens[:, :, 1:])
        return mask_tokens, ious.sigmoid()

    def split(self, embedding: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """``[I, 4C, H, H]`` → image embedding ``[I, C, H, H]`` and, channels last, the features of each place's four
        pixels ``[I, H², C]`` and sixteen ``[I, H², 2C]``."""
        dim = self.dim
        image, fine, finest = embedding[:, :dim], embedding[:, dim : 2 * dim], embedding[:, 2 * dim :]
        return image, reshape(fine, 0, 0, -1).transpose(1, 2), reshape(finest, 0, 0, -1).transpose(1, 2)

    def upscale_with(self, tokens: Tensor, image: Tensor, fine: Tensor, finest: Tensor) -> Tensor:
        """Mask tokens ``[I, P, M, C]``, image tokens ``[I, P, H², C]`` and what :meth:`split` gives → logits
        ``[I, P, M, 4H, 4H]``."""
        first, norm, _, second, _ = cast("_Upscaling", tuple(self.output_upscaling))
        x = self._plus(children(first, reshape(image, 0, -1, self.dim)), fine, 4, self.dim // 4)
        x = self._plus(children(second, F.gelu(norm(x))), finest, 16, self.dim // 8)
        return self.logits(tokens, F.gelu(x))

    def coarse_with(self, tokens: Tensor, image: Tensor, fine: Tensor, finest: Tensor) -> Tensor:
        """Every fourth row and column of what :meth:`upscale_with` gives, from the second on: ``[I, P, M, H, H]``."""
        _, norm, _, second, _ = cast("_Upscaling", tuple(self.output_upscaling))
        size, middle, last = self.embedding_size, self.dim // 4, self.dim // 8
        # As MaskDecoder.coarse_of: of the first layer's four pixels the first, of the second layer's the last.
        x = F.linear(reshape(image, 0, -1, self.dim), *self.first_child())
        x = F.gelu(norm(self._plus(x, fine[..., :middle], 1, middle)))
        x = F.linear(x, child_weight(second)[-last:], second.bias)
        x = F.gelu(self._plus(x, finest[..., 3 * last : 4 * last], 1, last))
        x = reshape(x, 0, -1, size * size, last)
        return reshape(self.hyper(tokens) @ x.transpose(-2, -1), 0, -1, self.masks, size, size)

    def _plus(self, x: Tensor, features: Tensor, pixels: int, dim: int) -> Tensor:
        """``x`` ``[I, P·H²·pixels, dim]`` and ``features`` ``[I, H², pixels·dim]``, the same for all prompts."""
        x = reshape(x, 0, -1, self.embedding_size**2, pixels * dim) + features.unsqueeze(1)
        return reshape(x, 0, -1, dim)
