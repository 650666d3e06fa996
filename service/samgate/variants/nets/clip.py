"""CLIP with vision transformers (Radford et al., 2021, arXiv 2103.00020): one of images and one of texts, whose vectors
lie in one space.

Both normalise before attention and before the feed-forward part. A text attends from left to right alone, so its last
token has seen all of it.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from samgate.variants.clip import ClipSpec
from samgate.variants.nets.layers import to_tokens
from samgate.variants.spec import GraphName

_STEEPNESS = 1.702
"""Of the sigmoid that GELU is approximated by."""
_UNSEEN = -1e4
"""Added to the scores of later tokens: finite, and within fp16's range."""


class Attention(nn.Module):
    """Multi-head attention of ``count`` tokens to each other. ``[N, count, C]`` → the same."""

    def __init__(self, dim: int, heads: int, count: int) -> None:
        super().__init__()
        self.dim, self.heads, self.count = dim, heads, count
        self.in_proj_weight = nn.Parameter(torch.zeros(3 * dim, dim))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * dim))
        self.out_proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """``bias`` ``[count, count]`` is added to the score that queries (rows) give to keys (columns)."""
        head_dim = self.dim // self.heads
        # One projection for each of q, k and v: the heads split off without slicing activations.
        scales = (head_dim**-0.5, 1.0, 1.0)
        q, k, v = (
            F.linear(x, weight * scale, shift * scale).reshape(-1, self.count, self.heads, head_dim).permute(0, 2, 1, 3)
            for weight, shift, scale in zip(
                self.in_proj_weight.chunk(3), self.in_proj_bias.chunk(3), scales, strict=True
            )
        )
        scores = q @ k.transpose(-2, -1)
        x = (scores if bias is None else scores + bias).softmax(-1) @ v
        return self.out_proj(x.permute(0, 2, 1, 3).reshape(-1, self.count, self.dim))  # type: ignore[no-any-return]


