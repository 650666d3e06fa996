"""The mask decoder for many prompts on one image, with the image tokens never written out.

What a prompt does to the L image tokens is little: each attention adds, to every token, a mix of the prompt's few value
vectors, and a LayerNorm shifts and scales. So the tokens of one prompt stay, through both blocks,

    x = scale ⊙ (base + weightsᵀ · vectors)

``base`` ``[L, C]`` is the same for all prompts of an image, ``scale`` ``[1, L]``, ``weights`` ``[J, L]`` (attention,
J = tokens × heads of each block so far) and ``vectors`` ``[J, C]`` are the prompt's. A projection of x is one of
``base``, done once an image, and one of ``vectors``, which are few: this replaces all products of L × C matrices for
every prompt, about two thirds of the multiplications of :mod:`samgate.variants.nets.two_way_transformer`, with the same
result but for rounding. A LayerNorm centres ``base`` and ``vectors`` instead of x, whose variance is then
``scale² · (|base|² + Σ weights ⊙ (2·vectors·base + vectors·vectorsᵀ·weights)) / C``, and changes ``scale`` alone.

Two things are done about what is left, which is L long. Blocks of tokens that are alike are one token here
(:mod:`samgate.variants.merging`); this is the one approximation. And the tokens go through in tiles, each attention's
softmax over all of them put together from its tiles' (as FlashAttention's, arXiv 2205.14135): a tile's tensors stay in
a core's cache from one operation to the next.

:class:`ImageTerms` depends on the image alone; the prompts' side is :mod:`samgate.variants.nets.factored_prompts`.
Shapes: P prompts of T tokens, h heads of d channels, L image tokens in n tiles of t, H² of them before merging.
"""

from __future__ import annotations

from enum import IntEnum
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from samgate.variants.graphs import VALUE_TERMS
from samgate.variants.merging import Merging
from samgate.variants.nets.mask_decoder import MaskDecoder, child_weight
from samgate.variants.nets.two_way_transformer import TwoWayBlock


def centred(x: Tensor) -> Tensor:
    """``x`` less its mean over channels."""
    return x - x.mean(-1, keepdim=True)


class Blocks(nn.Module):
    """The decoder's parts by the roles they play here, and what of them is the same for all images."""

    def __init__(self, decoder: MaskDecoder, merging: Merging | None = None) -> None:
        super().__init__()
        self.decoder = decoder
        transformer = decoder.transformer
        if len(transformer.layers) != 2:
            raise ValueError(f"the factored decoder is for two blocks, not for {len(transformer.layers)}")
        self.first, self.second = cast("list[TwoWayBlock]", list(transformer.layers))
        self.last = transformer.final_attn_token_to_image
        self.last_norm = transformer.norm_final_attn
        self.merging = merging or Merging.half(decoder.embedding_size)

    def outwards(self, block: TwoWayBlock) -> Tensor:
        """What values of the image's attention to tokens become in the image, in ``block``, centred: ``[h, d, C]``."""
        attention = block.cross_attn_image_to_token
        out = attention.out_proj.weight.reshape(attention.dim, attention.heads, -1).permute(1, 2, 0)
        return centred(out)

    def normed(self) -> Tensor:
        """The first block's after its norm: ``[h, d, C]``."""
        return self.outwards(self.first) * self.first.norm4.weight

    def offset(self) -> Tensor:
        """What the second block adds to every image token: the first norm's bias and its own output bias, ``[C]``."""
        return self.first.norm4.bias + self.second.cross_attn_image_to_token.out_proj.bias


class Key(IntEnum):
    """What of the image scores and squares are made of, in the order that ``terms`` has them.

    The tokens look at the image three times, and it is written to twice. ``…_FIXED`` is what the image's scale leaves
    alone: the shift of a norm and the positions.
    """

    FIRST_LOOK = 0
    FIRST_WRITE = 1
    FIRST_WRITTEN = 2
    SECOND_LOOK = 3
    SECOND_LOOK_FIXED = 4
    SECOND_WRITE = 5
    SECOND_WRITE_FIXED = 6
    FIRST_WRITTEN_AGAIN = 7
    SECOND_WRITTEN = 8
    LAST_LOOK = 9
    LAST_LOOK_FIXED = 10


