"""A plain vision transformer (Dosovitskiy et al., 2020, arXiv 2010.11929) as an image encoder with SAM's neck.

As EfficientSAM (Xiong et al., 2023, arXiv 2312.00863) has it: every block attends to the whole image, and places are
told apart by absolute positions alone, which are kept at the size of the pretraining.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from samgate.variants.nets.layers import LayerNorm2d, to_map, to_tokens
from samgate.variants.nets.resampling import Resample

_Neck = tuple[nn.Conv2d, LayerNorm2d, nn.Conv2d, LayerNorm2d]


@dataclass(frozen=True, slots=True)
class PlainVitConfig:
    """Sizes; ``pretrained`` is the side of the square of patches that there are positions for."""

    image_size: int = 1024
    patch: int = 16
    dim: int = 192
    heads: int = 3
    depth: int = 12
    mlp_ratio: int = 4
    pretrained: int = 14
    out_channels: int = 256


class PatchEmbed(nn.Module):
    """``[N, 3, S, S]`` → a vector a patch, ``[N, dim, S/patch, S/patch]``."""

    def __init__(self, dim: int, patch: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, dim, patch, patch)

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(x)  # type: ignore[no-any-return]


class GlobalAttention(nn.Module):
    """Multi-head attention of all ``count`` tokens to each other. ``[N, count, C]`` → the same."""

    def __init__(self, dim: int, heads: int, count: int) -> None:
        super().__init__()
        self.dim, self.heads, self.count = dim, heads, count
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        head_dim = self.dim // self.heads
        # One projection for each of q, k and v: the heads split off without slicing activations.
        scales = (head_dim**-0.5, 1.0, 1.0)
        q, k, v = (
            F.linear(x, weight * scale, bias * scale).reshape(-1, self.count, self.heads, head_dim).permute(0, 2, 1, 3)
            for weight, bias, scale in zip(self.qkv.weight.chunk(3), self.qkv.bias.chunk(3), scales, strict=True)
        )
        x = (q @ k.transpose(-2, -1)).softmax(-1) @ v
        return self.proj(x.permute(0, 2, 1, 3).reshape(-1, self.count, self.dim))  # type: ignore[no-any-return]


class VitMlp(nn.Module):
    """The feed-forward part. ``[..., C]`` → the same."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))  # type: ignore[no-any-return]


class VitBlock(nn.Module):
    """Attention and feed-forward part, each behind a normalisation. ``[N, count, C]`` → the same."""

    def __init__(self, dim: int, heads: int, count: int, mlp_ratio: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.attn = GlobalAttention(dim, heads, count)
        self.norm2 = nn.LayerNorm(dim, eps=1e-6)
        self.mlp = VitMlp(dim, dim * mlp_ratio)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))  # type: ignore[no-any-return]


class PlainViT(nn.Module):
    """The image encoder. The first of ``pos_embed`` is that of a class token, which isn't here any more."""

    def __init__(self, config: PlainVitConfig) -> None:
        super().__init__()
        self.config, self.size = config, config.image_size // config.patch
        self.patch_embed = PatchEmbed(config.dim, config.patch)
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + config.pretrained**2, config.dim))
        self.blocks = nn.ModuleList(
            VitBlock(config.dim, config.heads, self.size**2, config.mlp_ratio) for _ in range(config.depth)
        )
        self.neck = nn.Sequential(
            nn.Conv2d(config.dim, config.out_channels, 1, bias=False),
            LayerNorm2d(config.out_channels),
            nn.Conv2d(config.out_channels, config.out_channels, 3, padding=1, bias=False),
            LayerNorm2d(config.out_channels),
        )
        self.resample = Resample(config.pretrained, self.size, config.dim)

    def forward(self, x: Tensor) -> Tensor:
        """``[N, 3, S, S]`` normalised → image embedding ``[N, out_channels, S/patch, S/patch]``."""
        x = to_tokens(self.patch_embed(x), self.size, self.config.dim) + self.resample(self.pos_embed[:, 1:])
        for block in self.blocks:
            x = block(x)
        first, norm1, second, norm2 = cast("_Neck", tuple(self.neck))
        size, dim = self.size, self.config.out_channels
        x = norm1(F.linear(x, first.weight.flatten(1)))
        return to_map(norm2(to_tokens(second(to_map(x, size, dim)), size, dim)), size, dim)
