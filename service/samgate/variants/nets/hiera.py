"""Hiera (Ryali et al., 2023, arXiv 2306.00989) as SAM 2 has it (Ravi et al., 2024, arXiv 2408.00714): the trunk.

A transformer in stages. The first block of every later stage doubles the width and halves the resolution, by pooling
queries inside of its attention's windows. Tokens stay channels-last ``[N, L, C]``; only the patches' convolution sees
``[N, C, H, W]``.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from samgate.variants.nets.layers import Mlp, to_tokens
from samgate.variants.nets.resampling import cubic_weights

_EPS = 1e-6
"""Of LayerNorm in the trunk."""
_PATCH = 4
"""Pixels from one patch to the next."""
_MLP_RATIO = 4


@dataclass(frozen=True, slots=True)
class HieraConfig:
    """Sizes of a Hiera, one entry a stage, at images of ``image_size``.

    ``width`` and ``heads`` are the first stage's and double from stage to stage. ``windows`` are the sides of attention
    windows in tokens; blocks in ``global_blocks``, counted from the trunk's first, look at the whole image instead.
    ``positions`` is the side of the positional encoding that is resampled to the image's.
    """

    image_size: int
    width: int
    heads: int
    depths: tuple[int, ...]
    windows: tuple[int, ...]
    global_blocks: tuple[int, ...]
    positions: int

    @property
    def widths(self) -> tuple[int, ...]:
        """Of each stage's tokens."""
        return tuple(self.width * 2**stage for stage in range(len(self.depths)))

    @property
    def resolutions(self) -> tuple[int, ...]:
        """Height and width of each stage's tokens."""
        return tuple(self.image_size // (_PATCH * 2**stage) for stage in range(len(self.depths)))


class PatchEmbed(nn.Module):
    """One convolution with overlapping patches: ``[N, 3, S, S]`` → ``[N, dim, S/4, S/4]``."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, dim, 7, _PATCH, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(x)  # type: ignore[no-any-return]


class GeluMlp(Mlp):
    """The feed-forward part. ``[..., dim]`` → the same."""

    def forward(self, x: Tensor) -> Tensor:
        first, last = self.layers
        return last(F.gelu(first(x)))  # type: ignore[no-any-return]


class PooledAttention(nn.Module):
    """Multi-head attention inside windows of ``side`` × ``side`` tokens; with ``pooled``, the result is half as wide
    and half as high, because of each 2 × 2 queries only the largest values ask."""

    def __init__(self, dim: int, out_dim: int, heads: int, side: int, pooled: bool) -> None:
        super().__init__()
        self.dim, self.out_dim, self.heads, self.side, self.pooled = dim, out_dim, heads, side, pooled
        self.qkv = nn.Linear(dim, 3 * out_dim)
        self.proj = nn.Linear(out_dim, out_dim)

    def forward(self, x: Tensor) -> Tensor:
        """Tokens ``[B, side², dim]`` of B windows → the heads' outputs side by side, before ``proj``: ``[B, side²,
        out_dim]``, or a quarter as many tokens."""
        head_dim = self.out_dim // self.heads
        # Scaled before the largest are taken, which is the same: the scale is positive.
        scales = (head_dim**-0.5, 1.0, 1.0)
        weights, biases = self.qkv.weight.chunk(3), self.qkv.bias.chunk(3)
        q, k, v = (F.linear(x, w * scale, b * scale) for w, b, scale in zip(weights, biases, scales, strict=True))
        if self.pooled:
            q = pool(q, self.side, self.out_dim)
        q, k, v = (
            x.reshape(-1, tokens, self.heads, head_dim).permute(0, 2, 1, 3)
            for x, tokens in ((q, self.out_side**2), (k, self.side**2), (v, self.side**2))
        )
        seen = (q @ k.transpose(-2, -1)).softmax(-1) @ v
        return seen.permute(0, 2, 1, 3).reshape(-1, self.out_side**2, self.out_dim)

    @property
    def out_side(self) -> int:
        """Of the windows that come out."""
        return self.side // 2 if self.pooled else self.side


class MultiScaleBlock(nn.Module):
    """Attention and feed-forward part, each with a residual: tokens ``[N, size², dim]`` → ``[N, out_size², out_dim]``.

    Args:
        dim, out_dim: width before and after; where they differ, the resolution is halved.
        heads: of the attention.
        size: height and width of the map that the tokens are of.
        window: side of the attention's windows, ``size`` where it sees everything.
    """

    def __init__(self, dim: int, out_dim: int, heads: int, size: int, window: int) -> None:
        super().__init__()
        self.dim, self.out_dim, self.size, self.window = dim, out_dim, size, window
        pooled = dim != out_dim
        self.norm1 = nn.LayerNorm(dim, _EPS)
        self.attn = PooledAttention(dim, out_dim, heads, window, pooled)
        self.norm2 = nn.LayerNorm(out_dim, _EPS)
        self.mlp = GeluMlp((out_dim, _MLP_RATIO * out_dim, out_dim))
        self.proj = nn.Linear(dim, out_dim) if pooled else None
        self.out_size = size // 2 if pooled else size

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm1(x)
        if self.proj is not None:
            x = pool(self.proj(y), self.size, self.out_dim)
        x = x + self.attn.proj(self._from_windows(self.attn(self._to_windows(y))))
        return x + self.mlp(self.norm2(x))  # type: ignore[no-any-return]

    @property
    def _count(self) -> int:
        """Windows along one axis."""
        return -(-self.size // self.window)

    def _to_windows(self, x: Tensor) -> Tensor:
        """``[N, size², dim]`` → ``[N·count², window², dim]``. Zero tokens fill up the last windows and are attended
        to."""
        side, count = self.window, self._count
        if count == 1:
            return x
        x = x.reshape(-1, self.size, self.size, self.dim)
        excess = count * side - self.size
        if excess:
            x = F.pad(x, (0, 0, 0, excess, 0, excess))
        x = x.reshape(-1, count, side, count, side, self.dim).permute(0, 1, 3, 2, 4, 5)
        return x.reshape(-1, side * side, self.dim)

    def _from_windows(self, x: Tensor) -> Tensor:
        """``[N·count², out_side², out_dim]`` → ``[N, out_size², out_dim]``."""
        side, count, size = self.attn.out_side, self._count, self.out_size
        if count == 1:
            return x
        x = x.reshape(-1, count, count, side, side, self.out_dim).permute(0, 1, 3, 2, 4, 5)
        x = x.reshape(-1, count * side, count * side, self.out_dim)
        if count * side > size:
            x = x[:, :size, :size]
        return x.reshape(-1, size * size, self.out_dim)


class Hiera(nn.Module):
    """The trunk: ``[N, 3, S, S]`` normalised → each stage's tokens ``[N, L, C]``, the finest first."""

    def __init__(self, config: HieraConfig) -> None:
        super().__init__()
        self.config = config
        self.patch_embed = PatchEmbed(config.width)
        self.pos_embed = nn.Parameter(torch.zeros(1, config.width, config.positions, config.positions))
        self.pos_embed_window = nn.Parameter(torch.zeros(1, config.width, config.windows[0], config.windows[0]))
        self.register_buffer("weights", cubic_weights(config.positions, config.resolutions[0]), persistent=False)
        self.weights: Tensor
        self.blocks = nn.ModuleList(_blocks(config))

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        size, dim = self.config.resolutions[0], self.config.width
        x = to_tokens(self.patch_embed(x), size, dim) + self._positions()
        stages = []
        blocks = iter(self.blocks)
        for depth in self.config.depths:
            for _ in range(depth):
                x = next(blocks)(x)
            stages.append(x)
        return tuple(stages)

    def _positions(self) -> Tensor:
        """``[1, L, C]`` of the first stage's tokens: where in the image, and where in its window, each lies."""
        size, dim = self.config.resolutions[0], self.config.width
        times = size // self.config.windows[0]
        image = self.weights @ self.pos_embed @ self.weights.T
        return to_tokens(image + self.pos_embed_window.repeat(1, 1, times, times), size, dim)


def pool(x: Tensor, size: int, dim: int) -> Tensor:
    """The largest of each 2 × 2 tokens: ``[N, size², dim]`` → ``[N, (size/2)², dim]``."""
    x = x.reshape(-1, 2, size * dim).amax(1)
    return x.reshape(-1, 2, dim).amax(1).reshape(-1, (size // 2) ** 2, dim)


def _blocks(config: HieraConfig) -> list[MultiScaleBlock]:
    blocks: list[MultiScaleBlock] = []
    for stage, depth in enumerate(config.depths):
        out_dim, heads = config.widths[stage], config.heads * 2**stage
        for place in range(depth):
            # A stage's first block still has the size, width and windows of the stage before.
            before = stage - 1 if stage and not place else stage
            size = config.resolutions[before]
            window = size if len(blocks) in config.global_blocks else config.windows[before]
            blocks.append(MultiScaleBlock(config.widths[before], out_dim, heads, size, window))
    return blocks
