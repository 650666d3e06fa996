"""The transformer and the upscaling for many prompts, on the terms of :mod:`samgate.variants.nets.factored`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from samgate.variants.graphs import KEY_TERMS, VALUE_TERMS
from samgate.variants.merging import Merging
from samgate.variants.nets.factored import Blocks, Key, centred
from samgate.variants.nets.layers import reshape
from samgate.variants.nets.mask_decoder import MaskDecoder, child_weight
from samgate.variants.nets.two_way_transformer import Attention

_VALUES = (Key.FIRST_LOOK, Key.SECOND_LOOK, Key.LAST_LOOK)
"""Looks, in the order of their values."""


@dataclass(frozen=True, slots=True)
class _Tile:
    """Of ``terms``: ``keys`` ``[1, h, d, t]``, ``values`` ``[1, h, t, d]``, ``squares`` ``[1, 1, t]``; and the
    logarithm of how many tokens each of them stands for, ``[t]``, None where that is one."""

    keys: Sequence[Tensor]
    values: Sequence[Tensor]
    squares: Sequence[Tensor]
    count: Tensor | None


@dataclass(frozen=True, slots=True)
class _Image:
    """Image tokens of a tile: ``scale`` ``[P, 1, t]`` and ``weights`` ``[P, J, t]``."""

    scale: Tensor
    weights: Tensor


_Vectors = Sequence[tuple[Tensor, Tensor]]
"""Vectors ``[P, J, C]`` as products of values ``[P, h, T, d]`` and of what these become, ``[h, d, C]``, one part after
the other."""


def _vectors(parts: _Vectors, projection: nn.Linear | None = None) -> Tensor:
    """``[P, J, C]``, or these through the weight of ``projection`` ``[c, C]``: ``[P, J, c]``. What that makes of what
    values become is a constant."""
    outs = [out if projection is None else out @ projection.weight.T for _, out in parts]
    return torch.cat([(value @ out).flatten(1, 2) for (value, _), out in zip(parts, outs, strict=True)], 1)


@dataclass(frozen=True, slots=True)
class _Scores:
    """What tokens ask of the image: ``query`` ``[P, h, T, d]``, and against the vectors ``own`` ``[P, h·T, J]``."""

    query: Tensor
    own: Tensor


@dataclass(frozen=True, slots=True)
class Attended:
    """P prompts: ``tokens`` ``[P, K, C]``, those of the decoder itself, at the end; of the image ``scale`` ``[n, P, 1,
    t]``, ``weights`` ``[n, P, J, t]`` and ``vectors`` ``[P, J, C]``, without the last norm's bias."""

    tokens: Tensor
    scale: Tensor
    weights: Tensor
    vectors: Tensor