class ImageTerms(Blocks):
    """All that SegEvery's decoder needs of an image, calculated once."""

    def forward(self, image: Tensor, positions: Tensor) -> tuple[Tensor, ...]:
        """
        Args:
            image: image tokens ``[1, H², C]`` with the dense prompt added.
            positions: encoding of their places ``[H², C]``.

        Returns:
            For prompts, by tile: projections that scores are made of ``[n, 11·h·d + 3, t]``, values ``[n,
            3·h, t, d]`` and what the first layer of the upscaling makes of the base for the first of its four pixels
            ``[n, t, C/4]``; of all tokens, that layer's results ``[1, H², C]`` and the place of each among those that
            are left, int32 ``[H²]``.
        """
        first, second, last = self.first, self.second, self.last
        pixels = self._pixels(self._based(image)[2])
        image, positions, places = self._merge(image[0], positions)
        based, again, ended = self._based(image)
        scaled = based * first.norm4.weight
        placed = image + positions
        shift = positions + first.norm4.bias
        write, rewrite = first.cross_attn_image_to_token, second.cross_attn_image_to_token
        by_key = {
            Key.FIRST_LOOK: self._rows(placed, first.cross_attn_token_to_image.k_proj.weight),
            Key.FIRST_WRITE: self._rows(placed, write.q_proj.weight, write.q_proj.bias),
            Key.FIRST_WRITTEN: self._rows(based, self.outwards(first).flatten(0, 1)),
            Key.SECOND_LOOK: self._rows(scaled, second.cross_attn_token_to_image.k_proj.weight),
            Key.SECOND_LOOK_FIXED: self._rows(shift, second.cross_attn_token_to_image.k_proj.weight),
            Key.SECOND_WRITE: self._rows(scaled, rewrite.q_proj.weight),
            Key.SECOND_WRITE_FIXED: self._rows(shift, rewrite.q_proj.weight, rewrite.q_proj.bias),
            Key.FIRST_WRITTEN_AGAIN: self._rows(again, centred(self.normed()).flatten(0, 1)),
            Key.SECOND_WRITTEN: self._rows(again, self.outwards(second).flatten(0, 1)),
            Key.LAST_LOOK: self._rows(ended, last.k_proj.weight),
            Key.LAST_LOOK_FIXED: self._rows(positions + second.norm4.bias, last.k_proj.weight),
        }
        keys = [by_key[key] for key in Key]
        keys += [self._tiles(x).sum(-1).unsqueeze(1) for x in (based.square(), again.square(), again * self.offset())]
        values = [
            F.linear(image, first.cross_attn_token_to_image.v_proj.weight),
            F.linear(scaled, second.cross_attn_token_to_image.v_proj.weight),
            F.linear(ended, last.v_proj.weight),
        ]
        by_head = self._tiles(torch.cat(values, -1)).reshape(
            self.merging.tiles, self.merging.tile, VALUE_TERMS * last.heads, -1
        )
        return (
            torch.cat(keys, 1),
            by_head.transpose(1, 2),
            self._tiles(self._pixels(ended)[:, : self.decoder.dim // 4]),
            pixels,
            places,
        )

    def _based(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Of tokens ``[..., C]``: the base after the first block, centred; as the second norm centres it; and after
        that norm, but for its bias. The output's bias is the same for all tokens and prompts: it joins the base."""
        based = centred(image + self.first.cross_attn_image_to_token.out_proj.bias)
        again = centred(based * self.first.norm4.weight)
        return based, again, again * self.second.norm4.weight

    def _pixels(self, ended: Tensor) -> Tensor:
        return F.linear(ended, child_weight(cast("nn.ConvTranspose2d", self.decoder.output_upscaling[0])))

    def _rows(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """``x`` ``[L, C]`` through ``weight`` ``[c, C]``, channels first: ``[n, c, t]``."""
        rows = weight @ self._tiles(x).transpose(1, 2)
        return rows if bias is None else rows + bias.unsqueeze(-1)

    def _tiles(self, x: Tensor) -> Tensor:
        """``[L, c]`` → ``[n, t, c]``."""
        return x.reshape(self.merging.tiles, self.merging.tile, -1)

    def _merge(self, image: Tensor, positions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """``image`` and ``positions`` ``[H², C]`` → the same ``[L, C]``, and the place in these of each of the first,
        int32 ``[H²]``."""
        half, merged = self.merging.side // 2, self.merging.merged

        def blocks(x: Tensor) -> Tensor:
            return x.reshape(half, 2, half, 2, -1).permute(0, 2, 1, 3, 4).reshape(self.merging.blocks, 4, -1)

        tokens = blocks(image)
        unlike = (tokens - tokens.mean(1, keepdim=True)).square().sum((1, 2))
        order = unlike.topk(self.merging.blocks, largest=False).indices
        both = blocks(torch.cat((image, positions), -1))[order]
        left = torch.cat((both[:merged].mean(1), both[merged:].flatten(0, 1)))
        # The inverse of a permutation is what would sort it.
        rank = order.topk(self.merging.blocks, largest=False).indices[:, None]
        places = torch.where(rank < merged, rank, merged + (rank - merged) * 4 + torch.arange(4))
        places = places.reshape(half, half, 2, 2).permute(0, 2, 1, 3).reshape(-1)
        image, positions = left.chunk(2, -1)
        return image, positions, places.to(torch.int32)
