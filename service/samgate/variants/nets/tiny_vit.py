"""TinyViT (Wu et al., 2022, arXiv 2207.10666) as an image encoder with SAM's neck (MobileSAM, arXiv 2306.14289).

A convolutional stage is followed by stages of windowed attention; a depthwise convolution in each block carries
information across windows. Tokens stay channels-last ``[N, H, W, C]``; only convolutions see ``[N, C, H, W]``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from samgate.variants.nets.layers import ConvNorm, LayerNorm2d, to_map, to_tokens
from samgate.variants.nets.resampling import Resample

_Neck = tuple[nn.Conv2d, LayerNorm2d, nn.Conv2d, LayerNorm2d]


@dataclass(frozen=True, slots=True)
class TinyVitConfig:
    """Sizes of a TinyViT, one entry a stage; the defaults are TinyViT-5M as MobileSAM uses it.

    ``strides`` are those of the merging between stages: MobileSAM keeps the last two stages at one resolution.
    ``image_size`` and ``out_size`` (the image embedding's; None is that of the last stage) decide nothing about
    parameters: windows, and with them the attention biases, stay as they are trained, and the last windows of a row are
    filled up with zeros at any size.
    """

    image_size: int = 1024
    dims: tuple[int, ...] = (64, 128, 160, 320)
    depths: tuple[int, ...] = (2, 2, 6, 2)
    heads: tuple[int, ...] = (2, 4, 5, 10)
    windows: tuple[int, ...] = (7, 7, 14, 7)
    strides: tuple[int, ...] = (2, 2, 1)
    mlp_ratio: int = 4
    expand_ratio: int = 4
    out_channels: int = 256
    out_size: int | None = None
    classes: int = 1000

    @property
    def resolutions(self) -> tuple[int, ...]:
        """Height and width of each stage's tokens."""
        sizes = [self.image_size // 4]
        for stride in self.strides:
            sizes.append(sizes[-1] // stride)
        return tuple(sizes)


class PatchEmbed(nn.Module):
    """Two strided convolutions: ``[N, 3, S, S]`` → ``[N, dim, S/4, S/4]``."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.seq = nn.Sequential(ConvNorm(3, dim // 2, 3, 2, 1), nn.GELU(), ConvNorm(dim // 2, dim, 3, 2, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.seq(x)  # type: ignore[no-any-return]


class MBConv(nn.Module):
    """Inverted bottleneck with a residual: expand, depthwise, project. ``[N, C, H, W]`` → the same."""

    def __init__(self, dim: int, expand_ratio: int) -> None:
        super().__init__()
        hidden = dim * expand_ratio
        self.conv1 = ConvNorm(dim, hidden)
        self.conv2 = ConvNorm(hidden, hidden, 3, 1, 1, groups=hidden)
        self.conv3 = ConvNorm(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        y = F.gelu(self.conv1(x))
        y = F.gelu(self.conv2(y))
        return F.gelu(self.conv3(y) + x)


class PatchMerging(nn.Module):
    """Changes the width and, with ``stride`` 2, halves the resolution. ``[N, C, H, W]`` → ``[N, C', H', W']``."""

    def __init__(self, dim: int, out_dim: int, stride: int) -> None:
        super().__init__()
        self.conv1 = ConvNorm(dim, out_dim)
        self.conv2 = ConvNorm(out_dim, out_dim, 3, stride, 1, groups=out_dim)
        self.conv3 = ConvNorm(out_dim, out_dim)

    def forward(self, x: Tensor) -> Tensor:
        x = F.gelu(self.conv1(x))
        x = F.gelu(self.conv2(x))
        return self.conv3(x)  # type: ignore[no-any-return]


class WindowAttention(nn.Module):
    """Multi-head attention inside windows, with a learned bias for every distance |Δy|, |Δx| of two tokens.

    ``qkv`` holds query, key and value of one head side by side, head after head.
    """

    def __init__(self, dim: int, heads: int, window: int) -> None:
        super().__init__()
        self.dim, self.heads, self.window = dim, heads, window
        self.norm = nn.LayerNorm(dim)
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)
        self.attention_biases = nn.Parameter(torch.zeros(heads, window * window))
        self.register_buffer("distances", _distance_indices(window), persistent=False)
        self.distances: Tensor

    def forward(self, x: Tensor) -> Tensor:
        """``[B, window², C]`` normalised tokens of B windows → the heads' outputs side by side, before ``proj``."""
        head_dim = self.dim // self.heads
        # One projection for each of q, k and v: the heads split off without slicing activations.
        weights = self.qkv.weight.reshape(self.heads, 3, head_dim, self.dim)
        biases = self.qkv.bias.reshape(self.heads, 3, head_dim)
        scales = (head_dim**-0.5, 1.0, 1.0)
        q, k, v = (
            F.linear(x, weights[:, i].reshape(-1, self.dim) * scale, biases[:, i].reshape(-1) * scale)
            .reshape(-1, self.window**2, self.heads, head_dim)
            .permute(0, 2, 1, 3)
            for i, scale in enumerate(scales)
        )
        scores = q @ k.transpose(-2, -1) + self.attention_biases[:, self.distances]
        return (scores.softmax(-1) @ v).permute(0, 2, 1, 3).reshape(-1, self.window**2, self.dim)


class TinyVitMlp(nn.Module):
    """Normalisation and feed-forward part. ``[N, H, W, C]`` → the same."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.fc1 = nn.Linear(dim, hidden)
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(self.norm(x))))  # type: ignore[no-any-return]


class TinyVitBlock(nn.Module):
    """Windowed attention, depthwise convolution, feed-forward. Tokens ``[N, H·W, C]`` → the same."""

    def __init__(self, dim: int, resolution: int, heads: int, window: int, mlp_ratio: int) -> None:
        super().__init__()
        self.dim, self.resolution, self.window = dim, resolution, window
        self.attn = WindowAttention(dim, heads, window)
        self.mlp = TinyVitMlp(dim, dim * mlp_ratio)
        self.local_conv = ConvNorm(dim, dim, 3, 1, 1, groups=dim)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn.proj(self._from_windows(self.attn(self.attn.norm(self._to_windows(x)))))
        x = to_tokens(self.local_conv(to_map(x, self.resolution, self.dim)), self.resolution, self.dim)
        return x + self.mlp(x)  # type: ignore[no-any-return]

    def _to_windows(self, x: Tensor) -> Tensor:
        """``[N, H·W, C]`` → ``[N·windows, window², C]``. Zero tokens fill up the last windows and are attended to."""
        side, count = self.window, -(-self.resolution // self.window)
        excess = count * side - self.resolution
        x = x.reshape(-1, self.resolution, self.resolution, self.dim)
        if excess:
            x = F.pad(x, (0, 0, 0, excess, 0, excess))
        x = x.reshape(-1, count, side, count, side, self.dim).permute(0, 1, 3, 2, 4, 5)
        return x.reshape(-1, side * side, self.dim)

    def _from_windows(self, x: Tensor) -> Tensor:
        """The inverse of :meth:`_to_windows`."""
        side, count = self.window, -(-self.resolution // self.window)
        x = x.reshape(-1, count, count, side, side, self.dim).permute(0, 1, 3, 2, 4, 5)
        x = x.reshape(-1, count * side, count * side, self.dim)
        return x[:, : self.resolution, : self.resolution].reshape(-1, self.resolution**2, self.dim)


class ConvStage(nn.Module):
    """The first stage. ``[N, C, H, W]`` → ``[N, C', H', W']``."""

    def __init__(self, config: TinyVitConfig) -> None:
        super().__init__()
        dim = config.dims[0]
        self.blocks = nn.ModuleList(MBConv(dim, config.expand_ratio) for _ in range(config.depths[0]))
        self.downsample = PatchMerging(dim, config.dims[1], config.strides[0])

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        return self.downsample(x)  # type: ignore[no-any-return]


class AttentionStage(nn.Module):
    """A later stage. ``[N, C, H, W]`` → ``[N, C', H', W']``, or the last one's tokens ``[N, H·W, C]``."""

    def __init__(self, config: TinyVitConfig, stage: int) -> None:
        super().__init__()
        self.dim, self.resolution = config.dims[stage], config.resolutions[stage]
        self.blocks = nn.ModuleList(
            TinyVitBlock(self.dim, self.resolution, config.heads[stage], config.windows[stage], config.mlp_ratio)
            for _ in range(config.depths[stage])
        )
        last = stage == len(config.dims) - 1
        self.downsample = None if last else PatchMerging(self.dim, config.dims[stage + 1], config.strides[stage])

    def forward(self, x: Tensor) -> Tensor:
        x = to_tokens(x, self.resolution, self.dim)
        for block in self.blocks:
            x = block(x)
        return x if self.downsample is None else self.downsample(to_map(x, self.resolution, self.dim))


class TinyViT(nn.Module):
    """The image encoder. ``norm_head`` and ``head`` classify in the original and are only here for its checkpoints."""

    def __init__(self, config: TinyVitConfig) -> None:
        super().__init__()
        self.config = config
        self.patch_embed = PatchEmbed(config.dims[0])
        stages = (AttentionStage(config, stage) for stage in range(1, len(config.dims)))
        self.layers = nn.ModuleList((ConvStage(config), *stages))
        self.norm_head = nn.LayerNorm(config.dims[-1])
        self.head = nn.Linear(config.dims[-1], config.classes)
        self.neck = nn.Sequential(
            nn.Conv2d(config.dims[-1], config.out_channels, 1, bias=False),
            LayerNorm2d(config.out_channels),
            nn.Conv2d(config.out_channels, config.out_channels, 3, padding=1, bias=False),
            LayerNorm2d(config.out_channels),
        )
        last = config.resolutions[-1]
        self.out_size = config.out_size or last
        resample = Resample(last, self.out_size, config.out_channels)
        self.resample = nn.Identity() if last == self.out_size else resample

    def forward(self, x: Tensor) -> Tensor:
        """``[N, 3, S, S]`` normalised and padded → image embedding ``[N, 256, out_size, out_size]``.

        A smaller input's map is resampled to the decoder's size inside the neck, so that the neck's 3 × 3 convolution
        and last normalisation see the scale they were trained at: ``docs/input-sizes.md`` has the alternatives.
        """
        x = self.patch_embed(x)
        for layer in self.layers:
            x = layer(x)
        _, norm1, second, norm2 = cast("_Neck", tuple(self.neck))
        size, dim = self.out_size, self.config.out_channels
        x = self.resample(norm1(self.project(x)))
        return to_map(norm2(to_tokens(second(to_map(x, size, dim)), size, dim)), size, dim)

    def project(self, x: Tensor) -> Tensor:
        """The neck's first layer: tokens ``[N, H·W, C]`` → ``[N, H·W, 256]``."""
        return F.linear(x, cast("nn.Conv2d", self.neck[0]).weight.flatten(1))


def _distance_indices(window: int) -> Tensor:
    """``[window², window²]``: which bias a pair of tokens has. Distances are numbered as they first appear when pairs
    are taken row by row, which is the order of the first token's own row of distances: |Δy|·window + |Δx|."""
    position = torch.arange(window)
    y, x = position.repeat_interleave(window), position.repeat(window)
    return (y[:, None] - y).abs() * window + (x[:, None] - x).abs()