class PromptTerms(Blocks):
    """The transformer and the upscaling for P prompts on one image."""

    def __init__(self, decoder: MaskDecoder, tokens: int, merging: Merging | None = None) -> None:
        """``tokens``: T of a prompt, the decoder's own among them; ``merging`` as :class:`ImageTerms` has it."""
        super().__init__(decoder, merging)
        self.tokens = tokens
        self.kept = 1 + decoder.masks

    def attend(self, terms: Tensor, values: Tensor, prompt: Tensor) -> Attended:
        """``terms`` and ``values`` of :class:`ImageTerms`, and tokens ``[P, T, C]``."""
        first, second, last = self.first, self.second, self.last
        tiles = self._split(terms, values)
        tokens = first.norm1(_alone(first.self_attn, prompt, prompt))
        tokens = first.norm2(tokens + self._first_look(tokens + prompt, tiles))
        tokens = first.norm3(tokens + first.mlp(tokens))
        write = first.cross_attn_image_to_token
        key = self._split_heads(write, write.k_proj(tokens + prompt)) * write.scale
        value = self._split_heads(write, write.v_proj(tokens))
        twice, gram = value * 2, _gram(_vectors([(value, self.outwards(first))]))
        vectors: _Vectors = [(value, self.normed())]

        tokens = second.norm1(tokens + _alone(second.self_attn, tokens + prompt, tokens))
        look = second.cross_attn_token_to_image
        asked = self._ask(self._query(look, tokens + prompt), look.k_proj, vectors)
        images, parts = [], []
        for tile in tiles:
            weights = self._all((key @ tile.keys[Key.FIRST_WRITE]).softmax(-2))
            products = self._all(twice @ tile.keys[Key.FIRST_WRITTEN]) + gram @ weights
            image = _Image(torch.ones(1), weights)
            image = self._normed(image, (weights * products).sum(-2, keepdim=True) + tile.squares[0], first.norm4)
            images.append(image)
            parts.append(self._part(asked, image, tile, Key.SECOND_LOOK))
        tokens = second.norm2(tokens + self._look(look, parts, vectors, first.norm4.bias))
        tokens = second.norm3(tokens + second.mlp(tokens))

        write = second.cross_attn_image_to_token
        key = self._split_heads(write, write.k_proj(tokens + prompt)) * write.scale
        written = self._ask(key, write.q_proj, vectors)
        again = self._split_heads(write, write.v_proj(tokens))
        both = (twice, again * 2)
        one = value[:, :1, :1, :1] * 0 + 1
        outwards = [centred(self.normed()), self.outwards(second), centred(self.offset())[None, None]]
        all_values = (value, again, one)
        gram = _gram(_vectors(list(zip(all_values, outwards, strict=True))))
        vectors = [(each, out * second.norm4.weight) for each, out in zip(all_values, outwards, strict=True)]
        tokens, prompt = tokens[:, : self.kept], prompt[:, : self.kept]
        asked = self._ask(self._query(last, tokens + prompt), last.k_proj, vectors)
        ends, parts = [], []
        for tile, image in zip(tiles, images, strict=True):
            scores = reshape(
                self._scores(written, image, tile, Key.SECOND_WRITE), 0, write.heads, -1, self.merging.tile
            )
            image = self._written(image, self._all(scores.softmax(-2)), both, gram, tile)
            ends.append(image)
            parts.append(self._part(asked, image, tile, Key.LAST_LOOK))
        tokens = self.last_norm(tokens + self._look(last, parts, vectors, second.norm4.bias))
        scale, weights = torch.stack([image.scale for image in ends]), torch.stack([image.weights for image in ends])
        return Attended(tokens, scale, weights, _vectors(vectors))

    def upscale(self, tokens: Tensor, vectors: Tensor, scale: Tensor, weights: Tensor, pixels: Tensor) -> Tensor:
        """One prompt's logits of some blocks of 4 × 4 pixels, each of which is one image token.

        Args:
            tokens: of the masks, ``[M, C]``.
            vectors: ``[J, C]``.
            scale, weights, pixels: of the blocks, ``[B, 1]``, ``[B, J]`` and ``[B, C]``.

        Returns:
            ``[M, B, 4, 4]``.
        """
        first = cast("nn.ConvTranspose2d", self.decoder.output_upscaling[0])
        bias = torch.zeros(first.out_channels) if first.bias is None else first.bias
        weight = child_weight(first)
        x = (weights @ (vectors @ weight.T) + pixels) * scale + (bias.repeat(4) + weight @ self.second.norm4.bias)
        x = self.decoder.pixels_of(reshape(x, 1, -1, first.out_channels))[0]
        logits = self.decoder.hyper(tokens[None, None])[0, 0] @ x.transpose(-2, -1)
        logits = reshape(logits, 0, -1, 2, 2, 2, 2).transpose(3, 4)
        return reshape(logits, 0, -1, 4, 4)

    def coarse(self, tokens: Tensor, image: Attended, pixels: Tensor, places: Tensor) -> Tensor:
        """Every fourth row and column of :meth:`upscale`'s logits: ``[P, M, H, H]``. ``pixels`` are those by tile."""
        weight, bias = self.decoder.first_child()
        bias = bias + weight @ self.second.norm4.bias
        own, hyper = image.vectors @ weight.T, self.decoder.hyper(tokens.unsqueeze(0))[0]
        tiles = []
        for number in range(self.merging.tiles):
            x = image.weights[number].transpose(-2, -1) @ own + pixels[number]
            x = self.decoder.coarse_pixels(x * image.scale[number].transpose(-2, -1) + bias)
            tiles.append(hyper @ x.transpose(-2, -1))
        size = self.decoder.embedding_size
        return reshape(torch.cat(tiles, -1).index_select(-1, places), 0, -1, size, size)

    def _split(self, terms: Tensor, values: Tensor) -> list[_Tile]:
        heads, width = self.last.heads, self.last.head_dim
        left = self.merging.merged
        tiles = []
        for key, value in zip(torch.split(terms, 1), torch.split(values, 1), strict=True):
            parts = torch.split(key, [heads * width] * KEY_TERMS + [1] * 3, 1)
            keys = [reshape(part, 1, heads, width, self.merging.tile) for part in parts[:KEY_TERMS]]
            fours = min(max(left, 0), self.merging.tile)
            left -= fours
            count = torch.cat((torch.full((fours,), math.log(4)), torch.zeros(self.merging.tile - fours)))
            own = torch.split(value, [heads] * VALUE_TERMS, 1)
            tiles.append(_Tile(keys, own, parts[KEY_TERMS:], count if fours else None))
        return tiles

    def _first_look(self, tokens: Tensor, tiles: Sequence[_Tile]) -> Tensor:
        """All prompts see the same here, so they are one long row of tokens."""
        look = self.first.cross_attn_token_to_image
        query = reshape(self._query(look, tokens).transpose(0, 1), 1, look.heads, -1, look.head_dim)
        parts = []
        for tile in tiles:
            top, chances, total = _chances(query @ tile.keys[Key.FIRST_LOOK], tile.count)
            parts.append((top, total, chances @ tile.values[_VALUES.index(Key.FIRST_LOOK)]))
        tops, totals, seen = (torch.stack(each) for each in zip(*parts, strict=True))
        seen = (seen * _shares(tops, totals)).sum(0)
        seen = reshape(seen, look.heads, -1, self.tokens, look.head_dim).transpose(0, 1)
        return self._out(look, seen, look.v_proj.bias)

    def _split_heads(self, attention: Attention, x: Tensor) -> Tensor:
        """``[P, n, h·d]`` → ``[P, h, n, d]``."""
        return reshape(x, 0, -1, attention.heads, attention.head_dim).transpose(1, 2)

    def _query(self, attention: Attention, tokens: Tensor) -> Tensor:
        query: Tensor = self._split_heads(attention, attention.q_proj(tokens)) * attention.scale
        return query

    def _all(self, x: Tensor) -> Tensor:
        """``[P, h, T, t]`` → ``[P, h·T, t]``."""
        return reshape(x, 0, -1, self.merging.tile)

    def _ask(self, query: Tensor, projection: nn.Linear, vectors: _Vectors) -> _Scores:
        own = self._split_heads(self.last, _vectors(vectors, projection))
        own = query @ own.transpose(-2, -1)
        return _Scores(query, own.flatten(1, 2))

    def _scores(self, asked: _Scores, image: _Image, tile: _Tile, key: Key) -> Tensor:
        """Against all tokens of a ``tile`` ``[P, h·T, t]``; its term ``key`` is the base's, the next one is not
        scaled."""
        own = asked.own @ image.weights + self._all(asked.query @ tile.keys[key])
        return own * image.scale + self._all(asked.query @ tile.keys[key + 1])

    def _part(self, asked: _Scores, image: _Image, tile: _Tile, key: Key) -> tuple[Tensor, ...]:
        """A ``tile``'s part in what tokens see: the top score and the total of the chances, ``[P, h·T, 1]``, the base's
        values ``[P, h, T, d]`` and the weights that they see ``[P, J, h·T]``, both by chances that don't add up to 1
        yet."""
        top, chances, total = _chances(self._scores(asked, image, tile, key), tile.count)
        chances = chances * image.scale
        seen = reshape(chances, 0, self.last.heads, -1, self.merging.tile) @ tile.values[_VALUES.index(key)]
        return top, total, seen, image.weights @ chances.transpose(-2, -1)

    def _look(
        self, attention: Attention, parts: Sequence[tuple[Tensor, ...]], vectors: _Vectors, shift: Tensor
    ) -> Tensor:
        """What tokens see of all tiles: ``[P, T, C]``. ``shift`` ``[C]`` is in every image token beside what
        :class:`_Image` says."""
        tops, totals, seen, mixed = (torch.stack(each) for each in zip(*parts, strict=True))
        shares = _shares(tops, totals)
        seen = (seen * reshape(shares, 0, 0, attention.heads, -1, 1)).sum(0)
        mixed = reshape((mixed * shares.transpose(-2, -1)).sum(0), 0, 0, attention.heads, -1).permute(0, 2, 3, 1)
        own = self._split_heads(attention, _vectors(vectors, attention.v_proj))
        seen = seen + mixed @ own
        return self._out(attention, seen, attention.v_proj.weight @ shift + attention.v_proj.bias)

    def _out(self, attention: Attention, seen: Tensor, bias: Tensor) -> Tensor:
        merged = reshape(seen.transpose(1, 2), 0, -1, attention.heads * attention.head_dim)
        return cast("Tensor", attention.out_proj(merged + bias))

    def _written(
        self, image: _Image, weights: Tensor, twice: tuple[Tensor, Tensor], gram: Tensor, tile: _Tile
    ) -> _Image:
        """After the second block has added ``weights`` ``[P, h·T, t]`` of its values to the ``image``, and has
        normalised it. ``twice`` both blocks' values; ``gram`` the products of all vectors."""
        inverse = image.scale.reciprocal()
        weights = weights * inverse
        every = torch.cat((image.weights, weights, inverse), 1)
        total = (every * (gram @ every)).sum(-2, keepdim=True) + tile.squares[1] + tile.squares[2] * inverse * 2
        for own, values, key in (
            (image.weights, twice[0], Key.FIRST_WRITTEN_AGAIN),
            (weights, twice[1], Key.SECOND_WRITTEN),
        ):
            total = total + (own * self._all(values @ tile.keys[key])).sum(-2, keepdim=True)
        return self._normed(_Image(image.scale, every), total, self.second.norm4)

    def _normed(self, image: _Image, total: Tensor, norm: nn.LayerNorm) -> _Image:
        """After ``norm``, but for its weight and bias. ``total`` ``[P, 1, t]``: of squares of the base with what is
        added to it, before its scale."""
        squares = image.scale * image.scale * total * (1 / self.decoder.dim)
        return _Image(image.scale * (squares + norm.eps).sqrt().reciprocal(), image.weights)


def _chances(scores: Tensor, count: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """The top of ``scores`` ``[..., t]``, the chances' relation to it and the total of these; tokens have as many as
    they stand for."""
    if count is not None:
        scores = scores + count
    top = scores.amax(-1, keepdim=True)
    chances = (scores - top).exp()
    return top, chances, chances.sum(-1, keepdim=True)


def _shares(tops: Tensor, totals: Tensor) -> Tensor:
    """What each tile's sums over chances count for in the whole: ``[n, ..., 1]``, as the arguments."""
    factors = (tops - tops.amax(0)).exp()
    return factors * (totals * factors).sum(0).reciprocal()


def _gram(vectors: Tensor) -> Tensor:
    return vectors @ vectors.transpose(-2, -1)


def _alone(attention: nn.Module, query: Tensor, value: Tensor) -> Tensor:
    """Self-attention, which has an axis of images."""
    return cast("Tensor", attention(query.unsqueeze(0), value.unsqueeze(0))[0])