class Mlp(nn.Module):
    """The feed-forward part. ``[..., C]`` → the same."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.c_fc = nn.Linear(dim, 4 * dim)
        self.c_proj = nn.Linear(4 * dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        x = self.c_fc(x)
        return self.c_proj(x * torch.sigmoid(_STEEPNESS * x))  # type: ignore[no-any-return]


class Block(nn.Module):
    """Attention and feed-forward part, each behind a normalisation. ``[N, count, C]`` → the same."""

    def __init__(self, dim: int, heads: int, count: int) -> None:
        super().__init__()
        self.attn = Attention(dim, heads, count)
        self.ln_1 = nn.LayerNorm(dim)
        self.mlp = Mlp(dim)
        self.ln_2 = nn.LayerNorm(dim)

    def forward(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """``bias`` as :meth:`Attention.forward`."""
        x = x + self.attn(self.ln_1(x), bias)
        return x + self.mlp(self.ln_2(x))  # type: ignore[no-any-return]


class Transformer(nn.Module):
    """Blocks one after the other. ``[N, count, C]`` → the same."""

    def __init__(self, dim: int, depth: int, heads: int, count: int) -> None:
        super().__init__()
        self.resblocks = nn.ModuleList(Block(dim, heads, count) for _ in range(depth))

    def forward(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """``bias`` as :meth:`Attention.forward`."""
        for block in self.resblocks:
            x = block(x, bias)
        return x


class VisionTransformer(nn.Module):
    """Images → vectors of ``out_dim``. Tokens are a class's, and a patch's each of ``size`` / ``patch`` squared."""

    def __init__(self, size: int, patch: int, dim: int, depth: int, heads: int, out_dim: int) -> None:
        super().__init__()
        self.dim, self.side = dim, size // patch
        count = 1 + self.side**2
        self.class_embedding = nn.Parameter(torch.zeros(dim))
        self.positional_embedding = nn.Parameter(torch.zeros(count, dim))
        self.proj = nn.Parameter(torch.zeros(dim, out_dim))
        self.conv1 = nn.Conv2d(3, dim, patch, patch, bias=False)
        self.ln_pre = nn.LayerNorm(dim)
        self.transformer = Transformer(dim, depth, heads, count)
        self.ln_post = nn.LayerNorm(dim)

    def forward(self, x: Tensor) -> Tensor:
        """``[N, 3, S, S]`` normalised → ``[N, out_dim]``, of any length."""
        patches = to_tokens(self.conv1(x), self.side, self.dim)
        # The class's token is the same in all images, so it can come with the positions, whose number is known.
        own = F.pad(self.class_embedding[None], (0, 0, 0, self.side**2))
        x = F.pad(patches, (0, 0, 1, 0)) + (self.positional_embedding + own)
        x = self.transformer(self.ln_pre(x))
        return self.ln_post(x[:, 0]) @ self.proj  # type: ignore[no-any-return]


class Clip(nn.Module):
    """The parts of both, under the names that published weights have. ``logit_scale`` is one of these: it serves
    training, and FastSAM's upstream has a number of its own in its place."""

    def __init__(self, spec: ClipSpec) -> None:
        super().__init__()
        wide = spec.architecture
        patch, head, image_width, width = (wide[name] for name in ("patch", "head", "image_width", "text_width"))
        heads = image_width // head
        self.positional_embedding = nn.Parameter(torch.zeros(spec.context, width))
        self.text_projection = nn.Parameter(torch.zeros(width, spec.width))
        self.logit_scale = nn.Parameter(torch.zeros([]))
        self.visual = VisionTransformer(spec.input_size, patch, image_width, wide["image_depth"], heads, spec.width)
        self.transformer = Transformer(width, wide["text_depth"], width // head, spec.context)
        self.token_embedding = nn.Embedding(spec.vocabulary, width)
        self.ln_final = nn.LayerNorm(width)


class ImageFeaturesGraph(nn.Module):
    """Pixels → vectors."""

    def __init__(self, network: Clip, spec: ClipSpec) -> None:
        super().__init__()
        self.network = network.visual
        self.register_buffer("mean", torch.tensor(spec.pixel_mean), persistent=False)
        self.register_buffer("std", torch.tensor(spec.pixel_std), persistent=False)
        self.mean: Tensor
        self.std: Tensor

    def forward(self, image: Tensor) -> Tensor:
        """uint8 ``[N, S, S, 3]`` RGB → ``[N, width]`` of length 1."""
        x = image.to(torch.float32).permute(0, 3, 1, 2)
        return _unit(self.network((x - self.mean[:, None, None]) / self.std[:, None, None]))


class TextFeaturesGraph(nn.Module):
    """Tokens → vectors."""

    def __init__(self, network: Clip, context: int) -> None:
        super().__init__()
        self.token_embedding, self.transformer, self.ln_final = (
            network.token_embedding,
            network.transformer,
            network.ln_final,
        )
        self.positional_embedding, self.projection = network.positional_embedding, network.text_projection
        self.register_buffer("later", torch.full((context, context), _UNSEEN).triu(1), persistent=False)
        self.register_buffer("places", torch.arange(context), persistent=False)
        self.later: Tensor
        self.places: Tensor

    def forward(self, tokens: Tensor) -> Tensor:
        """int32 ``[N, context]`` → ``[N, width]`` of length 1. A text ends where its largest token first is."""
        x = self.transformer(self.token_embedding(tokens) + self.positional_embedding, self.later)
        # As a product, which takes any number of texts without looking shapes up.
        last = (self.places == tokens.argmax(1, keepdim=True)).to(x.dtype)
        x = (last.unsqueeze(1) @ x).flatten(1)
        return _unit(self.ln_final(x) @ self.projection)


def build(spec: ClipSpec) -> Clip:
    """The network for the numbers of ``spec``, with its parameters not yet loaded."""
    return Clip(spec)


def graph_module(spec: ClipSpec, network: Any, name: GraphName) -> nn.Module:
    """What computes the graph ``name`` of ``spec``."""
    return ImageFeaturesGraph(network, spec) if name == "image_features" else TextFeaturesGraph(network, spec.context)


def _unit(x: Tensor) -> Tensor:
    return x / x.norm(dim=1, keepdim=True)  # type: ignore[no-any-return]
