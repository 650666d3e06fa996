"""Q-TinySAM (arXiv 2312.13789): TinySAM's network, with the inputs of all layers that have weights at 256 levels.

The decoder is written as in SAM's paper: the order that costs less (:mod:`samgate.variants.nets.two_way_transformer`)
carries prompts through the projections of image tokens, which here round these tokens first, each its own way.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

import torch.nn.functional as F
from torch import Tensor, nn

from samgate.variants.nets.layers import ConvNorm, reshape
from samgate.variants.nets.levels import Layer, to_levels, with_levels
from samgate.variants.nets.mask_decoder import MaskDecoder, children
from samgate.variants.nets.prompt_encoder import PromptEncoder, parents
from samgate.variants.nets.sam import Sam
from samgate.variants.nets.tiny_vit import TinyViT, TinyVitConfig, WindowAttention
from samgate.variants.nets.two_way_transformer import Attention, TwoWayBlock
from samgate.variants.spec import VariantSpec


class LevelledTinyViT(TinyViT):
    """The image encoder."""

    def project(self, x: Tensor) -> Tensor:
        return super().project(to_levels(self.neck[0], x))


class LevelledPromptEncoder(PromptEncoder):
    """The prompt encoder, of which the convolutions of masks have weights."""

    def patches(self, conv: nn.Conv2d, x: Tensor) -> Tensor:
        return parents(conv, to_levels(conv, x, pixels=conv.kernel_size[0] ** 2))


class LevelledMaskDecoder(MaskDecoder):
    """The mask decoder."""

    def attend(self, image: Tensor, points: Tensor, positions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        prompt = tokens = self.prompt(points)
        for layer in self.transformer.layers:
            tokens, image = _block(cast("TwoWayBlock", layer), tokens, image, prompt, positions)
        last = self.transformer.final_attn_token_to_image
        tokens = self.transformer.norm_final_attn(tokens + _attention(last, tokens + prompt, image + positions, image))
        mask_tokens, ious = self.ends(tokens)
        return mask_tokens, image, ious

    def upscale(self, tokens: Tensor, image: Tensor) -> Tensor:
        first = cast("nn.ConvTranspose2d", self.output_upscaling[0])
        return self.masks_of(tokens, children(first, to_levels(first, reshape(image, 0, -1, self.dim))))

    def pixels_of(self, x: Tensor) -> Tensor:
        norm, second = self.output_upscaling[1], cast("nn.ConvTranspose2d", self.output_upscaling[3])
        return F.gelu(children(second, to_levels(second, F.gelu(norm(x)))))


def _attention(layer: Attention, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """``query`` ``[I, G, a, C]``; ``key`` and ``value`` ``[I, G', b, C]`` → ``[I, P, a, C]``, where G and G' are P or
    1."""
    q, k, v = (
        layer.split(layer.q_proj(query)),
        layer.split(layer.k_proj(key)),
        layer.split(layer.v_proj(value)),
    )
    weights = (q @ k.transpose(-2, -1) * layer.scale).softmax(-1)
    return layer.out_proj(layer.merge(weights @ v))  # type: ignore[no-any-return]


def _block(
    layer: TwoWayBlock, tokens: Tensor, image: Tensor, prompt: Tensor, positions: Tensor
) -> tuple[Tensor, Tensor]:
    """What :meth:`TwoWayBlock.forward` does."""
    if layer.first:
        own = _attention(layer.self_attn, tokens, tokens, tokens)
    else:
        own = tokens + _attention(layer.self_attn, tokens + prompt, tokens + prompt, tokens)
    tokens = layer.norm1(own)
    placed = image + positions
    tokens = layer.norm2(tokens + _attention(layer.cross_attn_token_to_image, tokens + prompt, placed, image))
    tokens = layer.norm3(tokens + layer.mlp(tokens))
    image = image + _attention(layer.cross_attn_image_to_token, placed, tokens + prompt, tokens)
    image = layer.norm4(reshape(image, 0, -1, layer.dim))
    return tokens, reshape(image, 0, -1, layer.pixels, layer.dim)


def build(spec: VariantSpec) -> Sam:
    """The network for the sizes of ``spec``; ``architecture`` is as that of TinySAM."""
    channels, size, _ = spec.embedding_shape
    config = TinyVitConfig(image_size=spec.input_size, out_channels=channels, out_size=size, **spec.architecture)
    network = Sam(
        LevelledTinyViT(config), LevelledPromptEncoder(channels, size, spec.prompt_size), LevelledMaskDecoder()
    )
    for module, name in list(_layers(network)):
        with_levels(module, name)
    return network


def _layers(network: Sam) -> Iterator[tuple[nn.Module, str]]:
    """What gets the inputs of each layer with weights, and the layer's name in it; the classifier, which nothing asks,
    isn't among them."""
    for parent in network.modules():
        for name, child in parent.named_children():
            if isinstance(child, Layer) and child is not network.image_encoder.head:
                inside = (type(parent), name) in {(ConvNorm, "c"), (WindowAttention, "qkv")}
                yield (parent, name) if inside else (child, "")
