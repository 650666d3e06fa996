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

:class:`ImageTerms` is what depends on the image alone, :class:`PromptTerms` all that follows. Shapes: P prompts of T
tokens, h heads of d channels, H² = L image tokens.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from samgate.variants.graphs import SHARED_TERMS
from samgate.variants.nets.layers import reshape
from samgate.variants.nets.mask_decoder import MaskDecoder, child_weight
from samgate.variants.nets.two_way_transformer import Attention, TwoWayBlock


def _centred(x: Tensor) -> Tensor:
    """``x`` less its mean over channels."""
    return x - x.mean(-1, keepdim=True)


def _outwards(attention: Attention) -> Tensor:
    """The output projection as what the heads' values become: ``[h, d, C]``."""
    return attention.out_proj.weight.reshape(attention.dim, attention.heads, -1).permute(1, 2, 0)


def _flat(x: Tensor) -> Tensor:
    """``[h, d, C]`` → ``[h·d, C]``."""
    return x.flatten(0, 1)


class _Blocks(nn.Module):
    """The decoder's parts by the roles they play here."""

    def __init__(self, decoder: MaskDecoder) -> None:
        super().__init__()
        self.decoder = decoder
        transformer = decoder.transformer
        if len(transformer.layers) != 2:
            raise ValueError(f"the factored decoder is for two blocks, not for {len(transformer.layers)}")
        self.first, self.second = cast("list[TwoWayBlock]", list(transformer.layers))
        self.last = transformer.final_attn_token_to_image
        self.last_norm = transformer.norm_final_attn
        self.pixels = decoder.embedding_size**2

    def offset(self) -> Tensor:
        """What the second block adds to every image token: the first norm's bias and its own output bias, ``[C]``."""
        return self.first.norm4.bias + self.second.cross_attn_image_to_token.out_proj.bias


class ImageTerms(_Blocks):
    """All that SegEvery's decoder needs of an image, calculated once."""

    def forward(self, image: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        """
        Args:
            image: image tokens ``[1, L, C]`` with the dense prompt added.
            positions: encoding of their places ``[L, C]``.

        Returns:
            ``terms`` ``[1, 11·h·d + 3, L]`` for :class:`PromptTerms`, and ``pixels`` ``[1, L, C]``, what the first
            layer of the upscaling makes of the base.
        """
        first, second, last = self.first, self.second, self.last
        placed = image + positions
        # The output's bias is the same for all tokens and prompts: it joins the base.
        base = _centred(image + first.cross_attn_image_to_token.out_proj.bias)
        scaled = base * first.norm4.weight
        again = _centred(scaled)
        ended = again * second.norm4.weight
        outwards = _outwards(first.cross_attn_image_to_token)
        normed = _centred(_centred(outwards) * first.norm4.weight)
        projections = [
            (first.cross_attn_token_to_image.k_proj.weight, placed),
            (first.cross_attn_token_to_image.v_proj.weight, image),
            (first.cross_attn_image_to_token.q_proj.weight, placed),
            (_flat(outwards), base),
            (second.cross_attn_token_to_image.k_proj.weight, scaled),
            (second.cross_attn_token_to_image.v_proj.weight, scaled),
            (second.cross_attn_image_to_token.q_proj.weight, scaled),
            (_flat(normed), again),
            (_flat(_outwards(second.cross_attn_image_to_token)), again),
            (last.k_proj.weight, ended),
            (last.v_proj.weight, ended),
        ]
        terms = [weight @ x.transpose(1, 2) for weight, x in projections]
        squares = [base.square(), again.square(), again * self.offset()]
        terms += [x.sum(-1).unsqueeze(1) for x in squares]
        weight = child_weight(cast("nn.ConvTranspose2d", self.decoder.output_upscaling[0]))
        return torch.cat(terms, 1), F.linear(ended, weight)


@dataclass(frozen=True, slots=True)
class Factored:
    """Image tokens of P prompts, ``scale ⊙ (base + weightsᵀ · vectors)``, with the base left out: ``scale``
    ``[P, 1, L]``, ``weights`` ``[P, J, L]``, ``vectors`` ``[P, J, C]``."""

    scale: Tensor
    weights: Tensor
    vectors: Tensor

    def of(self, prompts: Tensor) -> Factored:
        """Those of some ``prompts``, int64 ``[U]``."""
        return Factored(self.scale[prompts], self.weights[prompts], self.vectors[prompts])

    def normed(self, squares: Tensor, norm: nn.LayerNorm) -> Factored:
        """After ``norm``, but for its bias. The vectors' means are 0; ``squares`` ``[P, 1, L]`` is the mean square of
        ``base + weightsᵀ · vectors``."""
        scale = self.scale * (self.scale * self.scale * squares + norm.eps).sqrt().reciprocal()
        return Factored(scale, self.weights, self.vectors * norm.weight)


class PromptTerms(_Blocks):
    """The transformer and the upscaling for P prompts on one image."""

    def __init__(self, decoder: MaskDecoder, tokens: int) -> None:
        """``tokens``: of a prompt, the decoder's own among them."""
        super().__init__(decoder)
        self.tokens = tokens

    def attend(self, terms: Tensor, prompt: Tensor, positions: Tensor) -> tuple[Tensor, Factored]:
        """
        Args:
            terms: of :class:`ImageTerms`.
            prompt: tokens ``[P, T, C]``.
            positions: ``[L, C]``.

        Returns:
            tokens ``[P, T, C]`` at the end, and the image's without the last norm's bias.
        """
        first, second = self.first, self.second
        shared, squares = self._split(terms)
        tokens = first.norm1(_alone(first.self_attn, prompt, prompt))
        look = first.cross_attn_token_to_image
        # All prompts see the same here, so they are one long row of tokens.
        query = reshape(self._query(look, tokens + prompt).transpose(0, 1), 1, look.heads, -1, look.head_dim)
        seen = (query @ shared[0]).softmax(-1) @ shared[1].transpose(-2, -1)
        seen = reshape(seen, look.heads, -1, self.tokens, look.head_dim).transpose(0, 1)
        tokens = first.norm2(tokens + self._seen(look, seen, look.v_proj.bias))
        tokens = first.norm3(tokens + first.mlp(tokens))
        write = first.cross_attn_image_to_token
        key, value = (
            self._split_heads(write, write.k_proj(tokens + prompt)),
            self._split_heads(write, write.v_proj(tokens)),
        )
        key = key * write.scale
        weights = self._all(((key @ shared[2]) + key @ self._bias(write)).softmax(-2))
        vectors = self._vectors(write, value)
        products = self._all((value * 2) @ shared[3]) + (vectors @ vectors.transpose(-2, -1)) @ weights
        total = (weights * products).sum(-2, keepdim=True) + squares[0]
        image = Factored(torch.ones(1), weights, vectors).normed(total * (1 / self.decoder.dim), first.norm4)

        tokens = second.norm1(tokens + _alone(second.self_attn, tokens + prompt, tokens))
        look, shift = second.cross_attn_token_to_image, first.norm4.bias
        tokens = second.norm2(tokens + self._look(look, tokens + prompt, image, shared[4:6], shift, positions))
        tokens = second.norm3(tokens + second.mlp(tokens))
        write = second.cross_attn_image_to_token
        key = self._split_heads(write, write.k_proj(tokens + prompt)) * write.scale
        again = self._split_heads(write, write.v_proj(tokens))
        fixed = self._fixed(write.q_proj, shift + positions, write.q_proj.bias)
        scores = self._scores(key, write.q_proj, image, shared[6], fixed)
        weights = self._all(reshape(scores, 0, write.heads, -1, self.pixels).softmax(-2))
        image = self._written(image, value, weights, again, shared[7:9], squares[1:])

        shift = second.norm4.bias
        tokens = tokens + self._look(self.last, tokens + prompt, image, shared[9:], shift, positions)
        return cast("Tensor", self.last_norm(tokens)), image

    def upscale(self, tokens: Tensor, image: Factored, pixels: Tensor) -> Tensor:
        """Mask tokens ``[P, M, C]``, image tokens and ``pixels`` of :class:`ImageTerms` → logits ``[P, M, 4H, 4H]``."""
        first = cast("nn.ConvTranspose2d", self.decoder.output_upscaling[0])
        bias = torch.zeros(first.out_channels) if first.bias is None else first.bias
        x = self._through(child_weight(first), bias.repeat(4), image, pixels)
        return self.decoder.masks_of(tokens.unsqueeze(0), reshape(x, 1, -1, first.out_channels))[0]

    def coarse(self, tokens: Tensor, image: Factored, pixels: Tensor) -> Tensor:
        """Every fourth row and column of :meth:`upscale`'s logits: ``[P, M, H, H]``."""
        weight, bias = self.decoder.first_child()
        x = self._through(weight, bias, image, pixels[..., : self.decoder.dim // 4])
        return self.decoder.coarse_of(tokens.unsqueeze(0), reshape(x, 1, -1, self.decoder.dim // 4))[0]

    def _through(self, weight: Tensor, bias: Tensor, image: Factored, pixels: Tensor) -> Tensor:
        """The image through a layer that has made ``pixels`` of the base: ``[P, L, out]``."""
        bias = bias + weight @ self.second.norm4.bias
        own = image.weights.transpose(-2, -1) @ (image.vectors @ weight.T)
        return (own + pixels) * image.scale.transpose(-2, -1) + bias

    def _split(self, terms: Tensor) -> tuple[list[Tensor], tuple[Tensor, ...]]:
        """The shared projections ``[1, h, d, L]`` and the sums of squares ``[1, 1, L]``."""
        look = self.last
        width = look.heads * look.head_dim
        parts = torch.split(terms, [width] * SHARED_TERMS + [1] * 3, 1)
        shared = [reshape(part, 1, look.heads, look.head_dim, self.pixels) for part in parts[:SHARED_TERMS]]
        return shared, parts[SHARED_TERMS:]

    def _split_heads(self, attention: Attention, x: Tensor) -> Tensor:
        """``[P, n, h·d]`` → ``[P, h, n, d]``."""
        return reshape(x, 0, -1, attention.heads, attention.head_dim).transpose(1, 2)

    def _query(self, attention: Attention, tokens: Tensor) -> Tensor:
        query: Tensor = self._split_heads(attention, attention.q_proj(tokens)) * attention.scale
        return query

    def _bias(self, attention: Attention) -> Tensor:
        return attention.q_proj.bias.reshape(attention.heads, attention.head_dim, 1)

    def _all(self, x: Tensor) -> Tensor:
        """``[P, h, T, L]`` → ``[P, h·T, L]``."""
        return reshape(x, 0, -1, self.pixels)

    def _vectors(self, attention: Attention, value: Tensor) -> Tensor:
        """What ``value`` ``[P, h, T, d]`` adds to the image, less its mean: ``[P, h·T, C]``."""
        return reshape(value @ _centred(_outwards(attention)), 0, -1, attention.dim)

    def _fixed(self, projection: nn.Linear, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """A projection of what is the same for all images, as the terms are: ``[1, h, d, L]``."""
        found = projection.weight @ x.T
        if bias is not None:
            found = found + bias[:, None]
        return found.reshape(1, self.last.heads, self.last.head_dim, self.pixels)

    def _own(self, attention: Attention, projection: nn.Linear, image: Factored) -> Tensor:
        """A projection of the prompt's own vectors: ``[P, h, J, d]``."""
        return self._split_heads(attention, image.vectors @ projection.weight.T)

    def _scores(self, query: Tensor, projection: nn.Linear, image: Factored, base: Tensor, fixed: Tensor) -> Tensor:
        """``query`` ``[P, h, T, d]`` against all image tokens: ``[P, h·T, L]``."""
        own = query @ self._own(self.last, projection, image).transpose(-2, -1)
        own = reshape(own, 0, self.last.heads * self.tokens, -1)
        return (own @ image.weights + self._all(query @ base)) * image.scale + self._all(query @ fixed)

    def _look(
        self,
        attention: Attention,
        tokens: Tensor,
        image: Factored,
        base: list[Tensor],
        shift: Tensor,
        positions: Tensor,
    ) -> Tensor:
        """Tokens look at the image: ``[P, T, C]``. ``base`` are the terms of keys and values; ``shift`` ``[C]`` is in
        every image token beside what ``image`` says."""
        query = self._query(attention, tokens)
        fixed = self._fixed(attention.k_proj, shift + positions)
        chances = self._scores(query, attention.k_proj, image, base[0], fixed).softmax(-1) * image.scale
        heads = (0, attention.heads, self.tokens, -1)
        seen = reshape(chances, *heads) @ base[1].transpose(-2, -1)
        mixed = reshape(chances @ image.weights.transpose(-2, -1), *heads)
        seen = seen + mixed @ self._own(attention, attention.v_proj, image)
        return self._seen(attention, seen, attention.v_proj.weight @ shift + attention.v_proj.bias)

    def _seen(self, attention: Attention, seen: Tensor, bias: Tensor) -> Tensor:
        merged = reshape(seen.transpose(1, 2), 0, -1, attention.heads * attention.head_dim)
        return cast("Tensor", attention.out_proj(merged + bias))

    def _written(
        self,
        image: Factored,
        value: Tensor,
        weights: Tensor,
        again: Tensor,
        base: list[Tensor],
        squares: tuple[Tensor, ...],
    ) -> Factored:
        """After the second block has added ``weights`` ``[P, h·T, L]`` of the values ``again`` to the ``image``, whose
        vectors were made of ``value``, and has normalised it."""
        offset = _centred(self.offset())
        mine = self._vectors(self.second.cross_attn_image_to_token, again)
        own = _centred(image.vectors)
        vectors = torch.cat((own, mine, own[:, :1] * 0 + offset), 1)
        inverse = image.scale.reciprocal()
        weights = weights * inverse
        every = Factored(image.scale, torch.cat((image.weights, weights, inverse), 1), vectors)
        products = (vectors @ vectors.transpose(-2, -1)) @ every.weights
        total = (every.weights * products).sum(-2, keepdim=True) + squares[0] + squares[1] * inverse * 2
        total = total + (image.weights * self._all((value * 2) @ base[0])).sum(-2, keepdim=True)
        total = total + (weights * self._all((again * 2) @ base[1])).sum(-2, keepdim=True)
        return every.normed(total * (1 / self.decoder.dim), self.second.norm4)


def _alone(attention: nn.Module, query: Tensor, value: Tensor) -> Tensor:
    """Self-attention, which has an axis of images."""
    return cast("Tensor", attention(query.unsqueeze(0), value.unsqueeze(0))[0])
